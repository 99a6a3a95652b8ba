"""The web's end of the chat pipe: one worker that holds the model, JSON lines both ways."""

import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import IO

from ftapp.contract.chat import Error, Generate, Loading, Ready, Reply, Stop, replies
from ftapp.contract.errors import ModelError
from ftapp.processes.child import identify, stop_tree
from ftapp.processes.launch import worker_argv, worker_env
from ftapp.store.eventlog import tail_text
from ftapp.store.jobs import Job


class ChatProcess:
    """One loaded model; answers one conversation at a time; ends with its parent."""

    def __init__(self, run: Job, token: str | None) -> None:
        self.run = run
        self.last_used = time.monotonic()
        self._log = run.folder / "chat.log"
        self._replies: queue.Queue[Reply | None] = queue.Queue()
        self._turn = threading.Lock()
        self._ready = False
        self.why_closed = ""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                worker_argv("chat", str(run.folder)),
                env=dict(worker_env(token)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._id = identify(self._process.pid)
        threading.Thread(target=self._read, name=f"chat-{run.name}", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether an answer is being written."""
        return self._turn.locked()

    def generate(self, request: Generate) -> Iterator[Reply]:
        """The replies to one request: Loading until the model is there, then Text pieces, then Done.

        Raises ModelError when the worker fails or ends. Leaving the iterator early stops the answer.
        """
        if not self._turn.acquire(blocking=False):
            raise ModelError("The model is still answering.", "Stop that answer first.")
        finished = False
        try:
            self.last_used = time.monotonic()
            while not self._ready:
                reply = self._next()
                if isinstance(reply, Loading):
                    yield reply
                self._ready = isinstance(reply, Ready)
            self._send(request)
            while True:
                reply = self._next()
                finished = reply.type == "done"
                yield reply
                if finished:
                    return
        except ModelError:
            finished = True  # an error ends the request on both sides
            raise
        finally:
            if self._ready and not finished and self.alive:
                self._drain()
            self.last_used = time.monotonic()
            self._turn.release()

    def stop(self) -> None:
        """Stop the answer that is being written; what was written stays."""
        if self.busy and self._ready:
            self._send(Stop())

    def close(self, why: str) -> None:
        """End the worker and give its memory back; `why` is told to whoever waits for an answer."""
        self.why_closed = why
        stop_tree(self._id, grace_seconds=2)
        self._process.wait()

    def _next(self) -> Reply:
        reply = self._replies.get()
        if reply is None:
            self._replies.put(None)
            if self.why_closed:
                raise ModelError(f"The chat was closed: {self.why_closed}.", "Send again to load the model again.")
            last = tail_text(self._log, 2000).strip().splitlines()
            raise ModelError(
                f"The chat process ended unexpectedly (exit {self._process.wait()}).",
                f"Its last words: {last[-1][:300]}" if last else "Send again to start a new one.",
            )
        if isinstance(reply, Error):
            raise ModelError(reply.message, reply.hint)
        return reply

    def _drain(self) -> None:
        try:
            self._send(Stop())
            while self._next().type != "done":
                pass
        except ModelError:
            pass

    def _send(self, request: Generate | Stop) -> None:
        stdin: IO[bytes] | None = self._process.stdin
        try:
            assert stdin is not None
            stdin.write(request.model_dump_json().encode() + b"\n")
            stdin.flush()
        except OSError:
            pass  # it has ended: _next() tells

    def _read(self) -> None:
        stdout: IO[bytes] | None = self._process.stdout
        assert stdout is not None
        for line in stdout:
            self._replies.put(replies.validate_json(line))
        self._replies.put(None)
