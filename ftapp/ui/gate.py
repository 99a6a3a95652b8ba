"""What every request passes before Gradio sees it: who sent it, whether it may, and what the answer tells browsers."""

import asyncio
import base64
import binascii
import json
import re
import secrets
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftapp.people import LOCAL
from ftapp.settings import LOOPBACK, Settings
from ftapp.ui.ledgers import MOST_AT_ONCE, Owners, Rate, Waiting, clear_up
from ftapp.ui.requests import address_of, again_with, at_most, files_named, hostname, netloc, path_of, refuse
from ftapp.ui.sign_in import Asker, SignInDesk

ASKER = "ftapp.asker"
"""Where in a request's scope it stands who sent it."""
MAX_BODY, MAX_VISITORS_BODY = 8 * 2**20, 64 * 2**10
"""Bytes of a request that is no upload; and of one by somebody who may only look."""
BODY_SECONDS = 60
"""That such a request may take to arrive."""
PAGES = 120
"""That one person, or one address, may open in a minute, where requests have a limit: each takes memory."""
WRONG_PASSWORDS = 60
"""That one address may send in a minute; after that not even the right one is looked at."""
FORM_BYTES = 2**20
"""Of an upload, beside its files."""
MAX_HEADERS = 32 * 2**10
NOT_YOURS = "This page was opened by somebody else, or the sign-in it was opened with has ended. Reload it."
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
CLOSED = ("/monitoring", "/gradio_api")
"""Of Gradio's own, what this page has no use for."""


