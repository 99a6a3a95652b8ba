"""The Hub as an application and as a process: `python -m tests.hub --dir DIR --port 0` prints its address as JSON."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from tests.hub.commit_routes import commit_routes
from tests.hub.context import Hub
from tests.hub.control import control_routes
from tests.hub.errors import HubError
from tests.hub.faults import Front
from tests.hub.files import file_routes
from tests.hub.openid_routes import openid_routes
from tests.hub.repo_routes import repo_routes
from tests.hub.spaces import space_routes
from tests.hub.xet_routes import XetTokens, xet_routes

PART_SIZE = 5 * 1024 * 1024


def build(root: Path, key: str, *, part_size: int = PART_SIZE) -> ASGIApp:
    """The application over a directory; `key` opens the control endpoint, larger objects are uploaded in parts."""
    hub = Hub(root, XetTokens, part_size=part_size)
    routes = [
        *control_routes(key),
        *xet_routes(),
        *repo_routes(),
        *space_routes(),
        *openid_routes(),
        *commit_routes(),
        *file_routes(),
    ]

    def answer_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HubError)
        return error.response()

    def answer_missing(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "Not found"}, 404)

    app = Starlette(
        routes=routes,
        exception_handlers={HubError: answer_error, 404: answer_missing},
    )
    app.state.hub = hub
    app.router.redirect_slashes = False
    return Front(app, hub)


def _end_with_parent() -> None:
    """Leave when the process that holds the other end of standard input is gone."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="A local server that speaks the Hub's protocol, for tests.")
    parser.add_argument("--dir", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--part-size", type=int, default=PART_SIZE, help="larger objects are uploaded in parts")
    parser.add_argument("--end-with-stdin", action="store_true", help="stop when standard input is closed")
    options = parser.parse_args()
    key = secrets.token_urlsafe(24)
    app = build(options.dir.resolve(), key, part_size=options.part_size)
    listener = socket.create_server(("127.0.0.1", options.port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sys.stdout.write(json.dumps({"url": url, "key": key}) + "\n")
    sys.stdout.flush()
    if options.end_with_stdin:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])
