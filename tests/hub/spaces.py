"""What only Spaces have; their repositories work as all others do."""

from __future__ import annotations

from typing import Any

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


HARDWARE: list[dict[str, Any]] = [
    {"name": name, "prettyName": title, "cpu": cpu, "ram": ram, "accelerator": None, "unitLabel": "minute"}
    | {"unitCostMicroUSD": cost, "unitCostUSD": cost / 1e6}
    for name, title, cpu, ram, cost in (
        ("cpu-basic", "CPU Basic", "2 vCPU", "16 GB", 0),
        ("t4-small", "Nvidia T4 - small", "4 vCPU", "15 GB", 6667),
    )
]


async def hardware(request: Request) -> Response:
    """What a Space can run on, and what a minute of it costs."""
    return JSONResponse(HARDWARE)


def space_routes() -> list[BaseRoute]:
    """The routes of Spaces: sleep time, pause, restart, secrets and variables belong here."""
    return [
        Route("/api/spaces/hardware", hardware),
        Route("/api/{kind:kind}/{namespace}/{name}/runtime", runtime),
    ]
