"""A job is a folder: its config, its events, and the state that follows from them."""

import re
import secrets
import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import orjson

from ftapp.contract import events as ev
from ftapp.contract.base import Contract
from ftapp.contract.config import PublishConfig, RunConfig
from ftapp.contract.errors import JobError, StorageError
from ftapp.contract.report import DatasetRecord
from ftapp.store.eventlog import tail, tail_text
from ftapp.store.files import write_whole

Status = Literal["queued", "starting", "running", "stopping", "finished", "stopped", "failed", "lost"]
ACTIVE: tuple[Status, ...] = ("queued", "starting", "running", "stopping")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,120}")


class ProcessId(Contract):
    """A process for good: a pid alone may be given to another one."""

    pid: int
    created: float
    """Seconds since the epoch."""


@dataclass
class JobState:
    """What the events add up to."""

    started: ev.Started | None = None
    phase: ev.Phase | None = None
    resolved: ev.Resolved | None = None
    metrics: list[ev.Metrics] = field(default_factory=list)
    evaluations: list[ev.Evaluation] = field(default_factory=list)
    samples: list[ev.Sample] = field(default_factory=list)
    checkpoints: list[ev.Checkpoint] = field(default_factory=list)
    notes: list[ev.Note] = field(default_factory=list)
    end: ev.Finished | ev.Stopped | ev.Failed | None = None
    count: int = 0
    """Events seen; changes when anything changed."""

    def apply(self, event: ev.Event) -> None:
        """Take one more event into account."""
        self.count += 1
        match event:
            case ev.Started():
                # A run that is taken up again starts from a checkpoint: what came after that is said again.
                self.started, self.end, self.phase = event, None, None
            case ev.Phase():
                self.phase = event
            case ev.Resolved():
                self.resolved = event
            case ev.Metrics():
                while self.metrics and self.metrics[-1].step >= event.step:
                    self.metrics.pop()
                self.metrics.append(event)
            case ev.Evaluation():
                while self.evaluations and self.evaluations[-1].step >= event.step:
                    self.evaluations.pop()
                self.evaluations.append(event)
            case ev.Sample():
                self.samples.append(event)
            case ev.Checkpoint():
                self.checkpoints.append(event)
            case ev.Note():
                self.notes.append(event)
            case ev.Finished() | ev.Stopped() | ev.Failed():
                self.end = event


class Job:
    """One job's folder, read incrementally; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.state = JobState()
        self._offset = 0
        self._lock = threading.Lock()

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

    def request_stop(self) -> None:
        """Ask the job to save and end."""
        (self.folder / "stop").touch()

    def run_config(self) -> RunConfig:
        """The request of a training run."""
        return RunConfig.model_validate_json(self._config_bytes())

    def dataset(self) -> DatasetRecord | None:
        """What the run's dataset was when it started, kept though the dataset may be gone."""
        try:
            return DatasetRecord.model_validate_json((self.folder / "dataset.json").read_bytes())
        except (OSError, ValueError):
            return None

    def publish_config(self) -> PublishConfig:
        """The request of a publication."""
        return PublishConfig.model_validate_json(self._config_bytes())

    def _config_bytes(self) -> bytes:
        try:
            return (self.folder / "config.json").read_bytes()
        except OSError as error:
            raise JobError(f"{self.name} has no readable config.json: {error.strerror}.") from error


class JobStore:
    """The runs of one user, each with its publications."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs: dict[Path, Job] = {}

    def create(self, config: RunConfig, dataset: DatasetRecord | None = None) -> Job:
        """Write a new run's request, whole or not at all, with what its dataset was then; raises StorageError."""
        model = re.sub(r"[^a-z0-9]+", "-", config.model.id.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
        name = f"{datetime.now():%Y-%m-%d}-{model[:40] or 'model'}-{config.method.type}-{secrets.token_hex(2)}"
        return self._write(self.folder / name, config, dataset)

    def create_publication(self, run: Job, config: PublishConfig) -> Job:
        """Write a new publication's request inside its run."""
        numbers = [int(job.name) for job in self.publications(run)]
        return self._write(run.folder / "publications" / str(max(numbers, default=0) + 1), config)

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
        return self._job(folder)

    def _job(self, folder: Path) -> Job:
        return self._jobs.setdefault(folder, Job(folder))

    def all(self) -> list[Job]:
        """Every run, newest first."""
        found = [self._job(path) for path in _folders(self.folder) if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda job: (job.created, job.name), reverse=True)

    def get(self, name: str) -> Job:
        """The run of that name; raises JobError if there is none."""
        folder = self.folder / name
        if not _NAME.fullmatch(name) or not (folder / "config.json").is_file():
            raise JobError(f"There is no run called '{name[:100]}'.", "Choose one from the list of runs.")
        return self._job(folder)

    def publications(self, run: Job) -> list[Job]:
        """A run's publications, newest first."""
        found = [path for path in _folders(run.folder / "publications") if path.name.isdecimal()]
        return [self._job(path) for path in sorted(found, key=lambda path: -int(path.name))]


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if (path / "config.json").is_file()]
    except FileNotFoundError:
        return []
