"""The test's own way in: users, faults, the log and repositories, behind a key that only the test knows."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.context import Hub, hub_of, json_body
from tests.hub.errors import HubError, entry_not_found
from tests.hub.model import KINDS, Kind, Repo

KEY_HEADER = "X-Control-Key"
Action = Callable[[Hub, dict[str, Any]], Any]


def _repo(hub: Hub, body: dict[str, Any]) -> Repo:
    kind = body.get("kind", "model")
    repo = hub.store.find(cast(Kind, kind), str(body.get("repo"))) if kind in KINDS else None
    if repo is None:
        raise HubError(404, f"No such repository: {kind} {body.get('repo')}")
    return repo


def _users(hub: Hub, body: dict[str, Any]) -> None:
    hub.accounts.add(body["name"], body["token"], body.get("role", "write"), body.get("orgs"))


def _gate(hub: Hub, body: dict[str, Any]) -> None:
    repo = _repo(hub, body)
    repo.gated = body.get("gated", "auto")
    repo.granted = list(body.get("granted", repo.granted))
    hub.store.save(repo)


def _downloads(hub: Hub, body: dict[str, Any]) -> None:
    repo = _repo(hub, body)
    repo.downloads = int(body["count"])
    hub.store.save(repo)


def _space(hub: Hub, body: dict[str, Any]) -> dict[str, Any]:
    repo = _repo(hub, body | {"kind": "space"})
    repo.space |= body.get("change", {})
    hub.store.save(repo)
    return repo.space


def _files(hub: Hub, body: dict[str, Any]) -> dict[str, Any]:
    commit = hub.store.commit_at(_repo(hub, body), body.get("revision", "main"))
    return {
        path: {"size": entry.size, "sha256": entry.sha256, "lfs": entry.lfs, "xet": entry.xet}
        for path, entry in commit.files.items()
    }


def _commits(hub: Hub, body: dict[str, Any]) -> list[dict[str, Any]]:
    repo = _repo(hub, body)
    history = hub.store.history(repo, hub.store.commit_at(repo, body.get("revision", "main")))
    return [{"oid": c.oid, "title": c.title, "author": c.author, "date": c.date} for c in history]


def _repos(hub: Hub, body: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"kind": repo.kind, "id": repo.id, "private": repo.private} for repo in hub.store.repos()]


ACTIONS: dict[str, Action] = {
    "ping": lambda hub, body: None,
    "add-user": _users,
    "revoke": lambda hub, body: hub.accounts.revoke(body["token"]),
    "watch": lambda hub, body: hub.log.watch(body["label"], body["secret"]),
    "add-fault": lambda hub, body: hub.faults.add(body),
    "faults": lambda hub, body: hub.faults.waiting(),
    "clear-faults": lambda hub, body: hub.faults.clear(),
    "requests": lambda hub, body: hub.log.entries(),
    "clear-requests": lambda hub, body: hub.log.clear(),
    "gate": _gate,
    "downloads": _downloads,
    "space": _space,
    "files": _files,
    "commits": _commits,
    "repos": _repos,
}


def control_routes(key: str) -> list[BaseRoute]:
    """The routes, which answer only to this key."""

    def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def check(request: Request) -> Response:
            if not hmac.compare_digest(request.headers.get(KEY_HEADER, ""), key):
                raise HubError(403, "Not for you")
            return await handler(request)

        return check

    async def act(request: Request) -> Response:
        action = ACTIONS.get(request.path_params["action"])
        if action is None:
            raise HubError(404, "No such action")
        try:
            return JSONResponse({"result": action(hub_of(request), await json_body(request))})
        except KeyError as error:
            raise HubError(400, f"Missing: {error}") from error

    async def read(request: Request) -> Response:
        hub, body = hub_of(request), await json_body(request)
        entry = hub.store.commit_at(_repo(hub, body), body.get("revision", "main")).files.get(str(body.get("path")))
        if entry is None:
            raise entry_not_found()
        return FileResponse(hub.store.blob(entry.sha256), media_type="application/octet-stream")

    return [
        Route("/_control/read", guarded(read), methods=["POST"]),
        Route("/_control/{action}", guarded(act), methods=["POST"]),
    ]
