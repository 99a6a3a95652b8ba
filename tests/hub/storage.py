"""Repositories on disk: blobs by SHA-256, one JSON file per commit and one per repository."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.hub.errors import HubError, revision_not_found
from tests.hub.model import KINDS, MAIN, Commit, FileEntry, Kind, Pull, Repo, git_oid, lfs_pointer, now

LARGE_NAMES = (
    "7z arrow avro bin bz2 ckpt ftz gguf gz h5 jpeg jpg joblib lz4 mds mlmodel model mp3 mp4 msgpack npy npz onnx ot"
    " parquet pb pdf pickle pkl png pt pth rar safetensors tar tflite tgz wasm wav webp xz zip zst"
)
LARGE_SUFFIXES = tuple(f".{name}" for name in LARGE_NAMES.split())
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE_SUFFIXES).encode()
NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,94}[A-Za-z0-9_]|[A-Za-z0-9_]")


class Store:
    """All that the Hub holds under one directory; every change is saved before it returns."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        for folder in ("blobs", "repos", "uploads"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._repos: dict[tuple[Kind, str], Repo] = {}
        for saved in root.glob("repos/*/*/*/repo.json"):
            repo = Repo.from_json(json.loads(saved.read_text(encoding="utf-8")))
            self._repos[repo.kind, repo.id] = repo

    # Blobs

    def blob(self, sha256: str) -> Path:
        """Where the bytes with this digest are, or would be."""
        return self.root / "blobs" / sha256[:2] / sha256

    def upload_path(self) -> Path:
        """A new place for bytes that are still arriving."""
        return self.root / "uploads" / secrets.token_hex(16)

    def put(self, data: bytes) -> str:
        """Keep these bytes; their digest."""
        path = self.upload_path()
        path.write_bytes(data)
        return self.adopt(path, hashlib.sha256(data).hexdigest())

    def adopt(self, path: Path, sha256: str) -> str:
        """Keep a complete file whose digest is known, moving it into place in one step."""
        target = self.blob(sha256)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        return sha256

    def regular(self, data: bytes) -> FileEntry:
        """The entry of a file that travels inside a commit."""
        return FileEntry(self.put(data), len(data), git_oid(data))

    def large(self, sha256: str, xet: str | None) -> FileEntry:
        """The entry of a file whose bytes were uploaded before the commit."""
        size = self.blob(sha256).stat().st_size
        return FileEntry(sha256, size, git_oid(lfs_pointer(sha256, size)), lfs=True, xet=xet)

    # Repositories

    def repos(self) -> Iterator[Repo]:
        """Every repository, the last created first."""
        with self.lock:
            return iter(sorted(self._repos.values(), key=lambda repo: repo.created, reverse=True))

    def find(self, kind: Kind, repo_id: str) -> Repo | None:
        """The repository with this name."""
        return self._repos.get((kind, repo_id))

    def create(self, repo: Repo, author: str) -> Repo:
        """Keep a new repository with the first commit that the Hub itself makes."""
        if repo.kind not in KINDS or not NAME.fullmatch(repo.name) or not NAME.fullmatch(repo.namespace):
            raise HubError(400, f"Invalid repository name: {repo.id}")
        with self.lock:
            self._repos[repo.kind, repo.id] = repo
            self._folder(repo).mkdir(parents=True)
            files = {".gitattributes": self.regular(GITATTRIBUTES)}
            self.add_commit(repo, MAIN, Commit.make(None, "initial commit", "", author, files))
        return repo

    def delete(self, repo: Repo) -> None:
        """Forget a repository; blobs stay, as others may hold the same bytes."""
        with self.lock:
            self._repos.pop((repo.kind, repo.id), None)
            shutil.rmtree(self._folder(repo))

    def save(self, repo: Repo) -> None:
        """Write the repository's settings and references."""
        self._write(self._folder(repo) / "repo.json", repo.to_json())

    def add_commit(self, repo: Repo, ref: str, commit: Commit) -> None:
        """Keep a commit and move a reference to it."""
        with self.lock:
            self._write(self._folder(repo) / "commits" / f"{commit.oid}.json", commit.to_json())
            repo.refs[ref] = commit.oid
            self.save(repo)

    def open_pull(self, repo: Repo, title: str, description: str, author: str) -> Pull:
        """Open a pull request that starts where main is."""
        with self.lock:
            pull = Pull(len(repo.pulls) + 1, title, description, author, now())
            repo.pulls.append(pull)
            repo.refs[f"refs/pr/{pull.num}"] = repo.refs[MAIN]
            self.save(repo)
            return pull

    # Commits

    def ref_of(self, repo: Repo, revision: str) -> str | None:
        """The full name of a branch, tag or pull request, None for anything else."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in names if name in repo.refs), None)

    def commit_at(self, repo: Repo, revision: str) -> Commit:
        """The commit that a revision stands for: a reference, or a commit's name or at least its first 7 digits."""
        ref = self.ref_of(repo, revision)
        if ref:
            return self.commit(repo, repo.refs[ref])
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = sorted((self._folder(repo) / "commits").glob(f"{revision}*.json"))
            if len(found) == 1:
                return self.commit(repo, found[0].stem)
        raise revision_not_found(revision)

    def commit(self, repo: Repo, oid: str) -> Commit:
        """The commit with exactly this name."""
        path = self._folder(repo) / "commits" / f"{oid}.json"
        return Commit.from_json(json.loads(path.read_text(encoding="utf-8")))

    def history(self, repo: Repo, commit: Commit) -> Iterator[Commit]:
        """This commit and those before it, the latest first."""
        current: Commit | None = commit
        while current:
            yield current
            current = self.commit(repo, current.parent) if current.parent else None

    def _folder(self, repo: Repo) -> Path:
        return self.root / "repos" / f"{repo.kind}s" / repo.namespace / repo.name

    @staticmethod
    def _write(path: Path, content: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
