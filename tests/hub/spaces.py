"""What only Spaces have, and the buckets that they mount; their repositories work as all others do."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.accounts import require_write, require_write_token
from tests.hub.context import hub_of, json_body, repo_of, segment
from tests.hub.errors import HubError
from tests.hub.model import Repo, now


async def runtime(request: Request) -> Response:
    """What the Space runs on; nothing runs here, so the stage never changes."""
    repo, _ = repo_of(request)
    if repo.kind != "space":
        raise HubError(404, "Not a Space")
    return JSONResponse(_runtime(request, repo))


def _runtime(request: Request, repo: Repo) -> dict[str, Any]:
    hardware = repo.space.get("hardware", "cpu-basic")
    stages = repo.space.get("stages") or ["RUNNING"]
    if len(stages) > 1:
        repo.space["stages"] = stages[1:]
        hub_of(request).store.save(repo)
    return {
        "stage": stages[0],
        "hardware": {"current": hardware, "requested": hardware},
        "gcTimeout": repo.space.get("sleepTimeSeconds"),
        "storage": None,
        "volumes": repo.space.get("volumes", []),
    }


def _changing(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Callable[[Request], Awaitable[Response]]:
    """A handler that changes what is known of a Space, for who may write it."""

    async def handle(request: Request) -> Response:
        repo, who = repo_of(request)
        require_write(repo, who)
        if repo.kind != "space":
            raise HubError(404, "Not a Space")
        if request.method != "GET":
            change(repo.space, await json_body(request))
            hub_of(request).store.save(repo)
        if request.url.path.endswith("/variables"):
            return JSONResponse({key: {"value": value} for key, value in repo.space.get("variables", {}).items()})
        if request.url.path.endswith("/secrets"):
            return JSONResponse({key: {"updatedAt": now()} for key in repo.space.get("secrets", [])})
        return JSONResponse(_runtime(request, repo))

    return handle


def _take_hardware(space: dict[str, Any], body: dict[str, Any]) -> None:
    if body["flavor"] not in {known["name"] for known in HARDWARE}:
        raise HubError(400, f"There is no hardware {body['flavor']}")
    space["hardware"] = body["flavor"]
    if "sleepTimeSeconds" in body:
        space["sleepTimeSeconds"] = body["sleepTimeSeconds"]


def _take_secret(space: dict[str, Any], body: dict[str, Any]) -> None:
    # only its name: nothing may read it back
    space["secrets"] = sorted({*space.get("secrets", []), body["key"]})


def _take_variable(space: dict[str, Any], body: dict[str, Any]) -> None:
    space["variables"] = {**space.get("variables", {}), body["key"]: body["value"]}


async def logs(request: Request) -> Response:
    """What the build or the app printed, as server-sent events."""
    repo, who = repo_of(request)
    require_write(repo, who)
    lines = repo.space.get("logs", {}).get(segment(request, "which"), [])
    # the client stops at a line that is a second newer than the Date header, which a server under load sends late
    told = [{"data": line, "timestamp": "2026-01-01T00:00:00.000Z"} for line in lines]
    return Response("".join(f"data: {json.dumps(line)}\n\n" for line in told), media_type="text/event-stream")


HARDWARE: list[dict[str, Any]] = [
    {"name": name, "prettyName": title, "cpu": cpu, "ram": ram, "accelerator": None, "unitLabel": "minute"}
    | {"unitCostMicroUSD": cost, "unitCostUSD": cost / 1e6}
    for name, title, cpu, ram, cost in (
        ("cpu-basic", "CPU Basic", "2 vCPU", "16 GB", 0),
        ("t4-small", "Nvidia T4 - small", "4 vCPU", "15 GB", 6667),
        ("l4x1", "1x Nvidia L4", "8 vCPU", "30 GB", 13333),
    )
]


async def hardware(request: Request) -> Response:
    """What a Space can run on, and what a minute of it costs."""
    return JSONResponse(HARDWARE)


async def bucket(request: Request) -> Response:
    """Make a bucket, or tell of one; what is in it is nobody's business here."""
    hub = hub_of(request)
    namespace, name = segment(request, "namespace"), segment(request, "name")
    who, known = hub.accounts.identify(request), hub.buckets.get(f"{namespace}/{name}")
    if request.method == "POST":
        user = require_write_token(who)
        if not user.writes_to(namespace):
            raise HubError(403, f"You don't have the rights to create a bucket under the namespace {namespace}")
        url = hub.url(request, f"/buckets/{namespace}/{name}")
        if known:
            raise HubError(409, "You already created this bucket", body={"url": url})
        private = (await json_body(request)).get("visibility") == "private"
        hub.buckets[f"{namespace}/{name}"] = {"private": private, "createdAt": now()}
        return JSONResponse({"url": url})
    if known is None or (known["private"] and not (who and who.belongs_to(namespace))):
        raise HubError(404, "Bucket not found", "RepoNotFound")
    return JSONResponse({"id": f"{namespace}/{name}", "size": 0, "totalFiles": 0, **known})


def space_routes() -> list[BaseRoute]:
    """The routes of Spaces."""
    space = "/api/{kind:kind}/{namespace}/{name}"
    changes: list[tuple[str, str, Callable[[dict[str, Any], dict[str, Any]], None]]] = [
        ("POST", "hardware", _take_hardware),
        ("POST", "sleeptime", lambda space, body: space.update(sleepTimeSeconds=body["seconds"])),
        ("POST", "secrets", _take_secret),
        ("POST", "variables", _take_variable),
        ("PUT", "volumes", lambda space, body: space.update(volumes=body["volumes"])),
    ]
    return [
        Route("/api/spaces/hardware", hardware),
        *(Route(f"{space}/{name}", _changing(change), methods=[method, "GET"]) for method, name, change in changes),
        Route("/api/buckets/{namespace}/{name}", bucket, methods=["GET", "POST"]),
        Route(f"{space}/logs/{{which}}", logs),
        Route(f"{space}/runtime", runtime),
    ]
