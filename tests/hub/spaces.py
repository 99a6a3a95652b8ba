"""What only Spaces have; their repositories work as all others do."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.context import repo_of
from tests.hub.errors import HubError


async def runtime(request: Request) -> Response:
    """What the Space runs on; nothing runs here, so the stage never changes."""
    repo, _ = repo_of(request)
    if repo.kind != "space":
        raise HubError(404, "Not a Space")
    hardware = repo.space.get("hardware", "cpu-basic")
    return JSONResponse(
        {
            "stage": "RUNNING",
            "hardware": {"current": hardware, "requested": hardware},
            "gcTimeout": repo.space.get("sleepTimeSeconds"),
            "storage": None,
            "volumes": [],
        }
    )


def space_routes() -> list[BaseRoute]:
    """The routes of Spaces: hardware, sleep time, pause, restart, secrets and variables belong here."""
    return [Route("/api/{kind:kind}/{namespace}/{name}/runtime", runtime)]