class Gate:
    """ASGI middleware around the whole page."""

    def __init__(self, app: ASGIApp, settings: Settings, desk: SignInDesk | None) -> None:
        self._app = app
        self._settings = settings
        self._desk = desk
        self._sessions, self._files = Owners(), Owners()
        self._waiting = Waiting(settings.max_disk_bytes) if settings.max_disk_bytes else None
        self._rate = Rate(settings.max_requests) if settings.max_requests else None
        self._opened = Rate(PAGES) if settings.max_requests else None
        self._wrong = Rate(WRONG_PASSWORDS)
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
            who = self._who(request)
            if self._rate is None:
                await self._answer(request, asker, receive, send)
                return
            if self._rate.begin(who):
                try:
                    await self._answer(request, asker, receive, send)
                finally:
                    self._rate.end(who)
                return
            refused = refuse(
                429,
                f"More than {self._settings.max_requests:,} requests in a minute, or {MOST_AT_ONCE} at once. "
                "Wait a little.",
            )
            refused.headers["Retry-After"] = "30"
        await refused(scope, receive, send)

    async def _answer(self, request: Request, asker: Asker, receive: Receive, send: Send) -> None:
        path, person = path_of(request), asker.person.name if self._desk else LOCAL.name
        refused = self._refusal_of(request, asker, person)
        if refused is None and (path in (UPLOAD, STREAM) or path.startswith(RUN)):
            send = self._noting_files(send, person, uploaded=path == UPLOAD)
        if refused is None and path == UPLOAD:
            await self._upload(request, person, receive, send)
            return
        if refused is None and request.method not in READING:
            body, refused = await self._body(request, asker, receive, person)
            receive = again_with(body, receive)
        await (refused or self._app)(request.scope, receive, send)

    async def _upload(self, request: Request, person: str, receive: Receive, send: Send) -> None:
        most = self._settings.max_upload_bytes + FORM_BYTES
        size, waiting = int(request.headers.get("content-length", most)), self._waiting
        if waiting and not waiting.begin(person, size):
            refused = refuse(413, "Your uploads that nothing was made of leave no room for another. Try tomorrow.")
            await refused(request.scope, receive, send)
            return
        try:
            clear_up(Path(get_upload_folder()))
            await self._app(request.scope, at_most(receive, most), send)
        finally:
            if waiting:
                waiting.end(person, size)

    # Before it is known who asks

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADERS:
            return refuse(431, f"The headers have more than {MAX_HEADERS:,} bytes.")
        path, settings = path_of(request), self._settings
        host = headers.get("host", "")
        if self._desk is None and settings.password is None and hostname(host) not in LOOPBACK:
            # or any page in the same browser could come here under a name of its own (DNS rebinding)
            return refuse(
                421,
                f"Open it as http://127.0.0.1:{settings.port}: {host[:100]!r} is not this machine's name. "
                "Where it has another, set FTAPP_PASSWORD.",
            )
        if request.method not in METHODS:
            return refuse(405, f"Nothing here is done by {request.method[:20]}.")
        if self._foreign(request):
            return refuse(403, f"Another site ({headers.get('origin', '')[:100]}) may not act here.")
        if settings.password and self._desk is None and path not in OPEN and (refused := self._stranger(request)):
            return refused
        if path.startswith(CLOSED) and path not in CALLS and not path.startswith((RUN, FILE, HEARTBEAT)):
            return refuse(404, "There is nothing here.")
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
        return origin is not None and netloc(origin) not in known

    def _stranger(self, request: Request) -> Response | None:
        """The refusal of who does not know the password; guesses are counted."""
        who, given = address_of(request, behind_proxy=False), request.headers.get("authorization")
        if self._wrong.spent(who):
            answer = refuse(429, f"{WRONG_PASSWORDS} wrong passwords in a minute. Wait a little.")
            answer.headers["Retry-After"] = "60"
            return answer
        if self._is_password(given or ""):
            return None
        if given is not None:
            self._wrong.allows(who)
        answer = refuse(401, "This needs a user and a password.")
        answer.headers["WWW-Authenticate"] = 'Basic realm="ftapp", charset="UTF-8"'
        return answer

    def _is_password(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
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
        path = path_of(request)
        if path == UPLOAD:
            if not asker.person.may_act:
                return refuse(403, "This is a demo to look at: nothing can be uploaded.")
            most, size = self._settings.max_upload_bytes, request.headers.get("content-length", "0")
            if not size.isdecimal() or int(size) > most + FORM_BYTES:
                return refuse(413, f"That is more than {most / 2**20:,.0f} MiB, the largest size of an upload.")
        if path.startswith(FILE) and not self._files.owns(path[len(FILE) :], person):
            return refuse(403, "That file is not yours.")
        session = path[len(HEARTBEAT) :] if path.startswith(HEARTBEAT) else request.query_params.get("session_hash")
        return None if session is None else self._refusal_in(request, session, person)

    def _who(self, request: Request) -> str:
        """Whose requests are counted together."""
        account: str = request.scope[ASKER].account
        return account or address_of(request, bool(self._settings.space_id))

    def _refusal_in(self, request: Request, session: Any, person: str) -> Response | None:
        if not (isinstance(session, str) and SESSION.fullmatch(session)):
            return refuse(403, NOT_YOURS)
        if self._opened and not self._sessions.knows(session) and not self._opened.allows(self._who(request)):
            return refuse(429, f"More than {PAGES:,} pages were opened in a minute. Wait a little.")
        return None if self._sessions.claim(session, person) else refuse(403, NOT_YOURS)

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
                        return b"", refuse(413, f"The request has more than {most:,} bytes.")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            return b"", refuse(408, f"The request took longer than {BODY_SECONDS} seconds to arrive.")
        if not path_of(request).startswith(API) or not body:
            return bytes(body), None
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            return b"", refuse(400, "The request is no JSON.")
        session = told.get("session_hash") if isinstance(told, dict) else None
        if session is not None and (refused := self._refusal_in(request, session, person)):
            return b"", refused
        if any(not self._files.owns(path, person) for path in files_named(told)):
            return b"", refuse(403, "That file is not yours.")
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
                    path = json.loads(found[1])
                    self._files.give(path, person)
                    if uploaded and self._waiting:
                        self._waiting.came(person, path)
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
