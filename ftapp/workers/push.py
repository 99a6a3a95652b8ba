"""Push an artifact: large files first, then one commit that ties all together, then what arrived is read back."""

import hashlib
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import CommitOperation, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from ftapp.contract.errors import FtappError, HubError
from ftapp.contract.publication import PublishConfig
from ftapp.hub_errors import status_of, told
from ftapp.workers.uploading import Upload, watched

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""What is being done, bytes done, bytes in all; raises to end the push."""

TRIES, FIRST_WAIT, LONGEST_WAIT = 5, 0.5, 60.0
OF_A_MODEL = re.compile(
    r"(base/.*|adapter_(model|config)\..*|(pytorch_)?model.*\.(safetensors|bin)|.*\.safetensors(\.index\.json)?"
    r"|loss\.png|chat_template\.(json|jinja)|(added|special)_tokens.*\.json|merges\.txt|vocab\.(json|txt))"
)
"""Files of an earlier model that would make one of two: a push takes those away that it does not replace."""


@dataclass(frozen=True)
class _Commit:
    oid: str
    url: str


class Push:
    """One push of the files of a folder; SHA-256 by path says what they must be."""

    def __init__(self, config: PublishConfig, token: str | None, folder: Path, hashes: dict[str, str]) -> None:
        assert config.destination
        self._config, self._folder, self._hashes = config, folder, hashes
        self._repo = config.destination
        self._api = HfApi(token=token or False)
        self._pull = config.mode == "pull_request"
        self._revision = config.branch or "main"
        self._message = f"Fine-tuned with ftapp ({config.artifact})"

    def run(self, progress: Progress) -> str:
        """Push, and compare what arrived; returns where it stands. Raises HubError."""
        sizes = {name: (self._folder / name).stat().st_size for name in self._hashes}
        total, done = sum(sizes.values()), 0
        progress("pushing", 0, total)
        with told(self._repo):
            address = self._prepare()
            head = self._head()
            operations: list[CommitOperationAdd] = []
            for name, sha256 in self._hashes.items():
                add = Upload(name, self._folder / name)
                self._send(add, lambda sent, done=done: progress("pushing", done + sent, total))  # type: ignore[misc]
                if add.upload_info.sha256.hex() != sha256:
                    raise HubError(f"{name} changed after it was checked.", "Publish again: it is made anew.")
                operations.append(add)
                done += sizes[name]
                progress("pushing", done, total)
            commit = self._commit(operations, head)
            progress("reading back", 0, total)
            self._read_back(commit.oid, sizes)
        return commit.url or (f"{address}/tree/{self._revision}" if self._config.branch else address)

    def _prepare(self) -> str:
        """The repository, and the branch, that the commit goes to."""
        if self._pull:
            return f"{self._api.endpoint}/{self._repo}"
        private = self._config.private
        address = self._patiently(lambda: self._api.create_repo(self._repo, private=private, exist_ok=True))
        if private and not self._api.model_info(self._repo).private:
            raise HubError(f"{self._repo} exists and is public.", "Choose another name, or allow a public destination.")
        if self._config.branch:
            self._patiently(lambda: self._api.create_branch(self._repo, branch=self._revision, exist_ok=True))
        return str(address)

    def _head(self) -> str:
        return str(self._patiently(lambda: self._api.model_info(self._repo, revision=self._revision).sha))

    def _send(self, add: Upload, tell: Callable[[int], None]) -> None:
        watched(lambda: self._patiently(lambda: self._upload(add)), add, tell)

    def _upload(self, add: Upload) -> None:
        revision, pull = self._revision, self._pull
        try:
            self._api.preupload_lfs_files(self._repo, [add], revision=revision, create_pr=pull, free_memory=False)
        except RuntimeError as error:  # the client puts it around what went wrong
            if isinstance(error.__cause__, (HfHubHTTPError, OSError, httpx2.TransportError)):
                raise error.__cause__ from None
            words = " ".join(str(error).split())[:200]
            raise HubError(f"{add.path_in_repo} could not be uploaded: {words}.", "Publish again.") from None

    def _commit(self, adds: list[CommitOperationAdd], head: str) -> _Commit:
        """The one commit; one that arrived though its answer was lost is not made twice."""
        there = self._tree(head)
        old = [name for name in there if name not in self._hashes and OF_A_MODEL.fullmatch(name)]
        operations: list[CommitOperation] = [*adds, *(CommitOperationDelete(name) for name in old)]

        def commit() -> _Commit:
            try:
                made = self._api.create_commit(
                    self._repo,
                    operations,
                    commit_message=self._message,
                    revision=self._revision,
                    create_pr=self._pull,
                    parent_commit=None if self._pull else head,
                )
                return _Commit(made.oid, made.pr_url or "")
            except (HfHubHTTPError, OSError, httpx2.TransportError) as error:
                status = status_of(error)
                if (status in (0, 409, 412) or status >= 500) and (landed := self._landed()):
                    return landed
                raise

        return self._patiently(commit)

    def _landed(self) -> _Commit | None:
        """The commit with our files, if it is there."""
        try:
            if not self._pull:
                sha = str(self._api.model_info(self._repo, revision=self._revision).sha)
                return _Commit(sha, "") if self._same(self._tree(sha)) else None
            for pull in self._api.get_repo_discussions(self._repo, discussion_type="pull_request"):
                reference = pull.git_reference or ""
                if (
                    pull.title == self._message
                    and pull.status in ("draft", "open")
                    and self._same(self._tree(reference))
                ):
                    sha = str(self._api.model_info(self._repo, revision=reference).sha)
                    return _Commit(sha, pull.url)
        except (HfHubHTTPError, OSError, httpx2.TransportError):
            pass
        return None

    def _same(self, there: dict[str, RepoFile]) -> bool:
        for name, sha256 in self._hashes.items():
            file, local = there.get(name), self._folder / name
            if file is None or file.size != local.stat().st_size:
                return False
            if (file.lfs.sha256 if file.lfs else file.blob_id) != (sha256 if file.lfs else _git_id(local)):
                return False
        return True

    def _tree(self, revision: str) -> dict[str, RepoFile]:
        listed = self._patiently(
            lambda: list(self._api.list_repo_tree(self._repo, recursive=True, revision=revision, expand=False))
        )
        return {item.path: item for item in listed if isinstance(item, RepoFile)}

    def _read_back(self, oid: str, sizes: dict[str, int]) -> None:
        """Names, sizes and SHA-256 at the commit, small files downloaded for it; raises HubError."""
        there = self._tree(oid)
        missing = [name for name in self._hashes if name not in there]
        strange = [name for name in there if name not in self._hashes and OF_A_MODEL.fullmatch(name)]
        if missing or strange:
            raise HubError(
                f"{(missing or strange)[0]} {'is missing' if missing else 'was left'} at {self._repo}.",
                "Publish again.",
            )
        for name, sha256 in self._hashes.items():
            lfs = there[name].lfs
            arrived = lfs.sha256 if lfs else self._download(name, oid)
            if there[name].size != sizes[name] or arrived != sha256:
                raise HubError(f"{name} did not arrive whole at {self._repo}.", "Publish again.")

    def _download(self, name: str, oid: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = self._patiently(lambda: self._api.hf_hub_download(self._repo, name, revision=oid, local_dir=folder))
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def _patiently(self, call: Callable[[], T]) -> T:
        """Again, after a while, when the Hub is unwell or the connection was lost."""
        for attempt in range(TRIES - 1):
            try:
                return call()
            except FtappError:
                raise
            except (HfHubHTTPError, httpx2.TransportError, ConnectionError, TimeoutError) as error:
                if not _passing(error):
                    raise
                time.sleep(_wait(error, attempt))
        return call()


def _passing(error: Exception) -> bool:
    return status_of(error) in (0, 408, 429) or status_of(error) >= 500


def _wait(error: Exception, attempt: int) -> float:
    asked = getattr(error, "response", None)
    named = str(asked.headers.get("Retry-After", "")) if asked is not None else ""
    return min(LONGEST_WAIT, float(named) if named.isdecimal() else FIRST_WAIT * 2**attempt)


def _git_id(path: Path) -> str:
    """As git names a file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
