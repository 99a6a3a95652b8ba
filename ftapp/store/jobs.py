"""A job is a folder: its config, its events, and the state that follows from them."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from ftapp.contract import events as ev
from ftapp.contract.base import Contract
from ftapp.contract.config import RunConfig
from ftapp.contract.errors import JobError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.publication import PublishConfig
from ftapp.contract.refusals import config_error
from ftapp.contract.report import DatasetRecord
from ftapp.contract.state import JobState
from ftapp.store.eventlog import outline, tail, tail_text
from ftapp.store.files import write_whole

Status = Literal["queued", "starting", "running", "stopping", "finished", "stopped", "failed", "lost"]
ACTIVE: tuple[Status, ...] = ("queued", "starting", "running", "stopping")
C = TypeVar("C", RunConfig, EvaluateConfig, PublishConfig)


class ProcessId(Contract):
    """A process for good: a pid alone may be given to another one."""

    pid: int
    created: float
    """Seconds since the epoch."""
    oom_kills: int | None = None
    """Processes that the kernel had ended for want of memory when this one was started."""


class About(Contract):
    """What its owner says of a run."""

    title: str = ""
    """Shown instead of the name."""
    note: str = ""


class Job:
    """One job's folder, read incrementally; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.state = JobState()
        self._offset = 0
        self._lock = threading.Lock()
        self._config: tuple[int, Contract] | None = None
        """When its file was written, and what it said."""

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
        if self._waits_to_resume():
            if alive and state.end:
                return "stopping"  # the process before has said its last word and is about to go
            if not alive and not self.unreadable:
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
        if self.process():
            return "lost"
        return "failed" if self.unreadable else "queued"

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
        """Ask the job to save and end, or, if it waits, not to begin; `why` is what nobody would know otherwise.

        Of several requests the first one counts.
        """
        stop = self.folder / "stop"
        if why and not self.stop_requested:
            write_whole(stop, why.encode())
        elif not self.stop_requested:
            stop.touch()

    @property
    def end_requested(self) -> float | None:
        """Since when its process is to end, by a stop or for a resume; seconds since the epoch, None if it is not."""
        asked = self.folder / ("resume" if self._waits_to_resume() else "stop")
        try:
            return asked.stat().st_mtime
        except FileNotFoundError:
            return None

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
        """The request of a training run, which never changes; raises JobError if it cannot be read."""
        return self._read(RunConfig)

    def datasets(self) -> set[str]:
        """The datasets that a run needs as they are, as far as that can still be read."""
        try:
            data = self.run_config().data
        except JobError:
            known = self.dataset()
            return {known.id} if known else set()
        return {id for id in (data.dataset, data.eval_dataset) if id}

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
        """The request of a publication; raises JobError if it cannot be read."""
        return self._read(PublishConfig)

    def evaluate_config(self) -> EvaluateConfig:
        """The request of an evaluation; raises JobError if it cannot be read."""
        return self._read(EvaluateConfig)

    @property
    def unreadable(self) -> JobError | None:
        """Why its request cannot be read: it is damaged, or of another version of the app; None if it can be."""
        try:
            match self.folder.parent.name:
                case "publications":
                    self.publish_config()
                case "evaluations":
                    self.evaluate_config()
                case _:
                    self.run_config()
        except JobError as error:
            return error
        return None

    def _read(self, kind: type[C]) -> C:
        path = self.folder / "config.json"
        try:
            written = path.stat().st_mtime_ns
            if self._config and self._config[0] == written and isinstance(self._config[1], kind):
                return self._config[1]
            config = kind.model_validate_json(path.read_bytes())
        except OSError as error:
            raise JobError(f"{self.name} has no readable config.json: {error.strerror}.") from error
        except ValidationError as error:
            field, words = next(iter(config_error(error).problems.items()))
            raise JobError(
                f"The config of {self.folder.parent.name.removesuffix('s')} {self.name} cannot be read: "
                f"{field or 'it'} {words}.",
                "It was damaged, or another version of the app wrote it. Start a new one.",
            ) from None
        self._config = written, config
        return config


class Outline(Job):
    """A job whose events are read once and without most of its metrics: what a list needs to know of an ended one."""

    def refresh(self) -> JobState:
        """Read the events, the first time."""
        if not self.state.count:
            for event in outline(self.folder / "events.jsonl"):
                self.state.apply(event)
        return self.state
