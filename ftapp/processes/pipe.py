"""The web's end of a pipe to a worker that stays: JSON lines both ways, one request at a time."""

import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from ftapp.contract.base import Contract
from ftapp.contract.chat import Error, Loading, Ready
from ftapp.contract.errors import ModelError
from ftapp.processes.child import identify, lacked_memory, stop_tree
from ftapp.processes.launch import Verb, worker_argv, worker_env
from ftapp.store.eventlog import tail_text

Reply = TypeVar("Reply")


class Pipe(Generic[Reply]):
    """A worker that loads something once and then answers; it ends with its parent."""

    def __init__(
        self, verb: Verb, arguments: list[str], log: Path, token: str | None, replies: "TypeAdapter[Reply]"
    ) -> None:
        self.last_used = time.monotonic()
        self._name = verb
        self._log = log
        self._adapter = replies
        self._replies: queue.Queue[Reply | None] = queue.Queue()
        self._turn = threading.Lock()
        self._ready = False
        self._why_closed = ""
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                worker_argv(verb, *arguments),
                env=dict(worker_env(token)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        self._id = identify(self._process.pid)
        threading.Thread(target=self._read, name=f"{verb}-pipe", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._turn.locked()

    @property
    def ready(self) -> bool:
        """Whether the worker has loaded what it answers from."""
        return self._ready

    def ask(self, request: Contract, last: tuple[type[Any], ...]) -> Iterator[Reply]:
        """The replies to one request: Loading until the worker is ready, then its own, up to one of the types `last`.

        Raises ModelError when the worker fails or ends. Whoever leaves early has to see to it that the rest is read.
        """
        if not self._turn.acquire(blocking=False):
            raise ModelError("The model is still answering.", "Stop that answer, or wait for it.")
        finished = False
        try:
            self.last_used = time.monotonic()
            while not self._ready:
                reply = self._next()
                if isinstance(reply, Loading):
                    yield reply
                self._ready = isinstance(reply, Ready)
            self.send(request)
            while True:
                reply = self._next()
                finished = isinstance(reply, last)
                yield reply
                if finished:
                    return
        except ModelError:
            finished = True  # an error ends the request on both sides
            raise
        finally:
            if self._ready and not finished and self.alive:
                self._drain(last)
            self.last_used = time.monotonic()
            self._turn.release()

    def send(self, request: Contract) -> None:
        """Write one line down the pipe; a worker that has ended is told by the next read."""
        stdin = self._process.stdin
        try:
            assert stdin is not None
            stdin.write(request.model_dump_json().encode() + b"\n")
            stdin.flush()
        except OSError:
            pass

    def close(self, why: str) -> None:
        """End the worker and give its memory back; `why` is told to whoever waits for an answer."""
        self._why_closed = why
        stop_tree(self._id, grace_seconds=2)
        self._process.wait()

    def interrupt(self) -> None:
        """Ask the worker to cut the answer short, when nobody reads it any more; a worker may have no way to."""

    def _drain(self, last: tuple[type[Any], ...]) -> None:
        try:
            self.interrupt()
            while not isinstance(self._next(), last):
                pass
        except ModelError:
            pass

    def _next(self) -> Reply:
        reply = self._replies.get()
        if reply is None:
            self._replies.put(None)
            if self._why_closed:
                raise ModelError(f"The {self._name} was closed: {self._why_closed}.", "Ask again to load it again.")
            code = self._process.wait()
            if code == -signal.SIGKILL:
                why = "The machine ran out of memory." if lacked_memory(self._id) else "Was there enough memory?"
                raise ModelError(f"The {self._name} process was killed.", f"{why} Ask again to start a new one.")
            last = tail_text(self._log, 2000).strip().splitlines()
            raise ModelError(
                f"The {self._name} process ended unexpectedly (exit {code}).",
                f"Its last words: {last[-1][:300]}" if last else "Ask again to start a new one.",
            )
        if isinstance(reply, Error):
            if reply.fatal:
                self._process.wait()
            raise ModelError(reply.message, reply.hint)
        return reply

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            self._replies.put(self._adapter.validate_json(line))
        self._replies.put(None)
