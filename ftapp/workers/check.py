"""Check a dataset: every row, with as many processes as there are cores for it; no torch."""

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import orjson

from ftapp.contract import events as ev
from ftapp.contract.errors import EncodingNeeded, FtappError
from ftapp.contract.report import CheckRequest
from ftapp.store.building import build
from ftapp.store.checking import Batch, Task, batches
from ftapp.store.eventlog import EventLog
from ftapp.store.files import alone, lock_of, write_whole
from ftapp.store.jobs import Job

PROCESSES = 4
SECONDS = 0.2
"""Between two reports of progress."""


def check(job: Job, events: EventLog | None) -> ev.Event:
    """Do what config.json asks, into `data/`; report.json says what was found. Raises FtappError."""
    request = CheckRequest.model_validate_json((job.folder / "config.json").read_bytes())
    data = job.folder / "data" if (job.folder / "data").is_dir() else None
    said = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said < SECONDS:
            return
        said = time.monotonic()
        with alone(lock_of(job.folder), wait=False) as orphaned:
            if orphaned:
                raise FtappError("Whoever asked for this check is gone.")
        if events:
            events.append(ev.Phase(name="checking", done=done, total=total, unit="bytes"))

    with _Pool(job.folder / "parts" if data else None) as pool:
        try:
            report = build(request, data, progress, pool.run)
        except EncodingNeeded as error:
            refusal = {"name": error.name, "encoding": error.encoding, "excerpt": error.excerpt}
            write_whole(job.folder / "refusal.json", orjson.dumps(refusal))
            raise
    write_whole(job.folder / "report.json", report.model_dump_json().encode())
    return ev.Finished(artifact="data")


class _Pool:
    """Processes that are started when there is work for several."""

    def __init__(self, parts: Path | None) -> None:
        self._parts = parts
        """Where the stretches' rows are kept until it is their turn; None if nobody wants them."""
        self._count = min(PROCESSES, len(os.sched_getaffinity(0)))
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Pool":
        if self._parts:
            self._parts.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        if self._processes:
            self._processes.shutdown(cancel_futures=True)

    def run(self, tasks: Iterable[Task]) -> Iterator[Iterable[Batch]]:
        """The tasks' batches in order; several stretches at once, a whole file here."""
        waiting: deque[Future[list[Batch]]] = deque()
        for task in tasks:
            if task.source.end is None or self._count < 2:
                yield batches(task)
                continue
            if self._processes is None:
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload([batches.__module__])
                self._processes = ProcessPoolExecutor(self._count, context, _end_with_parent)
            waiting.append(self._processes.submit(_all, task, self._parts))
            if len(waiting) > 2 * self._count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _end_with_parent() -> None:
    """A killed process does not end those that work for it: they would wait for more work for ever."""

    def end() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _all(task: Task, parts: Path | None) -> list[Batch]:
    """A stretch's batches, their lines in a file: a pipe would be slower."""
    found, lines = [], []
    for batch in batches(task):
        lines.append(batch.lines)
        batch.lines = bytearray()
        found.append(batch)
    if parts:
        part = parts / f"{task.source.start}.jsonl"
        part.write_bytes(b"".join(lines))
        found[-1].part = str(part)
    return found
