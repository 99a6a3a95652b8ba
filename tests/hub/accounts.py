"""Who is asking: users, organisations, access tokens and what each may read and write."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from tests.hub.errors import HubError, repo_not_found
from tests.hub.model import Repo


@dataclass(frozen=True)
class Account:
    """A user; each organisation is `name`, or `name:read` for a member who may not write."""

    name: str
    orgs: list[str] = field(default_factory=list)
    fullname: str = ""
    email: str = ""

    @property
    def org_roles(self) -> dict[str, str]:
        """The organisations and this user's role in each."""
        pairs = (org.partition(":") for org in self.orgs)
        return {name: role or "write" for name, _, role in pairs}


@dataclass(frozen=True)
class Identity:
    """A user as seen through one token."""

    account: Account
    role: str
    """`read`, `write`, or `fine:` and the only namespace that may be written."""

    @property
    def name(self) -> str:
        """The user's name."""
        return self.account.name

    @property
    def scope(self) -> str:
        """The namespace that a fine-grained token may write."""
        return self.role.removeprefix("fine:")

    def belongs_to(self, namespace: str) -> bool:
        """Whether private repositories of this namespace are visible."""
        return namespace == self.name or namespace in self.account.org_roles

    def writes_to(self, namespace: str) -> bool:
        """Whether the user, by any token, may write in this namespace."""
        if self.role.startswith("fine:") and namespace != self.scope:
            return False
        return namespace == self.name or self.account.org_roles.get(namespace) in ("write", "admin", "contributor")

    def whoami(self) -> dict[str, Any]:
        """The answer of /api/whoami-v2."""
        account, fine = self.account, self.role.startswith("fine:")
        scope = {"entity": {"type": "user", "name": self.scope}, "permissions": ["repo.content.read", "repo.write"]}
        return {
            "type": "user",
            "id": f"user-{account.name}",
            "name": account.name,
            "fullname": account.fullname or account.name,
            "email": account.email or f"{account.name}@example.com",
            "emailVerified": True,
            "canPay": False,
            "isPro": False,
            "periodEnd": None,
            "avatarUrl": "",
            "orgs": [
                {"type": "org", "id": f"org-{org}", "name": org, "fullname": org, "avatarUrl": "", "roleInOrg": role}
                for org, role in account.org_roles.items()
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {
                    "displayName": "local",
                    "role": "fineGrained" if fine else self.role,
                    **({"fineGrained": {"global": [], "scoped": [scope]}} if fine else {}),
                    "createdAt": "2026-01-01T00:00:00.000Z",
                },
            },
        }


class Accounts:
    """The users and tokens, kept in `accounts.json` so that a test may also write the file beforehand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._tokens: dict[str, tuple[str, str]] = {}
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            self._accounts = {name: Account(**fields) for name, fields in saved["accounts"].items()}
            self._tokens = {token: (user, role) for token, (user, role) in saved["tokens"].items()}

    def add(self, name: str, token: str, role: str = "write", orgs: list[str] | None = None) -> None:
        """Add a user with a token, or a further token to a user who is there."""
        if role not in ("read", "write") and not role.startswith("fine:"):
            raise HubError(400, f"Unknown role: {role}")
        with self._lock:
            known = self._accounts.get(name)
            wanted = orgs if orgs is not None else (known.orgs if known else [])
            self._accounts[name] = Account(name, list(wanted))
            self._tokens[token] = (name, role)
            self._save()

    def revoke(self, token: str) -> None:
        """Make a token unknown, as an expired one is."""
        with self._lock:
            self._tokens.pop(token, None)
            self._save()

    def tokens(self) -> dict[str, str]:
        """Every token and the user it belongs to."""
        with self._lock:
            return {token: user for token, (user, _) in self._tokens.items()}

    def identify(self, request: Request) -> Identity | None:
        """The user of the request's bearer token, None without one; an unknown token is refused."""
        header = request.headers.get("authorization")
        if not header:
            return None
        scheme, _, token = header.partition(" ")
        with self._lock:
            found = self._tokens.get(token.strip())
            if scheme.lower() != "bearer" or found is None:
                raise HubError(401, "Invalid credentials in Authorization header")
            return Identity(self._accounts[found[0]], found[1])

    def _save(self) -> None:
        saved = {
            "accounts": {name: asdict(account) for name, account in self._accounts.items()},
            "tokens": {token: list(pair) for token, pair in self._tokens.items()},
        }
        self._path.write_text(json.dumps(saved, indent=1), encoding="utf-8")


def require_user(who: Identity | None) -> Identity:
    """The user, who must have sent a token."""
    if who is None:
        raise HubError(401, "Invalid username or password.")
    return who


def may_see(repo: Repo, who: Identity | None) -> bool:
    """Whether the repository exists as far as this user can tell."""
    return not repo.private or (who is not None and who.belongs_to(repo.namespace))


def require_visible(repo: Repo | None, who: Identity | None) -> Repo:
    """The repository, which must be there and visible to this user."""
    if repo is None or not may_see(repo, who):
        raise repo_not_found(who is None)
    return repo


def require_content(repo: Repo, who: Identity | None) -> None:
    """Refuse the files of a gated repository to whoever was not let in."""
    if not repo.gated or (who is not None and (who.belongs_to(repo.namespace) or who.name in repo.granted)):
        return
    if who is None:
        message = f"Access to model {repo.id} is restricted. You must have access to it and be authenticated."
        raise HubError(401, message, "GatedRepo")
    message = f"Access to model {repo.id} is restricted and you are not in the authorized list."
    raise HubError(403, message, "GatedRepo")


def require_write_token(who: Identity | None) -> Identity:
    """The user, whose token must not be a read-only one."""
    user = require_user(who)
    if user.role == "read":
        raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
    return user


def require_write(
    repo: Repo, who: Identity | None, *, pull_request: bool = False, revision: str | None = None
) -> Identity:
    """The user, who must be allowed to write here.

    Anyone with a write token may open a pull request, and push to the revision of one that they opened.
    """
    user = require_write_token(who)
    own = any(revision == f"refs/pr/{pull.num}" and pull.author == user.name for pull in repo.pulls)
    if not (pull_request or own or user.writes_to(repo.namespace)):
        raise HubError(403, f"Forbidden: you don't have the rights to write to {repo.id}.")
    return user
