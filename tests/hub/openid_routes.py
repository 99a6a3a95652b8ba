"""The Hub as an OpenID provider: a person agrees on a page, the client trades the code for a token, asks who it was."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import html
import secrets
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.accounts import require_user
from tests.hub.context import hub_of
from tests.hub.errors import HubError

CLIENT_ID, CLIENT_SECRET = "11111111-test-client", "secret-of-the-test-client"
LIFETIME = 28_800
_codes: dict[str, dict[str, str]] = {}
"""A code that was given out → what was asked for, and for whom; each is good once."""


async def configuration(request: Request) -> Response:
    """Where everything is."""
    base = str(request.base_url).rstrip("/")
    names = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
    return JSONResponse({"issuer": base} | {f"{name}_endpoint": f"{base}/oauth/{path}" for name, path in names.items()})


async def authorize(request: Request) -> Response:
    """The page on which a person agrees; here everybody may choose who they are."""
    asked = dict(request.query_params)
    if asked.get("client_id") != CLIENT_ID or asked.get("response_type") != "code":
        raise HubError(400, "Unknown client")
    if asked.get("code_challenge_method") != "S256" or not asked.get("redirect_uri"):
        raise HubError(400, "A code challenge and a redirect are needed")
    users = sorted(set(hub_of(request).accounts.tokens().values()))
    fields = "".join(f"<input type=hidden name='{name}' value='{html.escape(asked[name])}'>" for name in asked)
    buttons = "".join(f"<button name=user value='{name}'>Authorize as {name}</button>" for name in users)
    return HTMLResponse(f"<h1>{html.escape(asked.get('scope', ''))}</h1><form method=post>{fields}{buttons}"
                        "<button name=user value=''>Deny</button></form>")  # fmt: skip


async def agree(request: Request) -> Response:
    """They did, or did not: back to the client."""
    asked = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
    answer = {"state": asked["state"]}
    if asked.get("user"):
        code = secrets.token_urlsafe(16)
        _codes[code] = asked
        answer["code"] = code
    else:
        answer["error"] = "access_denied"
    return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)


async def token(request: Request) -> Response:
    """A token for a code, for the client that began, once."""
    given: dict[str, Any] = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
    asked = _codes.pop(given.get("code", ""), None)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(given.get("code_verifier", "").encode()).digest())
    if not _is_client(request):
        return JSONResponse({"error": "invalid_client"}, 401)
    if (
        asked is None
        or given.get("grant_type") != "authorization_code"
        or given.get("redirect_uri") != asked["redirect_uri"]
        or challenge.rstrip(b"=").decode() != asked["code_challenge"]
    ):
        return JSONResponse({"error": "invalid_grant"}, 400)
    made = f"hf_oauth_{secrets.token_hex(12)}"
    hub_of(request).accounts.add(asked["user"], made)
    return JSONResponse(
        {"access_token": made, "token_type": "bearer", "expires_in": LIFETIME, "scope": asked.get("scope")}
    )


def _is_client(request: Request) -> bool:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, secret = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, ValueError):
        return False
    same = hmac.compare_digest(unquote(secret), CLIENT_SECRET)
    return scheme.lower() == "basic" and unquote(name) == CLIENT_ID and same


async def userinfo(request: Request) -> Response:
    """Whose token it is."""
    who = require_user(hub_of(request).accounts.identify(request))
    orgs = [{"sub": f"org-{org}", "name": org, "preferred_username": org} for org in who.account.org_roles]
    return JSONResponse({"sub": f"user-{who.name}", "name": who.name, "preferred_username": who.name, "orgs": orgs})


def openid_routes() -> list[BaseRoute]:
    """The routes of the provider."""
    return [
        Route("/.well-known/openid-configuration", configuration),
        Route("/oauth/authorize", authorize, methods=["GET"]),
        Route("/oauth/authorize", agree, methods=["POST"]),
        Route("/oauth/token", token, methods=["POST"]),
        Route("/oauth/userinfo", userinfo),
    ]
