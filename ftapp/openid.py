"""Sign-in with Hugging Face, or another OpenID provider: where to send a person, and who it was that came back."""

import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

from ftapp.contract.errors import HubError
from ftapp.people import NAME
from ftapp.settings import SignIn

TIMEOUT = 15.0
"""Seconds for one request to the provider."""
LIFETIME = 8 * 3600.0
"""Seconds that a sign-in lasts if the provider does not say."""


@dataclass(frozen=True)
class Begun:
    """A sign-in that somebody was sent away for."""

    url: str
    """Where to send them."""
    redirect: str
    """Where they come back."""
    state: str
    """What they must bring along."""
    verifier: str = field(repr=False)
    """Proves to the provider that it is us who began."""


@dataclass(frozen=True)
class Account:
    """Who signed in."""

    name: str
    id: str
    """Stays the same when the name changes."""
    organisations: list[str]
    token: str = field(repr=False)
    expires: float
    """Seconds since the epoch."""


class OpenId:
    """One provider, asked with our client's id and secret: the code flow with PKCE (RFC 6749, RFC 7636)."""

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in
        self._known: dict[str, Any] | None = None

    def begin(self, redirect: str) -> Begun:
        """Where to send somebody who wants to sign in; raises HubError if the provider does not answer."""
        verifier, known = generate_token(64), self._endpoints()
        with self._client(redirect) as client:
            url, state = client.create_authorization_url(known["authorization_endpoint"], code_verifier=verifier)
        return Begun(url, redirect, state, verifier)

    def finish(self, begun: Begun, code: str) -> Account:
        """Who it was that came back with this code; raises HubError."""
        known = self._endpoints()
        try:
            with self._client(begun.redirect) as client:
                token = client.fetch_token(known["token_endpoint"], code=code, code_verifier=begun.verifier)
                answer = client.get(known["userinfo_endpoint"])
                answer.raise_for_status()
                told = answer.json()
        except (OAuthError, httpx2.HTTPError, ValueError) as error:
            # the error's own text may hold the code
            raise HubError(
                f"{self._sign_in.provider} did not confirm the sign-in ({type(error).__name__}).", "Sign in again."
            ) from None
        name = str(told.get("preferred_username", ""))
        if not NAME.fullmatch(name) or not told.get("sub"):
            raise HubError(f"{self._sign_in.provider} gave no usable account name.", "Sign in with another account.")
        expires = time.time() + float(token.get("expires_in") or LIFETIME)
        return Account(name, str(told["sub"]), organisations_in(told), str(token["access_token"]), expires)

    def _client(self, redirect: str) -> Any:
        asked = self._sign_in
        return OAuth2Client(
            asked.client_id,
            asked.client_secret,
            scope=asked.scopes,
            redirect_uri=redirect,
            code_challenge_method="S256",
            timeout=TIMEOUT,
        )

    def _endpoints(self) -> dict[str, Any]:
        if self._known is None:
            provider = self._sign_in.provider
            try:
                answer = httpx2.get(f"{provider}/.well-known/openid-configuration", timeout=TIMEOUT)
                answer.raise_for_status()
                self._known = dict(answer.json())
            except (httpx2.HTTPError, ValueError) as error:
                raise HubError(
                    f"{provider} does not answer ({type(error).__name__}).", "Try again in a moment."
                ) from None
        return self._known


def organisations_in(told: dict[str, Any]) -> list[str]:
    """A person's organisations by the names in their addresses; what else one is called, anybody may choose."""
    return [str(one["preferred_username"]) for one in told.get("orgs") or [] if one.get("preferred_username")]
