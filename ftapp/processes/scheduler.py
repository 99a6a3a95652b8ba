"""One accelerator, one tenant: which training runs next, over the runs of every user."""

import fcntl
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftapp.contract.errors import FtappError
from ftapp.processes.child import alive
from ftapp.processes.launch import launch
from ftapp.store.jobs import Job, JobStore

log = logging.getLogger(__name__)


class Scheduler:
    """Starts queued runs, oldest first, whenever no other run is at work; any number of processes may do so."""

    def __init__(self, home: Path, token: str | None) -> None:
        self._home = home
        self._token = token
        self._stores: dict[Path, JobStore] = {}

    def jobs(self) -> list[Job]:
        """Every user's runs."""
        for folder in self._home.glob("*/runs"):
            self._stores.setdefault(folder, JobStore(folder))
        return [job for store in self._stores.values() for job in store.all()]

    def running(self) -> list[Job]:
        """The runs that a live process works on."""
        return [job for job in self.jobs() if job.status(alive(job.process())) in ("starting", "running", "stopping")]

    def queue(self) -> list[Job]:
        """The runs that wait, oldest first."""
        waiting = [job for job in self.jobs() if job.process() is None and job.status(False) == "queued"]
        return sorted(waiting, key=lambda job: (job.created, job.name))

    def tick(self) -> None:
        """Start the next run if the accelerator is free."""
        with self._alone() as mine:
            if mine and (queue := self.queue()) and not self.running():
                launch(queue[0], "train", self._token)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / ".scheduler.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def keep_ticking(self, stopped: threading.Event, seconds: float = 0.5) -> None:
        """Tick until `stopped` is set; meant for a thread."""
        while not stopped.wait(seconds):
            try:
                self.tick()
            except FtappError as error:
                log.warning("cannot start the next run: %s", error)
            except Exception:
                log.exception("cannot start the next run")
