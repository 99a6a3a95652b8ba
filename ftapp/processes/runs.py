"""One user's runs and their status: an ended run is read once, and not again until its folder changes."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ftapp.contract import events as ev
from ftapp.contract.errors import JobError
from ftapp.processes.child import alive
from ftapp.store.jobs import ACTIVE, Job, Outline, Status
from ftapp.store.runs import JobStore, is_run_name
from ftapp.store.summaries import Summaries, Summary, summarise

SETTLING = 10**9
"""Nanoseconds: what changed less than this ago may change again and have the same time stamp."""


class Runs:
    """The runs of one user; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.store = JobStore(folder)
        self._summaries = Summaries(folder.parent / ".summaries.json")
        self._left: tuple[int, list[str]] = (0, [])
        """The folder's time stamp, and everything that had not ended in it then."""

    def summary(self, job: Job) -> Summary:
        """A run as it stands now; raises JobError if it is gone."""
        try:
            stamp = job.folder.stat().st_mtime_ns
            status, known = self._judge(job, stamp)
            return known or summarise(job, status, stamp)
        except FileNotFoundError:
            raise JobError(f"{job.name} was deleted.", "Choose another one from the list of runs.") from None

    def status(self, job: Job) -> tuple[Status, ev.Finished | ev.Stopped | ev.Failed | None]:
        """A run's status and its last word, for whoever asks each second; raises JobError if it is gone."""
        try:
            status, known = self._judge(job, job.folder.stat().st_mtime_ns)
        except FileNotFoundError:
            raise JobError(f"{job.name} was deleted.", "Choose another one from the list of runs.") from None
        return status, known.end if known else job.refresh().end

    def all(self) -> list[tuple[Job, Summary]]:
        """Every run as it stands now, newest first."""
        found = []
        stamps = _stamps(self.store.folder)
        for job, stamp, status, known in self._judged(stamps.items()):
            try:
                summary = known or summarise(job, status, stamp)
            except FileNotFoundError:
                continue  # deleted while we looked
            found.append((summary.row.created, job.name, job, summary))
        self._summaries.save(stamps)
        return [(job, summary) for _, _, job, summary in sorted(found, key=lambda one: one[:2], reverse=True)]

    def active(self) -> list[tuple[Job, Status]]:
        """The runs that wait or work; those that have ended are not even looked at."""
        stamp, now = _stamp(self.store.folder), time.time_ns()
        looked, left = self._left
        if stamp == looked:
            stamps = {name: _stamp(self.store.folder / name) for name in left}
        else:
            stamps = _stamps(self.store.folder)
        judged = list(self._judged(stamps.items()))
        left = [job.name for job, seen, _, _ in judged if not self._summaries.get(job.name, seen)]
        self._left = (stamp if abs(now - stamp) > SETTLING else 0, left)
        self._summaries.save()
        return [(job, status) for job, _, status, _ in judged if status in ACTIVE]

    def _judged(self, stamps: Iterable[tuple[str, int]]) -> "Iterator[_Judged]":
        for name, stamp in stamps:
            job = self.store.known(name)
            known = self._summaries.get(name, stamp)
            if known:
                yield job, stamp, known.status, known
            elif (job.folder / "config.json").is_file():
                try:
                    yield job, stamp, *self._judge(job, stamp)
                except FileNotFoundError:
                    continue  # deleted while we looked

    def _judge(self, job: Job, stamp: int) -> tuple[Status, Summary | None]:
        """A run's status, and its summary if it has ended."""
        if known := self._summaries.get(job.name, stamp):
            return known.status, known
        settled = abs(time.time_ns() - stamp) > SETTLING
        ended = Outline(job.folder)
        if alive(ended.process()):
            return job.status(True), None
        status = ended.status(False)
        if status in ACTIVE:
            return status, None
        summary = summarise(ended, status, stamp)
        if settled and (ended.process() or status != "failed"):  # else it waits as soon as its config can be read
            self._summaries.put(job.name, summary)
        return status, summary


_Judged = tuple[Job, int, Status, Summary | None]
"""A run, when its folder changed last, its status, and its summary if it has ended."""


def _stamp(folder: Path) -> int:
    """When a folder changed last, nanoseconds since the epoch; 0 if there is none."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _stamps(folder: Path) -> dict[str, int]:
    """Each run's name → when its folder changed last."""
    stamps = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_run_name(entry.name):
                    stamps[entry.name] = entry.stat().st_mtime_ns
    except FileNotFoundError:
        pass
    return stamps
