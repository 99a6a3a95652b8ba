"""What every request passes before Gradio sees it: who sent it, whether it may, and what the answer tells browsers."""

import base64
import binascii
import json
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftapp.people import LOCAL
from ftapp.settings import LOOPBACK, Settings
from ftapp.ui.sign_in import Asker, SignInDesk

ASKER = "ftapp.asker"
"""Where in a request's scope it stands who sent it."""
MAX_BODY = 8 * 2**20
"""Bytes of a request that is no upload."""
MAX_HEADERS = 32 * 2**10
MINUTE = 60.0
NOT_YOURS = "This page was opened by somebody else, or the sign-in it was opened with has ended. Reload it."
REMEMBERED = 20_000
"""Sessions and files whose owners are kept in mind; beyond that the oldest are forgotten, and refused."""
READING = ("GET", "HEAD", "OPTIONS")
API = "/gradio_api/"
UPLOADED, OFFERED = re.compile(rb'("(?:[^"\\]|\\.)*")'), re.compile(rb'(?<!\\)"path": ?("(?:[^"\\]|\\.)*")')
"""A file in an answer of Gradio's, as JSON: to an upload, and to anything else."""
UPLOAD, FILES = "/gradio_api/upload", ("/gradio_api/file=", "/gradio_api/file/", "/file=")
OPEN = ("/health", "/gradio_api/startup-events")
"""Answered without a password: they tell nothing."""
CLOSED = (
    "/gradio_api/proxy=",
    "/gradio_api/vibe",
    "/gradio_api/undo-vibe",
    "/gradio_api/process_recording",
    "/gradio_api/stream/",
    "/gradio_api/run-history",
    "/gradio_api/runs",
    "/gradio_api/component_server",
    "/gradio_api/deep_link",
    "/monitoring",
    "/gradio_api/profiling",
)
"""Of Gradio's own, what this page has no use for."""


class Owners:
    """Whose a session is, and whose a file in Gradio's folder: several people's, if they gave the same one."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, set[str]] = OrderedDict()
        self._lock = threading.Lock()

    def give(self, thing: str, person: str) -> None:
        """It is this person's too from now on."""
        with self._lock:
            self._owners.setdefault(thing, set()).add(person)
            while len(self._owners) > REMEMBERED:
                self._owners.popitem(last=False)

    def claim(self, thing: str, person: str) -> bool:
        """Whether it is this person's; it is from now on if it was nobody's."""
        if thing not in self._owners:
            self.give(thing, person)
        return self.owns(thing, person)

    def owns(self, thing: str, person: str) -> bool:
        """Whether it is this person's."""
        return person in self._owners.get(thing, ())


