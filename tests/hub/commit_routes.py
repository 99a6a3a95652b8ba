"""Pushing: how each file should travel, the uploads of large ones, and the commit that ties them together."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.accounts import require_write
from tests.hub.context import Hub, hub_of, json_body, repo_of, segment
from tests.hub.errors import HubError, entry_not_found, revision_not_found
from tests.hub.model import Commit, FileEntry, Repo
from tests.hub.storage import LARGE_SUFFIXES
from tests.hub.xet import XetError

REGULAR_LIMIT = 10 * 1024 * 1024


def _pull_request(request: Request) -> bool:
    return request.query_params.get("create_pr") == "1"


def _mode(path: str, size: int, sample: bytes) -> str:
    large = size > REGULAR_LIMIT or path.lower().endswith(LARGE_SUFFIXES) or b"\0" in sample
    return "lfs" if large and size else "regular"


async def preupload(request: Request) -> Response:
    """Tell for each file whether it travels inside the commit or is uploaded before."""
    repo, who = repo_of(request)
    revision = segment(request, "revision")
    require_write(repo, who, pull_request=_pull_request(request), revision=revision)
    commit = hub_of(request).store.commit_at(repo, revision)
    answers = []
    for file in (await json_body(request)).get("files", []):
        path, size, sample = file["path"], file["size"], base64.b64decode(file.get("sample", ""))
        answer = {"path": path, "uploadMode": _mode(path, size, sample), "shouldIgnore": False}
        if path in commit.files:
            answer["oid"] = commit.files[path].etag
        answers.append(answer)
    return JSONResponse({"files": answers})


# Large files by LFS


async def batch(request: Request) -> Response:
    """Where to upload each object; one that is here already needs no upload."""
    hub = hub_of(request)
    repo, who = repo_of(request)
    require_write(repo, who, pull_request=True)
    objects = []
    for wanted in (await json_body(request)).get("objects", []):
        oid, size = str(wanted["oid"]), int(wanted["size"])
        item: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        if not hub.store.blob(oid).exists():
            ticket = secrets.token_urlsafe(24)
            hub.uploads[ticket] = oid
            place = hub.url(request, f"/_lfs/{ticket}")
            upload: dict[str, Any] = {"href": place}
            if size > hub.part_size:
                numbers = range(1, math.ceil(size / hub.part_size) + 1)
                parts = {str(number): f"{place}/{number}" for number in numbers}
                upload = {"href": f"{place}/complete", "header": {"chunk_size": str(hub.part_size), **parts}}
            verify = {"href": hub.url(request, f"{repo.page}.git/info/lfs/objects/verify")}
            item["actions"] = {"upload": upload, "verify": verify}
        objects.append(item)
    return JSONResponse({"transfer": "basic", "objects": objects})


def _oid_of(request: Request) -> str:
    oid = hub_of(request).uploads.get(segment(request, "ticket"))
    if oid is None:
        raise HubError(403, "The upload address is not valid")
    return oid


async def put_object(request: Request) -> Response:
    """Take an object whole; stands in for the object storage, whose signed addresses need no token."""
    hub, oid = hub_of(request), _oid_of(request)
    path, digest = await hub.receive_file(request)
    if digest != oid:
        path.unlink()
        raise HubError(400, "The uploaded bytes do not have the promised SHA-256")
    hub.store.adopt(path, digest)
    return Response(headers={"ETag": f'"{digest[:32]}"'})


async def put_part(request: Request) -> Response:
    """Take one part of an object."""
    hub = hub_of(request)
    _oid_of(request)
    path, digest = await hub.receive_file(request)
    path.replace(_part(hub, segment(request, "ticket"), int(request.path_params["number"])))
    return Response(headers={"ETag": f'"{digest[:32]}"'})


async def complete(request: Request) -> Response:
    """Put the parts of an object together."""
    hub, oid = hub_of(request), _oid_of(request)
    ticket = segment(request, "ticket")
    numbers = [int(part["partNumber"]) for part in (await json_body(request)).get("parts", [])]
    await run_in_threadpool(_join, hub, ticket, oid, numbers)
    return JSONResponse({"success": True})


def _part(hub: Hub, ticket: str, number: int) -> Path:
    return hub.store.root / "uploads" / f"{ticket}.{number}"


def _join(hub: Hub, ticket: str, oid: str, numbers: list[int]) -> None:
    whole, digest = hub.store.upload_path(), hashlib.sha256()
    with whole.open("wb") as out:
        for number in numbers:
            part = _part(hub, ticket, number)
            if not part.exists():
                raise HubError(400, f"Part {number} was not uploaded")
            data = part.read_bytes()
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != oid:
        whole.unlink()
        raise HubError(400, "The uploaded parts do not have the promised SHA-256")
    hub.store.adopt(whole, oid)
    for number in numbers:
        _part(hub, ticket, number).unlink()


async def verify(request: Request) -> Response:
    """Confirm that an object has arrived whole."""
    hub = hub_of(request)
    repo_of(request)
    body = await json_body(request)
    blob = hub.store.blob(str(body.get("oid")))
    if not blob.exists() or blob.stat().st_size != body.get("size"):
        raise HubError(404, "The object is not here, or not whole")
    return JSONResponse({})


# The commit


async def commit(request: Request) -> Response:
    """Make a commit from lines of JSON: a header, then what is added and deleted."""
    hub = hub_of(request)
    repo, who = repo_of(request)
    revision = segment(request, "revision")
    user = require_write(repo, who, pull_request=_pull_request(request), revision=revision)
    try:
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        steps = [(str(line["key"]), dict(line["value"])) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(400, "The body is not lines of JSON") from error
    header = next((value for key, value in steps if key == "header"), None)
    if header is None or not header.get("summary"):
        raise HubError(400, "A commit needs a header with a summary")
    made, number = await run_in_threadpool(_commit, request, hub, repo, revision, user.name, header, steps)
    page = hub.url(request, repo.page)
    answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{page}/commit/{made.oid}", "hookOutput": ""}
    if number:
        answer["pullRequestUrl"] = f"{page}/discussions/{number}"
    return JSONResponse(answer)


def _commit(
    request: Request,
    hub: Hub,
    repo: Repo,
    revision: str,
    author: str,
    header: dict[str, Any],
    steps: list[tuple[str, dict[str, Any]]],
) -> tuple[Commit, int | None]:
    store, title, message = hub.store, str(header["summary"]), str(header.get("description") or "")
    changes = [(key, value, _entry(request, hub, key, value)) for key, value in steps if key != "header"]
    with store.lock:
        ref = store.ref_of(repo, revision)
        if ref is None or ref.startswith("refs/tags/"):
            raise revision_not_found(revision)
        parent = store.commit_at(repo, ref)
        if header.get("parentCommit") not in (None, parent.oid):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for key, value, entry in changes:
            _apply(files, parent, key, str(value["path"]), entry)
        number = store.open_pull(repo, title, message, author).num if _pull_request(request) else None
        made = Commit.make(parent.oid, title, message, author, files)
        store.add_commit(repo, f"refs/pr/{number}" if number else ref, made)
        return made, number


def _entry(request: Request, hub: Hub, key: str, value: dict[str, Any]) -> FileEntry | None:
    """The file that a step adds, None for one that deletes."""
    path = str(value.get("path", ""))
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise HubError(400, f"Invalid path: {path}")
    if key == "file":
        data = base64.b64decode(value["content"]) if value.get("encoding") == "base64" else value["content"].encode()
        hub.log.scan(request.scope["hub_entry"], f"file {path}", data)
        return hub.store.regular(data)
    if key == "lfsFile":
        return _large(request, hub, path, str(value["oid"]))
    if key not in ("deletedFile", "deletedFolder"):
        raise HubError(400, f"Unknown operation: {key}")
    return None


def _apply(files: dict[str, FileEntry], parent: Commit, key: str, path: str, entry: FileEntry | None) -> None:
    if entry is not None:
        files[path] = entry
        return
    folder = path.rstrip("/") + "/"
    gone = [name for name in parent.files if name == path or (key == "deletedFolder" and name.startswith(folder))]
    if not gone:
        raise entry_not_found(f"A {'file' if key == 'deletedFile' else 'folder'} with this name doesn't exist")
    for name in gone:
        files.pop(name, None)


def _large(request: Request, hub: Hub, path: str, oid: str) -> FileEntry:
    """The entry of a large file; one that came by xet is put together here, for clients that read without xet."""
    blob = hub.store.blob(oid)
    if not blob.exists():
        whole = hub.store.upload_path()
        try:
            hub.xet.rebuild(oid, whole)
        except XetError as error:
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path} ({error})") from error
        hub.store.adopt(whole, oid)
    hub.log.scan(request.scope["hub_entry"], f"file {path}", blob.read_bytes())
    return hub.store.large(oid, hub.xet.name_of(oid))


def commit_routes() -> list[BaseRoute]:
    """The routes of a push."""
    repo = "/api/{kind:kind}/{namespace}/{name}"
    objects = "/{prefix:prefix}{namespace}/{name}.git/info/lfs/objects"
    return [
        Route(f"{repo}/preupload/{{revision}}", preupload, methods=["POST"]),
        Route(f"{objects}/batch", batch, methods=["POST"]),
        Route(f"{objects}/verify", verify, methods=["POST"]),
        Route("/_lfs/{ticket}", put_object, methods=["PUT"]),
        Route("/_lfs/{ticket}/complete", complete, methods=["POST"]),
        Route("/_lfs/{ticket}/{number:int}", put_part, methods=["PUT"]),
        Route(f"{repo}/commit/{{revision}}", commit, methods=["POST"]),
    ]
