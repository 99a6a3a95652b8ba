"""What every request passes before Gradio sees it: who sent it, whether it may, and what the answer tells browsers."""

import asyncio
import base64
import binascii
import ipaddress
import json
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict
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
MAX_BODY, MAX_VISITORS_BODY = 8 * 2**20, 64 * 2**10
"""Bytes of a request that is no upload; and of one by somebody who may only look."""
BODY_SECONDS = 60
"""That such a request may take to arrive."""
FORM_BYTES = 2**20
"""Of an upload, beside its files."""
MAX_HEADERS = 32 * 2**10
MINUTE = 60.0
NOT_YOURS = "This page was opened by somebody else, or the sign-in it was opened with has ended. Reload it."
REMEMBERED = 20_000
"""Sessions and files whose owners are kept in mind; beyond that the oldest are forgotten, and refused."""
MOST_AT_ONCE = 500
"""Requests of one person, or from one address, that are being answered, where their number in a minute is limited."""
READING, METHODS = ("GET", "HEAD"), ("GET", "HEAD", "POST")
API = "/gradio_api/"
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a page may call itself."""
UPLOADED, OFFERED = re.compile(rb'("(?:[^"\\]|\\.)*")'), re.compile(rb'(?<!\\)"path": ?("(?:[^"\\]|\\.)*")')
"""A file in an answer of Gradio's, as JSON: to an upload, and to anything else."""
UPLOAD, RUN, STREAM = "/gradio_api/upload", "/gradio_api/run/", "/gradio_api/queue/data"
FILE, HEARTBEAT = "/gradio_api/file=", "/gradio_api/heartbeat/"
CALLS = (
    UPLOAD,
    STREAM,
    "/gradio_api/queue/join",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/upload_progress",
    "/gradio_api/info",
    "/gradio_api/app_id",
    "/gradio_api/startup-events",
    "/gradio_api/theme.css",
)
"""What this page calls of Gradio's, beside RUN, FILE and HEARTBEAT; the rest is closed."""
OPEN = ("/health", "/gradio_api/startup-events")
"""Answered without a password: they tell nothing."""
CLOSED = ("/monitoring", "/svelte/", "/gradio_api")
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
    """How often each of many asks in a minute, and how much of it at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._at_once: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, who: str) -> bool:
        """Whether one more is within the limits; it is counted if it is, and `end` has to follow."""
        now = time.monotonic()
        with self._lock:
            since, count = self._asked.pop(who, (now, 0))
            if now - since > MINUTE:
                since, count = now, 0
            allowed = count < self._most and self._at_once[who] < MOST_AT_ONCE
            self._asked[who] = since, count + allowed
            self._at_once[who] += allowed
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
            return allowed

    def end(self, who: str) -> None:
        """One is answered."""
        with self._lock:
            self._at_once[who] -= 1
            if not self._at_once[who]:
                del self._at_once[who]


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
            who = asker.account or _address(request, bool(self._settings.space_id))
            if self._rate is None:
                await self._answer(request, asker, receive, send)
                return
            if self._rate.begin(who):
                try:
                    await self._answer(request, asker, receive, send)
                finally:
                    self._rate.end(who)
                return
            refused = _refuse(
                429,
                f"More than {self._settings.max_requests:,} requests in a minute, or {MOST_AT_ONCE} at once. "
                "Wait a little.",
            )
            refused.headers["Retry-After"] = "30"
        await refused(scope, receive, send)

    async def _answer(self, request: Request, asker: Asker, receive: Receive, send: Send) -> None:
        path, person = _path(request), asker.person.name if self._desk else LOCAL.name
        refused = self._refusal_of(request, asker, person)
        if refused is None and (path in (UPLOAD, STREAM) or path.startswith(RUN)):
            send = self._noting_files(send, person, uploaded=path == UPLOAD)
        if refused is None and path == UPLOAD:
            receive = _cut(receive, self._settings.max_upload_bytes + FORM_BYTES)
        elif refused is None and request.method not in READING:
            body, refused = await self._body(request, asker, receive, person)
            receive = _again(body, receive)
        await (refused or self._app)(request.scope, receive, send)

    # Before it is known who asks

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADERS:
            return _refuse(431, f"The headers have more than {MAX_HEADERS:,} bytes.")
        path, settings = _path(request), self._settings
        host = headers.get("host", "")
        if self._desk is None and settings.password is None and _hostname(host) not in LOOPBACK:
            # or any page in the same browser could come here under a name of its own (DNS rebinding)
            return _refuse(
                421,
                f"Open it as http://127.0.0.1:{settings.port}: {host[:100]!r} is not this machine's name. "
                "Where it has another, set FTAPP_PASSWORD.",
            )
        if request.method not in METHODS:
            return _refuse(405, f"Nothing here is done by {request.method[:20]}.")
        if self._foreign(request):
            return _refuse(403, f"Another site ({headers.get('origin', '')[:100]}) may not act here.")
        if settings.password and self._desk is None and path not in OPEN and not self._knows_password(headers):
            answer = _refuse(401, "This needs a user and a password.")
            answer.headers["WWW-Authenticate"] = 'Basic realm="ftapp", charset="UTF-8"'
            return answer
        if path.startswith(CLOSED) and path not in CALLS and not path.startswith((RUN, FILE, HEARTBEAT)):
            return _refuse(404, "There is nothing here.")
        return None

    def _foreign(self, request: Request) -> bool:
        """Whether a page of another site sent this, to act or to read the answer; to go here by a link is no harm."""
        headers = request.headers
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if request.method in READING and (origin is None or headers.get("sec-fetch-mode") == "navigate"):
            return False
        if site:  # a proxy may have changed the host, and no script can write this
            return site not in ("same-origin", "none")
        sign_in = self._settings.sign_in
        known = {headers.get("host", ""), sign_in and sign_in.address}
        return origin is not None and _netloc(origin) not in known

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
        path = _path(request)
        if path == UPLOAD:
            if not asker.person.may_act:
                return _refuse(403, "This is a demo to look at: nothing can be uploaded.")
            most, size = self._settings.max_upload_bytes, request.headers.get("content-length", "0")
            if not size.isdecimal() or int(size) > most + FORM_BYTES:
                return _refuse(413, f"That is more than {most / 2**20:,.0f} MiB, the largest size of an upload.")
        if path.startswith(FILE) and not self._files.owns(path[len(FILE) :], person):
            return _refuse(403, "That file is not yours.")
        session = path[len(HEARTBEAT) :] if path.startswith(HEARTBEAT) else request.query_params.get("session_hash")
        if session is not None and not self._owns_session(session, person):
            return _refuse(403, NOT_YOURS)
        return None

    def _owns_session(self, session: Any, person: str) -> bool:
        known = isinstance(session, str) and SESSION.fullmatch(session)
        return bool(known) and self._sessions.claim(session, person)

    async def _body(
        self, request: Request, asker: Asker, receive: Receive, person: str
    ) -> tuple[bytes, Response | None]:
        """A request's body, read here, and why it is refused, if it is."""
        most, body = MAX_BODY if asker.person.may_act else MAX_VISITORS_BODY, bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > most:
                        return b"", _refuse(413, f"The request has more than {most:,} bytes.")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            return b"", _refuse(408, f"The request took longer than {BODY_SECONDS} seconds to arrive.")
        if not _path(request).startswith(API) or not body:
            return bytes(body), None
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            return b"", _refuse(400, "The request is no JSON.")
        session = told.get("session_hash") if isinstance(told, dict) else None
        if session is not None and not self._owns_session(session, person):
            return b"", _refuse(403, NOT_YOURS)
        if any(not self._files.owns(path, person) for path in _paths(told)):
            return b"", _refuse(403, "That file is not yours.")
        return bytes(body), None

    # What goes back

    def _noting_files(self, send: Send, person: str, uploaded: bool) -> Send:
        """Remember whose the files are that an answer names: those of an upload, and those that are offered to save."""

        done = True

        async def noting(message: Message) -> None:
            nonlocal done
            if message["type"] == "http.response.start":
                done = message["status"] == 200
            body = message.get("body", b"") if message["type"] == "http.response.body" and done else b""
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


def _cut(receive: Receive, most: int) -> Receive:
    """What comes, until it is more than so many bytes: then it is as if the other side had gone."""
    got = 0

    async def cut() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        return message if got <= most else {"type": "http.disconnect"}

    return cut


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


def _path(request: Request) -> str:
    """The path by which Starlette finds a route; not the one in its URL, which is cleaned of what does not belong."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _netloc(address: str) -> str:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _address(request: Request, behind_proxy: bool) -> str:
    """Where a request of nobody known came from; in a Space as the last proxy says that is not of its own network.

    What stands before that in the header, anybody may have written. Of IPv6 a whole network counts as one.
    """
    client = request.client.host if request.client else ""
    hops = ",".join(request.headers.getlist("x-forwarded-for")).split(",") if behind_proxy else []
    for hop in reversed(hops):
        try:
            address = ipaddress.ip_address(hop.strip())
        except ValueError:
            continue
        if address.is_global:
            return str(address) if address.version == 4 else str(ipaddress.IPv6Network((int(address), 64), False))
    return client
