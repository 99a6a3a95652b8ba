"""The content-addressed store's HTTP interface, which hf_xet calls by the `casUrl` that the Hub hands out."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.accounts import require_content, require_write
from tests.hub.context import hub_of, repo_of, segment
from tests.hub.errors import HubError
from tests.hub.xet import XetError

PREFIX = "/_cas"
LIFETIME = 3600
HASH = re.compile(r"[0-9a-f]{64}")


class XetTokens:
    """The short-lived tokens of the store; they are not the users' tokens."""

    def __init__(self) -> None:
        self._scopes: dict[str, tuple[str, float]] = {}

    def issue(self, scope: str) -> tuple[str, int]:
        """A new token for `read` or `write`, and when it ends."""
        token, end = f"xet-{secrets.token_hex(16)}", int(time.time()) + LIFETIME
        self._scopes[token] = (scope, end)
        return token, end

    def require(self, request: Request, scope: str) -> None:
        """Refuse a request without a token that is wide enough."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        have, end = self._scopes.get(token, ("", 0.0))
        if end < time.time():
            raise HubError(401, "Invalid xet token")
        if scope == "write" and have != "write":
            raise HubError(403, "The xet token cannot write")


def _hash(request: Request) -> str:
    name = segment(request, "hash")
    if not HASH.fullmatch(name):
        raise HubError(400, "Malformed hash")
    return name


async def token(request: Request) -> Response:
    """A token for the store, given to whoever may read or write the repository."""
    hub, scope = hub_of(request), segment(request, "scope")
    repo, who = repo_of(request)
    if scope == "write":
        pull_request = request.query_params.get("create_pr") == "1"
        require_write(repo, who, pull_request=pull_request, revision=segment(request, "revision"))
    else:
        require_content(repo, who)
        hub.store.commit_at(repo, segment(request, "revision"))
    access, end = hub.xet_tokens.issue(scope)
    url = hub.url(request, PREFIX)
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": access, "X-Xet-Token-Expiration": str(end)}
    return JSONResponse({"accessToken": access, "exp": end, "casUrl": url}, headers=headers)


async def put_xorb(request: Request) -> Response:
    """Keep a xorb."""
    hub, name = hub_of(request), _hash(request)
    hub.xet_tokens.require(request, "write")
    path, _ = await hub.receive_file(request)
    try:
        new = await run_in_threadpool(hub.xet.add_xorb, path, name)
    except XetError as error:
        path.unlink(missing_ok=True)
        raise HubError(400, str(error)) from error
    return JSONResponse({"was_inserted": new})


async def _add_shard(request: Request) -> None:
    hub = hub_of(request)
    hub.xet_tokens.require(request, "write")
    shard = await request.body()
    try:
        await run_in_threadpool(hub.xet.add_shard, shard)
    except XetError as error:
        raise HubError(400, str(error)) from error


async def put_shard(request: Request) -> Response:
    """Register the files of a shard."""
    await _add_shard(request)
    return JSONResponse({"result": 1})


async def put_shard_streaming(request: Request) -> Response:
    """Register the files of a shard, answering with a stream of events, of which the last one counts."""
    await _add_shard(request)
    return Response(b'{"type":"result"}\n', media_type="application/x-ndjson")


def _wanted(request: Request, size: int) -> tuple[int, int]:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not asked:
        return 0, size
    first = int(asked[1])
    if first >= size:
        raise HubError(416, "The range starts behind the end of the file")
    return first, min(int(asked[2]) + 1, size) if asked[2] else size


async def reconstruction(request: Request) -> Response:
    """How to fetch a file, or a part of it, chunk by chunk."""
    hub = hub_of(request)
    hub.xet_tokens.require(request, "read")
    file = hub.xet.file(_hash(request))
    if file is None:
        raise HubError(404, "No such file")
    first, last = _wanted(request, file.size)
    answer: dict[str, Any] = hub.xet.reconstruction(file, first, last, hub.url(request, f"{PREFIX}/data"))
    return JSONResponse(answer)


async def xorb_data(request: Request) -> Response:
    """A part of a xorb; stands in for the object storage, whose signed addresses need no token."""
    path = hub_of(request).xet.xorb(_hash(request))
    if not path.exists():
        raise HubError(404, "No such xorb")
    return FileResponse(path)


async def telemetry(request: Request) -> Response:
    """Take the client's transfer statistics and forget them."""
    await request.body()
    return JSONResponse({})


def xet_routes() -> list[BaseRoute]:
    """The routes; anything else under the prefix is a 404, which hf_xet takes as the older interface."""
    return [
        Route("/api/{kind:kind}/{namespace}/{name}/xet-{scope:scope}-token/{revision}", token),
        Route(f"{PREFIX}/v1/xorbs/{{prefix}}/{{hash}}", put_xorb, methods=["POST"]),
        Route(f"{PREFIX}/v1/shards", put_shard, methods=["POST"]),
        Route(f"{PREFIX}/v2/shards", put_shard_streaming, methods=["POST"]),
        Route(f"{PREFIX}/v1/reconstructions/{{hash}}", reconstruction),
        Route(f"{PREFIX}/data/{{hash}}", xorb_data),
        Route(f"{PREFIX}/v1/telemetry", telemetry, methods=["POST"]),
    ]
