"""Reading a repository's files: the tree, information on paths, and the bytes themselves."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.accounts import require_content
from tests.hub.context import hub_of, json_body, repo_of, segment
from tests.hub.errors import entry_not_found
from tests.hub.info import last_commit, tree_item
from tests.hub.model import Commit, git_oid


def _truth(value: object) -> bool:
    return str(value).lower() in ("true", "1")


def _folders(commit: Commit) -> set[str]:
    parts = (path.split("/")[:-1] for path in commit.files)
    return {"/".join(folders[: depth + 1]) for folders in parts for depth in range(len(folders))}


def _folder_item(path: str, commit: Commit) -> dict[str, Any]:
    inside = "".join(f"{name} {entry.oid}\n" for name, entry in commit.files.items() if name.startswith(f"{path}/"))
    return {"type": "directory", "oid": git_oid(inside.encode()), "size": 0, "path": path}


def _items(commit: Commit, paths: list[str], *, expand: bool) -> list[dict[str, Any]]:
    folders = _folders(commit)
    items = []
    for path in paths:
        if path in commit.files:
            items.append(tree_item(path, commit.files[path]))
        elif path in folders:
            items.append(_folder_item(path, commit))
    return [{**item, "lastCommit": last_commit(commit)} for item in items] if expand else items


async def tree(request: Request) -> Response:
    """The files and folders of a revision below a path, in one page."""
    repo, _ = repo_of(request)
    commit = hub_of(request).store.commit_at(repo, segment(request, "revision"))
    base = unquote(request.path_params.get("path", "")).strip("/")
    folders = _folders(commit)
    if base and base not in folders:
        raise entry_not_found(f"{base} does not exist on {segment(request, 'revision')}", commit.oid)
    start = f"{base}/" if base else ""
    below = sorted(path for path in folders | set(commit.files) if path.startswith(start) and path != base)
    if not _truth(request.query_params.get("recursive")):
        below = [path for path in below if "/" not in path[len(start) :]]
    return JSONResponse(_items(commit, below, expand=_truth(request.query_params.get("expand"))))


async def paths_info(request: Request) -> Response:
    """Information on the given paths; those that do not exist are left out."""
    repo, _ = repo_of(request)
    commit = hub_of(request).store.commit_at(repo, segment(request, "revision"))
    if request.headers.get("content-type", "").startswith("application/json"):
        asked = await json_body(request)
        paths, expand = list(asked.get("paths", [])), _truth(asked.get("expand"))
    else:
        form = parse_qs((await request.body()).decode())
        paths, expand = form.get("paths", []), _truth(form.get("expand", [""])[0])
    return JSONResponse(_items(commit, [path.rstrip("/") for path in paths], expand=expand))


def _split_revision(rest: str) -> tuple[str, str]:
    """Revision and path, which are apart by the first slash unless an unencoded refs/… comes first."""
    parts = rest.split("/")
    count = 3 if parts[0] == "refs" and len(parts) > 3 else 1
    return unquote("/".join(parts[:count])), unquote("/".join(parts[count:]))


async def resolve(request: Request) -> Response:
    """A file, or its head: what it is, where its xet form is, and the commit that the revision stands for."""
    hub = hub_of(request)
    repo, who = repo_of(request)
    require_content(repo, who)
    revision, path = _split_revision(str(request.path_params["rest"]))
    commit = hub.store.commit_at(repo, revision)
    entry = commit.files.get(path)
    if entry is None:
        raise entry_not_found(commit=commit.oid)
    headers = {
        "X-Repo-Commit": commit.oid,
        "ETag": f'"{entry.etag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
    }
    if entry.lfs:
        headers |= {"X-Linked-ETag": f'"{entry.etag}"', "X-Linked-Size": str(entry.size)}
    if entry.xet:
        refresh = hub.url(request, f"/api/{repo.kind}s/{repo.id}/xet-read-token/{commit.oid}")
        headers |= {"X-Xet-Hash": entry.xet, "Link": f'<{refresh}>; rel="xet-auth"'}
    return FileResponse(hub.store.blob(entry.sha256), headers=headers, filename=path.rsplit("/", 1)[-1])


def file_routes() -> list[BaseRoute]:
    """The routes; a model's files have no prefix before the owner's name."""
    repo = "/api/{kind:kind}/{namespace}/{name}"
    return [
        Route(f"{repo}/tree/{{revision}}", tree),
        Route(f"{repo}/tree/{{revision}}/{{path:path}}", tree),
        Route(f"{repo}/paths-info/{{revision}}", paths_info, methods=["POST"]),
        Route("/{prefix:prefix}{namespace}/{name}/resolve/{rest:path}", resolve),
        Route("/{prefix:prefix}{namespace}/{name}/raw/{rest:path}", resolve),
    ]
