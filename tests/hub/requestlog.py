"""The log of requests, which also tells where a secret was seen that belongs in the Authorization header only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.hub.accounts import Accounts


@dataclass
class LogEntry:
    """A request without its secrets: `leaks` names the secret and the place, never the secret itself."""

    number: int
    method: str
    path: str
    query: str
    headers: list[str]
    status: int | None = None
    received: int = 0
    fault: str | None = None
    leaks: list[str] = field(default_factory=list)


class BodyScan:
    """Looks for secrets in a body that arrives in pieces."""

    def __init__(self, secrets: dict[str, bytes]) -> None:
        self._secrets = secrets
        self._keep = max((len(secret) for secret in secrets.values()), default=1) - 1
        self._tail = b""
        self.found: set[str] = set()

    def feed(self, piece: bytes) -> None:
        """Look at the next piece together with the end of the one before."""
        text = self._tail + piece
        self.found.update(label for label, secret in self._secrets.items() if secret in text)
        self._tail = text[-self._keep :] if self._keep else b""


class RequestLog:
    """Every request in the order of arrival."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._watched: dict[str, str] = {}
        self._entries: list[LogEntry] = []

    def watch(self, label: str, secret: str) -> None:
        """Look for one more secret; the users' tokens are always looked for."""
        self._watched[label] = secret

    def secrets(self) -> dict[str, bytes]:
        """What is looked for, by the label under which it is reported."""
        tokens = self._accounts.tokens()
        named = {f"token {number} of {user}": token for number, (token, user) in enumerate(tokens.items(), 1)}
        return {label: secret.encode() for label, secret in {**named, **self._watched}.items()}

    def open(self, method: str, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> LogEntry:
        """Start the entry of a request, from its head."""
        secrets = self.secrets()
        pairs = [(name.decode("latin-1").lower(), value) for name, value in headers]
        entry = LogEntry(
            len(self._entries) + 1,
            method,
            self._hide(unquote_to_bytes(path), secrets),
            self._hide(unquote_to_bytes(query), secrets),
            sorted(name for name, _ in pairs),
        )
        target = unquote_to_bytes(path) + b"?" + unquote_to_bytes(query)
        places = [("url", target), *((f"header {name}", value) for name, value in pairs if name != "authorization")]
        for label, secret in secrets.items():
            entry.leaks += [f"{label} in {place}" for place, text in places if secret in text]
        self._entries.append(entry)
        return entry

    def scan(self, entry: LogEntry, place: str, data: bytes) -> None:
        """Look for secrets in something that the request carried in another form, such as a committed file."""
        entry.leaks += [f"{label} in {place}" for label, secret in self.secrets().items() if secret in data]

    def entries(self) -> list[dict[str, Any]]:
        """The log as plain data."""
        return [asdict(entry) for entry in self._entries]

    def clear(self) -> None:
        """Forget the requests so far."""
        self._entries.clear()

    @staticmethod
    def _hide(text: bytes, secrets: dict[str, bytes]) -> str:
        for secret in secrets.values():
            text = text.replace(secret, b"***")
        return text.decode("utf-8", "replace")
