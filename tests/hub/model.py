"""The shapes of what the Hub holds: repositories, commits, files and pull requests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Kind = Literal["model", "dataset", "space"]
KINDS: tuple[Kind, ...] = ("model", "dataset", "space")
MAIN = "refs/heads/main"


def now() -> str:
    """The time in the Hub's notation."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def git_oid(data: bytes) -> str:
    """The name that git gives to these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git holds in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class FileEntry:
    """A file of a commit: where its bytes are, and the names under which clients ask for them."""

    sha256: str
    size: int
    oid: str
    lfs: bool = False
    xet: str | None = None

    @property
    def etag(self) -> str:
        """What the client compares against its cache."""
        return self.sha256 if self.lfs else self.oid

    def lfs_info(self) -> dict[str, Any]:
        """The `lfs` object of a tree listing."""
        return {"oid": self.sha256, "size": self.size, "pointerSize": len(lfs_pointer(self.sha256, self.size))}


@dataclass(frozen=True)
class Commit:
    """An immutable snapshot: every path and the file behind it."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, FileEntry]

    @classmethod
    def make(cls, parent: str | None, title: str, message: str, author: str, files: dict[str, FileEntry]) -> Commit:
        """A commit whose name follows from all that it holds."""
        date = now()
        content = [parent, title, message, author, date, {path: entry.oid for path, entry in sorted(files.items())}]
        oid = hashlib.sha1(json.dumps(content).encode(), usedforsecurity=False).hexdigest()
        return cls(oid, parent, title, message, author, date, dict(sorted(files.items())))

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Commit:
        """The commit as it was saved."""
        return cls(**{**saved, "files": {path: FileEntry(**entry) for path, entry in saved["files"].items()}})

    def to_json(self) -> dict[str, Any]:
        """The commit as it is saved."""
        return asdict(self)


@dataclass
class Pull:
    """A pull request; its commits are under refs/pr/N."""

    num: int
    title: str
    description: str
    author: str
    created: str
    status: str = "draft"


@dataclass
class Repo:
    """A repository; `refs` maps full reference names to commits."""

    kind: Kind
    namespace: str
    name: str
    private: bool = False
    gated: str | bool = False
    created: str = field(default_factory=now)
    granted: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[Pull] = field(default_factory=list)
    space: dict[str, Any] = field(default_factory=dict)
    downloads: int = 0

    @property
    def id(self) -> str:
        """Owner and name, as clients write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def page(self) -> str:
        """The path of the repository's page; a model's has no prefix."""
        return f"/{self.id}" if self.kind == "model" else f"/{self.kind}s/{self.id}"

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Repo:
        """The repository as it was saved."""
        return cls(**{**saved, "pulls": [Pull(**pull) for pull in saved["pulls"]]})

    def to_json(self) -> dict[str, Any]:
        """The repository as it is saved."""
        return asdict(self)
