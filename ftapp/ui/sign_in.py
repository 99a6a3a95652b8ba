"""Signing in and out: the routes, and who has; what is known of a person stays here, their browser holds a number."""

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from ftapp.contract.errors import FtappError
from ftapp.openid import Account, Begun, OpenId
from ftapp.people import LOCAL, VISITOR, Access, Person
from ftapp.settings import SignIn
from ftapp.studios import Studios
from ftapp.ui import markup

SESSION, BEGUN = "ftapp_session", "ftapp_sign_in"
"""Cookies: of somebody who has signed in, of somebody who is about to."""
PATIENCE = 600
"""Seconds that a sign-in may take."""
MOST = 10_000
"""Sign-ins that are remembered; beyond that the oldest is forgotten."""
MOST_OF_ONE = 20
"""Browsers in which one account may be signed in; beyond that it is signed out where it signed in first."""


@dataclass(frozen=True)
class Asker:
    """Whoever sent a request."""

    person: Person
    account: str = ""
    """The name that they signed in with; empty if they have not, or need not."""


class SignInDesk:
    """Who has signed in. It lives in this process alone: after a restart people sign in again, their runs go on."""

    def __init__(self, sign_in: SignIn, studios: Studios) -> None:
        self._sign_in = sign_in
        self._studios = studios
        self._provider = OpenId(sign_in)
        self._access = Access.of(*sign_in.allowed)
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._begun: OrderedDict[str, tuple[float, Begun]] = OrderedDict()
        self._lock = threading.Lock()
        # by its name no other host below the same domain, and no page without https, can have set such a cookie
        self._before = "__Host-" if sign_in.address else ""

    def routes(self) -> list[Route]:
        """Where people sign in and out."""
        return [
            Route("/login", self._login, methods=["GET"]),
            Route("/login/callback", self._callback, methods=["GET"]),
            Route("/logout", self._logout, methods=["POST"]),
        ]

    def asker(self, request: Request) -> Asker:
        """Who sent a request: a visitor, unless their cookie is one that was given out here."""
        account = self._accounts.get(self._given(request, SESSION))
        if account is None or account.expires < time.time():
            return Asker(VISITOR)
        return Asker(self._person(account), account.name)

    def _person(self, account: Account) -> Person:
        # an account may be called as whoever sat here before people signed in; what they left is not that account's
        allowed = account.name != LOCAL.name and self._access.lets_in(account.name, account.organisations)
        return Person(account.name, shared=True) if allowed else VISITOR

    async def _login(self, request: Request) -> Response:
        address = f"https://{self._sign_in.address}" if self._sign_in.address else str(request.base_url).rstrip("/")
        try:
            begun = await run_in_threadpool(self._provider.begin, f"{address}/login/callback")
        except FtappError as error:
            return _told(error, 502)
        number = self._remember(self._begun, (time.time(), begun))
        answer = RedirectResponse(begun.url, 303)
        self._give(answer, BEGUN, number, PATIENCE)
        return answer

    async def _callback(self, request: Request) -> Response:
        with self._lock:
            started, begun = self._begun.pop(self._given(request, BEGUN), (0.0, None))
        asked = request.query_params
        same = begun is not None and secrets.compare_digest(begun.state.encode(), asked.get("state", "").encode())
        if begun is None or not same or time.time() - started > PATIENCE:
            return _told(
                FtappError("That sign-in was not begun in this browser, or too long ago.", "Begin again."), 400
            )
        if "code" not in asked:
            return _told(FtappError("The sign-in was refused or called off.", "Begin again if you want to."), 403)
        try:
            account = await run_in_threadpool(self._provider.finish, begun, asked["code"])
            await run_in_threadpool(self._studios.signed_in, self._person(account), account.id, account.token)
        except FtappError as error:
            return _told(error, 403)
        self._forget(request, account)
        number = self._remember(self._accounts, account)
        answer = RedirectResponse("/", 303)
        self._give(answer, BEGUN, "", 0)
        self._give(answer, SESSION, number, int(account.expires - time.time()))
        return answer

    async def _logout(self, request: Request) -> Response:
        self._forget(request)
        answer = RedirectResponse("/", 303)
        self._give(answer, SESSION, "", 0)
        return answer

    def _forget(self, request: Request, account: Account | None = None) -> None:
        """End the sign-in of this browser, those whose time is over, and the first ones of an account with too many."""
        with self._lock:
            self._accounts.pop(self._given(request, SESSION), None)
            now, same = time.time(), []
            for number, known in list(self._accounts.items()):
                if known.expires < now:
                    del self._accounts[number]
                elif account and known.id == account.id:
                    same.append(number)
            for number in same[: max(0, len(same) + 1 - MOST_OF_ONE)]:
                del self._accounts[number]

    def _given(self, request: Request, name: str) -> str:
        return request.cookies.get(self._before + name, "")

    def _remember(self, kept: "OrderedDict[str, Any]", value: Any) -> str:
        number = secrets.token_urlsafe(32)
        with self._lock:
            kept[number] = value
            while len(kept) > MOST:
                kept.popitem(last=False)
        return number

    def _give(self, answer: Response, name: str, number: str, seconds: int) -> None:
        secure = self._sign_in.address is not None
        answer.set_cookie(
            self._before + name, number, max_age=seconds, httponly=True, samesite="lax", secure=secure, path="/"
        )


def _told(error: FtappError, status: int) -> Response:
    """An error as a small page, where there is no other to show it on."""
    words = f"<p>{markup.text(error.message)}</p><p>{markup.text(error.hint)}</p><p><a href='/'>Back</a></p>"
    style = "<style>body{font:16px system-ui;margin:15vh auto;max-width:32em;padding:0 1em}</style>"
    return HTMLResponse(f"<!doctype html><meta charset='utf-8'><title>ftapp</title>{style}{words}", status)
