"""One accelerator, one tenant: which training or evaluation runs next, over the runs of every user."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftapp.contract.errors import FtappError, JobError
from ftapp.processes.child import alive, stop_tree
from ftapp.processes.gpus import gpus, processes_for
from ftapp.processes.launch import launch
from ftapp.processes.runs import Runs
from ftapp.settings import Settings
from ftapp.store.files import alone
from ftapp.store.jobs import ACTIVE, Job, Status
from ftapp.store.queue import EvaluationQueue, QueueOrder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """A run in the queue."""

    user: str
    job: Job
    since: int

    @property
    def ticket(self) -> str:
        """Its name in the queue's order; another one each time that it is queued."""
        return f"{self.user}/{self.job.name}@{self.since}"


class Scheduler:
    """Starts queued runs and evaluations in turn, whenever no other is at work; any number of processes may do so.

    Evaluations go first: they are short. Of several people's runs, each person's first come before anybody's second.
    """

    def __init__(
        self, settings: Settings, token_of: Callable[[str], str | None], before_start: Callable[[], None] = lambda: None
    ) -> None:
        """`token_of` knows the Hub token of a user; `before_start` is called before the accelerator is used."""
        self._home = settings.home
        self._settings = settings
        self._token_of = token_of
        self._before_start = before_start
        self._runs: dict[Path, Runs] = {}
        self._order = QueueOrder(self._home)
        self._evaluations = EvaluationQueue(self._home)
        self._evaluation_jobs: dict[str, Job] = {}
        self.one_chat = threading.Lock()
        """Held while a chat is put into memory: there is room for one, whoever's it is."""

    def runs(self, folder: Path) -> Runs:
        """The runs of one user, in that folder."""
        return self._runs.setdefault(folder, Runs(folder))

    def _active(self) -> list[tuple[str, Job, Status]]:
        folders = self._home.glob("*/runs")
        return [(folder.parent.name, *one) for folder in folders for one in self.runs(folder).active()]

    def running(self) -> list[Job]:
        """The runs that a live process trains or evaluates."""
        training = [job for _, job, status in self._active() if status != "queued"]
        evaluated = [Job(job.folder.parents[1]) for job, status in self._evaluating() if status != "queued"]
        return training + evaluated

    def count(self, user: str) -> int:
        """How many runs and evaluations of a user wait or work."""
        own = self._home / user
        evaluations = [job for job, _ in self._evaluating() if job.folder.is_relative_to(own)]
        return len(self.runs(own / "runs").active()) + len(evaluations)

    def enqueue(self, evaluation: Job) -> None:
        """Let an evaluation run when the accelerator is free; raises StorageError."""
        with alone(self._home / ".scheduler.lock"):
            folder = evaluation.folder.relative_to(self._home).as_posix()
            self._evaluations.write([*self._evaluations.read(), folder])

    def _evaluating(self) -> list[tuple[Job, Status]]:
        """The evaluations that wait or work."""
        found = []
        for folder in self._evaluations.read():
            if (self._home / folder / "config.json").is_file():
                job = self._evaluation_jobs.setdefault(folder, Job(self._home / folder))
                status = job.status(alive(job.process()))
                if status in ACTIVE:
                    found.append((job, status))
        return found

    def queue(self) -> list[Waiting]:
        """The runs that wait, the next one first: oldest first where nobody changed the order."""
        return self._in_order(self._active())

    def _in_order(self, active: list[tuple[str, Job, Status]]) -> list[Waiting]:
        waiting = [Waiting(user, job, job.waiting_since) for user, job, status in active if status == "queued"]
        places = self._order.read() if waiting else {}
        waiting.sort(key=lambda one: (places.get(one.ticket, len(places)), one.since, one.job.name))
        turns = Counter(user for user, _, status in active if status != "queued")
        round_of = {}
        for one in waiting:
            round_of[one.ticket] = turns[one.user]
            turns[one.user] += 1
        return sorted(waiting, key=lambda one: round_of[one.ticket])

    def move(self, user: str, name: str, places: int) -> None:
        """Move a user's run so many places down, or up if negative, among that user's; raises JobError."""
        self._home.mkdir(parents=True, exist_ok=True)
        with alone(self._home / ".queue.lock"):
            queue = self.queue()
            slots = [slot for slot, waiting in enumerate(queue) if waiting.user == user]
            own = [queue[slot] for slot in slots]
            at = next((at for at, waiting in enumerate(own) if waiting.job.name == name), None)
            if at is None:
                raise JobError(f"{name} does not wait in the queue.", "It has begun, or was taken out.")
            own.insert(max(0, at + places), own.pop(at))
            for slot, waiting in zip(slots, own, strict=True):
                queue[slot] = waiting
            self._order.write([waiting.ticket for waiting in queue])

    def tick(self) -> None:
        """Start the next evaluation or run if the accelerator is free."""
        self._home.mkdir(parents=True, exist_ok=True)
        with alone(self._home / ".scheduler.lock", wait=False) as mine:
            if not mine:
                return
            active, evaluating = self._active(), self._evaluating()
            left = [job.folder.relative_to(self._home).as_posix() for job, _ in evaluating]
            if left != self._evaluations.read():
                self._evaluations.write(left)
                self._evaluation_jobs.clear()
            at_work = [job for _, job, status in active if status != "queued"]
            at_work += [job for job, status in evaluating if status != "queued"]
            for job in at_work:
                self._limit(job)
                self.end_overdue(job)
            if at_work:
                return
            if evaluating:
                self._before_start()
                evaluation = evaluating[0][0]
                launch(evaluation, "evaluate", self._token_of(evaluation.folder.relative_to(self._home).parts[0]))
            elif queue := self._in_order(active):
                self._before_start()
                self.start(queue[0].user, queue[0].job)

    def start(self, user: str, job: Job) -> None:
        """Start a run's training now, in as many processes as there are devices to share the batch."""
        found, wanted = len(gpus()), self._settings.devices
        available = min(wanted or found, found) if found else wanted or 1
        launch(job, "train", self._token_of(user), processes_for(job.run_config().batch, available))

    def _limit(self, job: Job) -> None:
        """Stop what has been at work for longer than may be."""
        most, process = self._settings.max_run_seconds, job.process()
        if most is not None and process and time.time() - process.created > most and job.end_requested is None:
            job.request_stop(f"It was at work for {most / 3600:g} hours, the most that is allowed here.")

    def end_overdue(self, job: Job) -> None:
        """End the processes of a job that was asked to end, if the grace for that is over."""
        asked = job.end_requested
        if asked is not None and time.time() - asked > self._settings.stop_grace_seconds:
            stop_tree(job.process())

    def keep_ticking(self, stopped: threading.Event, seconds: float = 0.5) -> None:
        """Tick until `stopped` is set; meant for a thread."""
        told = ""  # what fails at every tick is told once
        while not stopped.wait(seconds):
            try:
                self.tick()
                told = ""
            except FtappError as error:
                if told != str(error):
                    log.warning("cannot start the next run: %s", error)
                told = str(error)
            except Exception as error:
                if told != repr(error):
                    log.exception("cannot start the next run")
                told = repr(error)
