"""Starts a local Hub as a real process for a test, and tells it what the test wants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


class Hub:
    """A running Hub, as the test sees it: `url` for clients, methods for what clients must not do."""

    def __init__(self, url: str, key: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self._key = key
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def env(self, home: Path, token: str | None = None, *, xet: bool = True) -> dict[str, str]:
        """An environment for a client process that knows no other Hub; nothing is shared with the user's cache."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **({"HF_TOKEN": token} if token else {}),
        }

    def add_user(self, name: str, token: str, role: str = "write", orgs: list[str] | None = None) -> None:
        """Add a user, or one more token of a user; an organisation `name:read` is one without the right to write."""
        self._act("add-user", name=name, token=token, role=role, orgs=orgs)

    def revoke(self, token: str) -> None:
        """Make a token unknown, as an expired one is."""
        self._act("revoke", token=token)

    def inject(
        self,
        method: str = "*",
        path: str = "",
        *,
        times: int = 1,
        delay: float = 0.0,
        status: int | None = None,
        retry_after: int | None = None,
        code: str | None = None,
        message: str = "injected fault",
        headers: dict[str, str] | None = None,
        cut_request: int | None = None,
        cut_response: int | None = None,
    ) -> None:
        """Disturb the next requests that match; what each field does is told at `tests.hub.faults.Fault`."""
        fault = {"method": method, "path": path, "times": times, "delay": delay, "status": status}
        fault |= {"retry_after": retry_after, "code": code, "message": message, "headers": headers or {}}
        self._act("add-fault", **fault, cut_request=cut_request, cut_response=cut_response)

    def faults(self) -> list[dict[str, Any]]:
        """The faults that have not yet happened as often as they should."""
        return list(self._act("faults"))

    def clear_faults(self) -> None:
        """Drop all faults."""
        self._act("clear-faults")

    def watch(self, label: str, secret: str) -> None:
        """Look for one more secret in all requests; the users' tokens are always looked for."""
        self._act("watch", label=label, secret=secret)

    def requests(self, method: str = "", path: str = "") -> list[dict[str, Any]]:
        """The requests so far, optionally only those of a method whose path contains some text."""
        entries = list(self._act("requests"))
        return [entry for entry in entries if method in ("", entry["method"]) and path in entry["path"]]

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._act("clear-requests")

    def leaks(self) -> list[str]:
        """Every place outside the Authorization header where a secret was seen, with the request it came in."""
        return [f"{entry['method']} {entry['path']}: {leak}" for entry in self.requests() for leak in entry["leaks"]]

    def gate(self, repo: str, *, granted: list[str] | None = None, kind: str = "model") -> None:
        """Make a repository gated; only its owners and the granted users get its files."""
        self._act("gate", repo=repo, kind=kind, granted=granted or [])

    def set_downloads(self, repo: str, count: int) -> None:
        """How often a model was downloaded in the last thirty days."""
        self._act("downloads", repo=repo, count=count)

    def space(self, repo: str, **change: Any) -> dict[str, Any]:
        """What is known of a Space, after a change: `stages` that it comes to, `logs` of "build" and "run"."""
        return dict(self._act("space", repo=repo, change=change))

    def repos(self) -> list[dict[str, Any]]:
        """Every repository: kind, id and whether it is private."""
        return list(self._act("repos"))

    def repo_files(self, repo: str, revision: str = "main", kind: str = "model") -> dict[str, dict[str, Any]]:
        """The files of a revision: size, sha256, whether by LFS, and the xet hash."""
        return dict(self._act("files", repo=repo, revision=revision, kind=kind))

    def commits(self, repo: str, revision: str = "main", kind: str = "model") -> list[dict[str, Any]]:
        """The history of a revision, the latest commit first."""
        return list(self._act("commits", repo=repo, revision=revision, kind=kind))

    def read(self, repo: str, path: str, revision: str = "main", kind: str = "model") -> bytes:
        """The bytes of a file, past all access rights."""
        return self._post("read", {"repo": repo, "path": path, "revision": revision, "kind": kind})

    def ping(self) -> None:
        """Raise unless the server answers."""
        self._act("ping")

    def _act(self, action: str, **body: Any) -> Any:
        return json.loads(self._post(action, body))["result"]

    def _post(self, action: str, body: dict[str, Any]) -> bytes:
        headers = {"X-Control-Key": self._key, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/_control/{action}", json.dumps(body).encode(), headers)
        try:
            with self._open(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{action}: {error.code} {error.read().decode(errors='replace')}") from error


def _first_line(process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(START_SECONDS)
        raise RuntimeError(f"the hub did not start:\n{log.read_text(encoding='utf-8')}")
    return dict(json.loads(line))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def _start(directory: Path, part_size: int | None, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.hub", "--dir", str(directory), "--port", "0", "--end-with-stdin"]
    command += ["--part-size", str(part_size)] if part_size else []
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)


@contextmanager
def running_hub(directory: Path, *, part_size: int | None = None) -> Iterator[Hub]:
    """A Hub over a directory, up when the block starts and gone when it ends; the directory stays.

    Starting again over the same directory brings back its users, repositories and files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "server.log"
    with log.open("ab") as errors:
        process = _start(directory, part_size, errors)
        try:
            told = _first_line(process, log)
            hub = Hub(told["url"], told["key"], directory)
            _wait(hub, process, log)
            yield hub
        finally:
            _stop(process)


def _wait(hub: Hub, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            return hub.ping()
        except (OSError, RuntimeError):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the hub does not answer:\n{log.read_text(encoding='utf-8')}") from None
            time.sleep(0.05)
