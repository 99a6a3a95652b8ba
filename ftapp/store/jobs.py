"""A job is a folder: its config, its events, and the state that follows from them."""

import os
import re
import secrets
import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from ftapp.contract import events as ev
from ftapp.contract.base import Contract
from ftapp.contract.config import PublishConfig, RunConfig
from ftapp.contract.errors import JobError, StorageError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.report import DatasetRecord
from ftapp.store.eventlog import outline, tail, tail_text
from ftapp.store.files import write_whole

Status = Literal["queued", "starting", "running", "stopping", "finished", "stopped", "failed", "lost"]
ACTIVE: tuple[Status, ...] = ("queued", "starting", "running", "stopping")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,120}")
LOADED = 16
"""Runs whose events are kept in memory, those asked for last."""


class ProcessId(Contract):
    """A process for good: a pid alone may be given to another one."""

    pid: int
    created: float
    """Seconds since the epoch."""
    oom_kills: int | None = None
    """Processes that the kernel had ended for want of memory when this one was started."""


RATE_WINDOW = 20
"""Metrics over which the time of one step is averaged."""


class About(Contract):
    """What its owner says of a run."""

    title: str = ""
    """Shown instead of the name."""
    note: str = ""


@dataclass
class JobState:
    """What the events add up to."""

    started: ev.Started | None = None
    earlier: ev.Started | None = None
    """Of the process before, where the run was taken up again."""
    phase: ev.Phase | None = None
    resolved: ev.Resolved | None = None
    metrics: list[ev.Metrics] = field(default_factory=list)
    evaluations: list[ev.Evaluation] = field(default_factory=list)
    samples: list[ev.Sample] = field(default_factory=list)
    checkpoints: list[ev.Checkpoint] = field(default_factory=list)
    notes: list[ev.Note] = field(default_factory=list)
    verified: ev.Verified | None = None
    end: ev.Finished | ev.Stopped | ev.Failed | None = None
    count: int = 0
    """Events seen; changes when anything changed."""
    worked_seconds: float = 0.0
    """Time at work so far, without the pauses between an end and a resume."""
    worked_before: float = 0.0
    """The part of that before it was taken up again."""
    _samples_are_old: bool = False
    """Whether all samples were said by an earlier process."""

    def apply(self, event: ev.Event) -> None:
        """Take one more event into account."""
        self.count += 1
        if isinstance(event, ev.Started):
            self.worked_before = self.worked_seconds
        elif self.started:
            self.worked_seconds = self.worked_before + (event.time - self.started.time).total_seconds()
        match event:
            case ev.Started():
                self.earlier, self.started = self.started, event
                self.end = self.phase = None
                self._samples_are_old = True
            case ev.Phase():
                self.phase = event
            case ev.Resolved():
                self.resolved = event
                if event.start_step is not None:
                    for told in (self.metrics, self.evaluations, self.samples, self.checkpoints):
                        _drop_from(told, event.start_step + 1)
            case ev.Metrics():
                _drop_from(self.metrics, event.step)
                self.metrics.append(event)
            case ev.Evaluation():
                _drop_from(self.evaluations, event.step)
                self.evaluations.append(event)
            case ev.Sample():
                if self._samples_are_old:  # later ones of the same step stand beside it
                    _drop_from(self.samples, event.step)
                    self._samples_are_old = False
                self.samples.append(event)
            case ev.Checkpoint():
                _drop_from(self.checkpoints, event.step)
                self.checkpoints.append(event)
            case ev.Note():
                self.notes.append(event)
            case ev.Verified():
                self.verified = event
            case ev.Finished() | ev.Stopped() | ev.Failed():
                self.end = event

    def remaining_seconds(self) -> float | None:
        """Training and measuring still to do, at the pace of the last steps; None while there is nothing to go by.

        Steps are timed within one process and without the measuring in between, so that neither an interruption nor
        a long evaluation distorts them; right after a resume the pace is that of the process before.
        """
        last = self.metrics[-1] if self.metrics else None
        pace = self._seconds_a_step()
        if last is None or pace is None:
            return None
        steps = max(0, last.total_steps - last.step)
        return steps * pace + self._evaluations_left(last) * self._seconds_an_evaluation()

    def _seconds_a_step(self) -> float | None:
        """Mean over the last steps of the newest process that did at least two."""
        window: list[ev.Metrics] = []
        for event in reversed(self.metrics):
            if event.seconds is None:
                continue
            if window and event.seconds > (window[-1].seconds or 0.0):
                if len(window) > 1:
                    break
                window = []  # the newest process has done only one step
            window.append(event)
            if len(window) > RATE_WINDOW:
                break
        steps = window[0].step - window[-1].step if window else 0
        return ((window[0].seconds or 0.0) - (window[-1].seconds or 0.0)) / steps if steps > 0 else None

    def _evaluations_left(self, last: ev.Metrics) -> int:
        every = self.resolved.values.get("evaluation.steps") if self.resolved and self.resolved.eval_rows else None
        if not isinstance(every, int) or every < 1:
            return 0
        done = self.evaluations[-1].step if self.evaluations else 0
        first = max(done + 1, last.step)
        # every so many steps, and at the last one
        return max(0, (last.total_steps - 1) // every - (first - 1) // every) + (first <= last.total_steps)

    def _seconds_an_evaluation(self) -> float:
        known = [event.seconds for event in self.evaluations[-3:] if event.seconds is not None]
        return sum(known) / len(known) if known else 0.0


def _drop_from(told: list[Any], step: int) -> None:
    """Forget what was said of a step that is done again, and of what came after."""
    while told and told[-1].step >= step:
        told.pop()


class Job:
    """One job's folder, read incrementally; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.state = JobState()
        self._offset = 0
        self._lock = threading.Lock()
        self._config: RunConfig | None = None

    def refresh(self) -> JobState:
        """Read the events that came since the last call."""
        with self._lock:
            while True:
                events, offset = tail(self.folder / "events.jsonl", self._offset)
                for event in events:
                    self.state.apply(event)
                if offset == self._offset:
                    return self.state
                self._offset = offset

    def forget(self) -> None:
        """Give the memory of the events back; they are read again when asked for."""
        with self._lock:
            self.state, self._offset = JobState(), 0

    @property
    def created(self) -> datetime:
        """When the request was written."""
        return datetime.fromtimestamp((self.folder / "config.json").stat().st_mtime, UTC)

    @property
    def output(self) -> Path:
        """Raw stdout and stderr of the worker."""
        return self.folder / "output.log"

    def log_tail(self, size: int = 16_384) -> str:
        """The end of the worker's raw output."""
        return tail_text(self.output, size)

    def process(self) -> ProcessId | None:
        """The process that works on this job, alive or not; None before it was started."""
        try:
            return ProcessId.model_validate_json((self.folder / "process.json").read_bytes())
        except (OSError, ValueError):
            started = self.refresh().started
            return ProcessId(pid=started.pid, created=started.process_created) if started else None

    def record_process(self, process: ProcessId) -> None:
        """Remember which process works on this job."""
        write_whole(self.folder / "process.json", process.model_dump_json().encode())

    def status(self, alive: bool) -> Status:
        """Derived from the events and from whether the process is alive."""
        state = self.refresh()
        if not alive and self._waits_to_resume():
            return "queued"
        if alive and self._taken_up_again():
            return "stopping" if self.stop_requested else "starting"
        match state.end:
            case ev.Finished():
                return "finished"
            case ev.Stopped():
                return "stopped"
            case ev.Failed():
                return "failed"
        if alive:
            return "stopping" if self.stop_requested else "running" if state.started else "starting"
        if self.stop_requested:
            return "stopped"
        return "lost" if self.process() else "queued"

    def _taken_up_again(self) -> bool:
        """Whether a process was started that has not said its first word, after one that said its last."""
        process, started = self.process(), self.state.started
        if not (process and started and self.state.end):
            return False
        return process.pid != started.pid and process.created > started.time.timestamp()

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked the job to stop."""
        return (self.folder / "stop").exists()

    def request_stop(self, why: str = "") -> None:
        """Ask the job to save and end, or, if it waits, not to begin; `why` is what nobody would know otherwise."""
        stop = self.folder / "stop"
        if why:
            write_whole(stop, why.encode())
        else:
            stop.touch()

    @property
    def stop_reason(self) -> str:
        """Why it was asked to stop, if it was not its owner."""
        return tail_text(self.folder / "stop")

    def request_resume(self) -> None:
        """Ask that the job is taken up again when its turn comes; raises StorageError."""
        write_whole(self.folder / "resume", self._process_now())
        (self.folder / "stop").unlink(missing_ok=True)
        os.utime(self.folder.parent)  # whoever keeps in mind which runs have ended looks at all of them again

    def _waits_to_resume(self) -> bool:
        try:
            asked = (self.folder / "resume").read_bytes()
        except OSError:
            return False
        return asked == self._process_now() and not self.stop_requested  # else it has been taken up since

    def _process_now(self) -> bytes:
        process = self.process()
        return process.model_dump_json().encode() if process else b"null"

    @property
    def waiting_since(self) -> int:
        """When it was asked to run, or to run again; nanoseconds since the epoch."""
        asked = self.folder / "resume"
        return (asked if asked.exists() else self.folder / "config.json").stat().st_mtime_ns

    def run_config(self) -> RunConfig:
        """The request of a training run, which never changes."""
        if self._config is None:
            self._config = RunConfig.model_validate_json(self._config_bytes())
        return self._config

    def about(self) -> About:
        """What its owner says of it."""
        try:
            return About.model_validate_json((self.folder / "about.json").read_bytes())
        except (OSError, ValueError):
            return About()

    def describe(self, about: About) -> None:
        """Keep what its owner says of it; raises StorageError."""
        write_whole(self.folder / "about.json", about.model_dump_json().encode())

    def dataset(self) -> DatasetRecord | None:
        """What the run's dataset was when it started, kept though the dataset may be gone."""
        try:
            return DatasetRecord.model_validate_json((self.folder / "dataset.json").read_bytes())
        except (OSError, ValueError):
            return None

    def publish_config(self) -> PublishConfig:
        """The request of a publication."""
        return PublishConfig.model_validate_json(self._config_bytes())

    def evaluate_config(self) -> EvaluateConfig:
        """The request of an evaluation."""
        return EvaluateConfig.model_validate_json(self._config_bytes())

    def _config_bytes(self) -> bytes:
        try:
            return (self.folder / "config.json").read_bytes()
        except OSError as error:
            raise JobError(f"{self.name} has no readable config.json: {error.strerror}.") from error


class Outline(Job):
    """A job whose events are read once and without most of its metrics: what a list needs to know of an ended one."""

    def refresh(self) -> JobState:
        """Read the events, the first time."""
        if not self.state.count:
            for event in outline(self.folder / "events.jsonl"):
                self.state.apply(event)
        return self.state


class JobStore:
    """The runs of one user, each with its publications and evaluations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs: dict[str, Job] = {}
        self._recent: list[Job] = []

    def create(self, config: RunConfig, dataset: DatasetRecord | None = None) -> Job:
        """Write a new run's request, whole or not at all, with what its dataset was then; raises StorageError."""
        model = re.sub(r"[^a-z0-9]+", "-", config.model.id.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
        name = f"{datetime.now():%Y-%m-%d}-{model[:40] or 'model'}-{config.method.type}-{secrets.token_hex(2)}"
        return self._write(self.folder / name, config, dataset)

    def create_publication(self, run: Job, config: PublishConfig) -> Job:
        """Write a new publication's request inside its run."""
        return self._write_next(run.folder / "publications", config)

    def create_evaluation(self, run: Job, config: EvaluateConfig) -> Job:
        """Write a new evaluation's request inside its run."""
        return self._write_next(run.folder / "evaluations", config)

    def _write_next(self, parent: Path, config: Contract) -> Job:
        return self._write(parent / str(max(map(int, _numbers(parent)), default=0) + 1), config)

    def _write(self, folder: Path, config: Contract, dataset: DatasetRecord | None = None) -> Job:
        draft = folder.with_name(f".{folder.name}.new")
        try:
            draft.mkdir(parents=True, exist_ok=True)  # left by a crash
            write_whole(draft / "config.json", orjson.dumps(config.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
            if dataset:
                write_whole(draft / "dataset.json", dataset.model_dump_json(indent=2).encode())
            draft.rename(folder)
        except OSError as error:
            raise StorageError(f"Cannot write {folder}: {error.strerror}.", "Free some disk space.") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return self._job(folder.relative_to(self.folder).as_posix())

    def _job(self, path: str) -> Job:
        return self._jobs.get(path) or self._jobs.setdefault(path, Job(self.folder / path))

    def get(self, name: str) -> Job:
        """The run of that name; raises JobError if there is none."""
        folder = self.folder / name
        if not is_run_name(name) or not (folder / "config.json").is_file():
            raise JobError(f"There is no run called '{name[:100]}'.", "Choose one from the list of runs.")
        job = self._job(name)
        self._recent = [job, *(other for other in self._recent if other is not job)]
        for other in self._recent[LOADED:]:
            other.forget()
        del self._recent[LOADED:]
        return job

    def known(self, name: str) -> Job:
        """The run in the folder of that name, which the caller has seen."""
        return self._job(name)

    def delete(self, job: Job) -> None:
        """Remove a run's folder, at once for whoever looks; raises StorageError."""
        grave = job.folder.with_name(f".{job.name}.deleted")
        try:
            job.folder.rename(grave)
            self._jobs.pop(job.name, None)
            for left in self.folder.glob(".*.deleted"):  # this one, and those of a crash
                shutil.rmtree(left)
        except OSError as error:
            raise StorageError(f"Cannot delete {job.name}: {error.strerror}.", "Delete its folder by hand.") from error

    def publications(self, run: Job) -> list[Job]:
        """A run's publications, newest first."""
        return [self._job(f"{run.name}/publications/{number}") for number in _numbers(run.folder / "publications")]

    def evaluations(self, run: Job) -> list[Job]:
        """A run's evaluations, newest first."""
        return [self._job(f"{run.name}/evaluations/{number}") for number in _numbers(run.folder / "evaluations")]


def is_run_name(name: str) -> bool:
    """Whether a run may be called so: nothing that leads out of the store, no draft."""
    return bool(_NAME.fullmatch(name))


def evaluation_jobs(run: Job) -> list[Job]:
    """A run's evaluations, newest first, for whoever has the run but no store."""
    folder = run.folder / "evaluations"
    return [Job(folder / number) for number in _numbers(folder)]


def _numbers(parent: Path) -> list[str]:
    """The names of the jobs inside a run, newest first."""
    try:
        found = [path.name for path in parent.iterdir() if (path / "config.json").is_file()]
    except FileNotFoundError:
        return []
    return sorted(filter(str.isdecimal, found), key=int, reverse=True)