class Rate:
    """How often each of many asks in a minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, who: str) -> bool:
        """Whether one more is within the limit; it is counted if it is."""
        now = time.monotonic()
        with self._lock:
            times = self._asked.setdefault(who, deque())
            self._asked.move_to_end(who)
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
            while times and now - times[0] > MINUTE:
                times.popleft()
            if len(times) >= self._most:
                return False
            times.append(now)
            return True


class Gate:
    """ASGI middleware around the whole page."""

    def __init__(self, app: ASGIApp, settings: Settings, desk: SignInDesk | None) -> None:
        self._app = app
        self._settings = settings
        self._desk = desk
        self._sessions, self._files = Owners(), Owners()
        self._rate = Rate(settings.max_requests) if settings.max_requests else None
        self._headers = _security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "websocket":
            return  # the page has none; closing it unanswered refuses it
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = self._sealed(send)
        if scope["path"] == "/health":
            await PlainTextResponse("ok")(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refusal(request)
        if refused is None:
            asker = scope[ASKER] = self._asker(request)
            person = asker.person.name if self._desk else LOCAL.name
            refused = self._refusal_of(request, asker, person)
            if refused is None and scope["path"].startswith(API):
                send = self._noting_files(send, person, uploaded=scope["path"].rstrip("/") == UPLOAD)
            if refused is None and scope["method"] not in READING and scope["path"].rstrip("/") != UPLOAD:
                body, refused = await self._body(request, receive, person)
                receive = _again(body, receive)
        await (refused or self._app)(scope, receive, send)

    # Before it is known who asks

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADERS:
            return _refuse(431, f"The headers have more than {MAX_HEADERS:,} bytes.")
        path, settings = request.url.path, self._settings
        host = headers.get("host", "")
        if self._desk is None and settings.password is None and _hostname(host) not in LOOPBACK:
            # or any page in the same browser could come here under a name of its own (DNS rebinding)
            return _refuse(
                421, f"Open it as http://127.0.0.1:{settings.port}: {host[:100]!r} is not this machine's name."
            )
        origin = headers.get("origin")
        if origin and request.method not in READING:
            known = {host, headers.get("x-forwarded-host", host), *self._addresses()}
            if urlsplit(origin).netloc not in known:
                return _refuse(403, f"Another site ({origin[:100]}) may not act here.")
        if settings.password and self._desk is None and path not in OPEN and not self._knows_password(headers):
            answer = _refuse(401, "This needs a user and a password.")
            answer.headers["WWW-Authenticate"] = 'Basic realm="ftapp", charset="UTF-8"'
            return answer
        if path.startswith(CLOSED):
            return _refuse(404, "There is nothing here.")
        return None

    def _addresses(self) -> Iterable[str]:
        sign_in = self._settings.sign_in
        return [sign_in.address] if sign_in and sign_in.address else []

    def _knows_password(self, headers: Headers) -> bool:
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True) if scheme.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            return False
        wanted = f"{self._settings.user}:{self._settings.password}".encode()
        return secrets.compare_digest(given, wanted)

    # Once it is

    def _asker(self, request: Request) -> Asker:
        return self._desk.asker(request) if self._desk else Asker(LOCAL)

    def _refusal_of(self, request: Request, asker: Asker, person: str) -> Response | None:
        path = request.url.path
        if self._rate and not self._rate.allows(asker.account or _address(request, bool(self._settings.space_id))):
            answer = _refuse(429, f"More than {self._settings.max_requests:,} requests in a minute. Wait a little.")
            answer.headers["Retry-After"] = "30"
            return answer
        if path.rstrip("/") == UPLOAD and not asker.person.may_act:
            return _refuse(403, "This is a demo to look at: nothing can be uploaded.")
        for before in FILES:
            if path.startswith(before) and not self._files.owns(path[len(before) :], person):
                return _refuse(403, "That file is not yours.")
        session = request.query_params.get("session_hash") or _heartbeat(path)
        if session and not self._sessions.claim(session, person):
            return _refuse(403, NOT_YOURS)
        return None

    async def _body(self, request: Request, receive: Receive, person: str) -> tuple[bytes, Response | None]:
        """A request's body, read here, and why it is refused, if it is."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                return b"", _refuse(413, f"The request has more than {MAX_BODY:,} bytes.")
            if not message.get("more_body"):
                break
        if not request.url.path.startswith(API) or not body:
            return bytes(body), None
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            return b"", _refuse(400, "The request is no JSON.")
        session = told.get("session_hash") if isinstance(told, dict) else None
        if session is not None and not (isinstance(session, str) and self._sessions.claim(session, person)):
            return b"", _refuse(403, NOT_YOURS)
        if any(not self._files.owns(path, person) for path in _paths(told)):
            return b"", _refuse(403, "That file is not yours.")
        return bytes(body), None

    # What goes back

    def _noting_files(self, send: Send, person: str, uploaded: bool) -> Send:
        """Remember whose the files are that an answer names: those of an upload, and those that are offered to save."""

        async def noting(message: Message) -> None:
            body = message.get("body", b"") if message["type"] == "http.response.body" else b""
            if uploaded or b'"path"' in body:
                for found in (UPLOADED if uploaded else OFFERED).finditer(body):
                    self._files.give(json.loads(found[1]), person)
            await send(message)

        return noting

    def _sealed(self, send: Send) -> Send:
        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        return sealed


def _security_headers(settings: Settings) -> dict[str, str]:
    # a Space is shown in a frame on the Hub's page
    frames = "'self'" + (" https://huggingface.co https://*.huggingface.co" if settings.space_id else "")
    policy = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
        f"object-src 'none'; base-uri 'self'; frame-ancestors {frames}"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }


def _refuse(status: int, words: str) -> Response:
    # as Gradio's page shows an error of a request
    return JSONResponse({"error": words, "detail": words}, status)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, for whoever reads it next, and then what comes."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _paths(value: Any) -> Iterable[str]:
    """Every file that a request names, as Gradio looks for them."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("path"), str):
                yield one["path"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _heartbeat(path: str) -> str:
    before = "/gradio_api/heartbeat/"
    return path[len(before) :] if path.startswith(before) else ""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _address(request: Request, behind_proxy: bool) -> str:
    """Where a request of nobody known came from; in a Space as the Hub's proxy says."""
    forwarded = request.headers.get("x-forwarded-for", "").split(",")[0].strip() if behind_proxy else ""
    return forwarded or (request.client.host if request.client else "")
