"""Injected faults (errors, delays, cut connections), and the middleware that applies them and keeps the log."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.hub.errors import HubError
from tests.hub.requestlog import BodyScan, LogEntry

if TYPE_CHECKING:
    from tests.hub.context import Hub

CONTROL = "/_control/"


@dataclass
class Fault:
    """What happens to the next `times` requests that match; the path is searched for the pattern, query included.

    `delay` waits before the request is handled. `status` answers it with an error. `cut_request` closes the
    connection after so many bytes of the request's body, `cut_response` after so many of the answer's.
    """

    method: str = "*"
    path: str = ""
    times: int = 1
    delay: float = 0.0
    status: int | None = None
    retry_after: int | None = None
    code: str | None = None
    message: str = "injected fault"
    headers: dict[str, str] = field(default_factory=dict)
    cut_request: int | None = None
    cut_response: int | None = None

    def matches(self, method: str, target: str) -> bool:
        """Whether this fault is for such a request."""
        return self.times > 0 and self.method in ("*", method) and re.search(self.path, target) is not None

    def error(self) -> HubError:
        """The answer that replaces the handler's."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return HubError(self.status or 500, self.message, self.code, headers=headers)

    def describe(self) -> str:
        """A few words for the log."""
        words = [f"status {self.status}"] if self.status else []
        words += [f"delay {self.delay}"] if self.delay else []
        words += ["cut request"] if self.cut_request is not None else []
        words += ["cut response"] if self.cut_response is not None else []
        return ", ".join(words) or "none"


class Faults:
    """The faults in waiting, the oldest first."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fields: dict[str, Any]) -> None:
        """Add a fault given by its fields."""
        try:
            fault = Fault(**fields)
            re.compile(fault.path)
        except (TypeError, re.error) as error:
            raise HubError(400, f"Not a fault: {error}") from error
        self._waiting.append(fault)

    def take(self, method: str, target: str) -> Fault | None:
        """The fault for this request, which then has one time less."""
        for fault in self._waiting:
            if fault.matches(method, target):
                fault.times -= 1
                return fault
        return None

    def waiting(self) -> list[dict[str, Any]]:
        """The faults that have not yet happened as often as they should."""
        return [asdict(fault) for fault in self._waiting if fault.times > 0]

    def clear(self) -> None:
        """Drop all faults."""
        self._waiting.clear()


class _CutError(Exception):
    """The connection was closed on purpose."""


class Front:
    """The outermost layer: logs each request, applies faults, and matches paths before they are decoded."""

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["raw_path"].decode("ascii")
        scope = {**scope, "path": path}
        if path.startswith(CONTROL):
            await self._app(scope, receive, send)
            return
        query = scope["query_string"]
        entry = self._hub.log.open(scope["method"], path, query, scope["headers"])
        scope["hub_entry"] = entry
        fault = self._hub.faults.take(scope["method"], unquote(path) + (f"?{query.decode()}" if query else ""))
        wire = _Wire(receive, send, entry, fault, BodyScan(self._hub.log.secrets()))
        try:
            await self._handle(scope, wire, fault)
        except (_CutError, ClientDisconnect):
            await asyncio.sleep(0.01)  # the server must notice the closed connection before this returns

    async def _handle(self, scope: Scope, wire: _Wire, fault: Fault | None) -> None:
        if fault is not None:
            wire.entry.fault = fault.describe()
            await asyncio.sleep(fault.delay)
            if fault.status is not None:
                while (await wire.receive()).get("more_body"):
                    pass  # a client that is still sending would not see the answer
                await fault.error().response()(scope, wire.receive, wire.send)
                return
        await self._app(scope, wire.receive, wire.send)


class _Wire:
    """The two directions of a request, watched and cut."""

    def __init__(self, receive: Receive, send: Send, entry: LogEntry, fault: Fault | None, scan: BodyScan) -> None:
        self._receive = receive
        self._send = send
        self.entry = entry
        self._fault = fault
        self._scan = scan
        self._sent = 0
        self._closed = False
        # The server's own object for this request holds the connection; nothing in ASGI can close it.
        self._transport = receive.__self__.transport  # type: ignore[attr-defined]

    async def receive(self) -> Message:
        """The next message from the client."""
        message = await self._receive()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            self.entry.received += len(body)
            self._scan.feed(body)
            for label in sorted(self._scan.found):
                if (leak := f"{label} in body") not in self.entry.leaks:
                    self.entry.leaks.append(leak)
            limit = self._fault.cut_request if self._fault else None
            if limit is not None and self.entry.received >= limit:
                self._closed = True
                self._transport.abort()
                raise _CutError
        return message

    async def send(self, message: Message) -> None:
        """Send a message to the client."""
        if self._closed:
            return
        start = message["type"] == "http.response.start"
        if start:
            self.entry.status = message["status"]
        body = message.get("body", b"")
        limit = self._fault.cut_response if self._fault else None
        if start or limit is None or self._sent + len(body) < limit:
            self._sent += len(body)
            await self._send(message)
            return
        await self._send({**message, "body": body[: limit - self._sent], "more_body": True})
        self._closed = True
        self._transport.close()
        raise _CutError
