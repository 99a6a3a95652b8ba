"""What every handler needs: the Hub's state, and the repository and user that a request names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from tests.hub.accounts import Accounts, Identity, require_visible
from tests.hub.errors import HubError
from tests.hub.faults import Faults
from tests.hub.model import Kind, Repo
from tests.hub.requestlog import RequestLog
from tests.hub.storage import Store
from tests.hub.xet import XetStore

if TYPE_CHECKING:
    from tests.hub.xet_routes import XetTokens


class _Choice(Convertor[str]):
    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Kind(_Choice):
    regex = "models|datasets|spaces"


class _Prefix(_Choice):
    regex = "|datasets/|spaces/"


class _Scope(_Choice):
    regex = "read|write"


register_url_convertor("kind", _Kind())
register_url_convertor("prefix", _Prefix())
register_url_convertor("scope", _Scope())


class Hub:
    """The state of a running Hub."""

    def __init__(self, root: Path, tokens: Callable[[], XetTokens], *, part_size: int) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.accounts = Accounts(root / "accounts.json")
        self.store = Store(root)
        self.xet = XetStore(root / "xet")
        self.xet_tokens = tokens()
        self.faults = Faults()
        self.log = RequestLog(self.accounts)
        self.part_size = part_size
        self.uploads: dict[str, str] = {}
        self.buckets: dict[str, dict[str, Any]] = {}

    @staticmethod
    def url(request: Request, path: str = "") -> str:
        """An address on this server as the client reaches it."""
        return f"http://{request.headers['host']}{path}"

    async def receive_file(self, request: Request) -> tuple[Path, str]:
        """Write the request's body to a new file; its place and its SHA-256."""
        path, digest = self.store.upload_path(), hashlib.sha256()
        try:
            with path.open("wb") as out:
                async for piece in request.stream():
                    digest.update(piece)
                    out.write(piece)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path, digest.hexdigest()


def hub_of(request: Request) -> Hub:
    """The Hub that got this request."""
    return cast(Hub, request.app.state.hub)


def segment(request: Request, name: str) -> str:
    """A part of the path, decoded; paths are matched before decoding, as revisions may contain slashes."""
    return unquote(str(request.path_params[name]))


def kind_of(request: Request) -> Kind:
    """The kind of repository that the path names."""
    plural = request.path_params.get("kind") or request.path_params.get("prefix", "")
    return cast(Kind, (plural or "models").rstrip("/").removesuffix("s"))


def repo_of(request: Request) -> tuple[Repo, Identity | None]:
    """The repository that the path names, which must be visible to the user, and the user."""
    hub = hub_of(request)
    who = hub.accounts.identify(request)
    repo_id = f"{segment(request, 'namespace')}/{segment(request, 'name')}"
    return require_visible(hub.store.find(kind_of(request), repo_id), who), who


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise HubError(400, "The body is not JSON") from error
    if not isinstance(body, dict):
        raise HubError(400, "The body is not an object")
    return body
