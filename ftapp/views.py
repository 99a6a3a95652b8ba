"""A run, an evaluation or a publication as it stands, as a person reads it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig
from ftapp.contract.errors import FailureKind, JobError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.publication import PublishConfig
from ftapp.contract.remedies import in_words, remedy
from ftapp.contract.state import JobState
from ftapp.processes.child import lacked_memory
from ftapp.store.jobs import ACTIVE, Job, Status

C = TypeVar("C", RunConfig, EvaluateConfig, PublishConfig)
End = ev.Finished | ev.Stopped | ev.Failed | None


@dataclass(frozen=True)
class JobView(Generic[C]):
    """A training run, an evaluation or a publication as it stands now: RunView, EvaluationView, PublicationView."""

    job: Job
    read_config: Callable[[], C]
    created: float
    """Seconds since the epoch."""
    status: Status
    end: End
    """Its last word, if it has said that."""

    # read when asked for: there may be a thousand of them in a list, and a long run has many events

    @cached_property
    def config(self) -> C:
        """What was asked for."""
        return self.read_config()

    @cached_property
    def unreadable(self) -> JobError | None:
        """Why `config` cannot be read; None if it can be."""
        return self.job.unreadable

    @property
    def message(self) -> str:
        """What a person should read about the status: why it failed, where the result is."""
        return self._told[0]

    @property
    def hint(self) -> str:
        """What to do about that."""
        return self._told[1]

    @property
    def kind(self) -> FailureKind | None:
        """Why it could not go on, if it failed or was lost and the cause is known."""
        return self._told[2]

    @property
    def changes(self) -> dict[str, Any]:
        """Dotted config name → the value to try next; see `Studio.start_changed`."""
        return self._told[3]

    @cached_property
    def _told(self) -> tuple[str, str, FailureKind | None, dict[str, Any]]:
        message, hint = _told(self.job, self.status, self.end)
        if problem := self.unreadable:
            kind = self.end.kind if isinstance(self.end, ev.Failed) else None
            return f"{message} {problem.message}".strip(), problem.hint, kind, {}
        match self.status, self.end:
            case "failed", ev.Failed(kind=kind, changes=changes):
                return message, hint, kind, changes
            case "lost", _ if lacked_memory(self.job.process()) and isinstance(self.config, RunConfig):
                phase = self.state.phase
                changes = remedy(
                    "memory", self.config, self.state.resolved, phase is not None and phase.name == "loading"
                )
                return message, f"The machine ran out of memory meanwhile. {in_words(changes)}", "memory", changes
        return message, hint, None, {}

    @property
    def name(self) -> str:
        """A run's name, the number of an evaluation or a publication."""
        return self.job.name

    @property
    def folder(self) -> Path:
        """Where everything about it is."""
        return self.job.folder

    @cached_property
    def state(self) -> JobState:
        """What its events add up to."""
        return self.job.refresh()

    @property
    def active(self) -> bool:
        """Whether it still waits or works."""
        return self.status in ACTIVE

    @property
    def has_result(self) -> bool:
        """Whether there is an adapter or a model to chat with and to publish, and it is known how it was made."""
        made = (self.folder / "adapter").is_dir() or (self.folder / "model").is_dir()
        return made and not self.unreadable

    @property
    def has_evaluations(self) -> bool:
        """Whether there is an evaluation to look at; of a run that is only shown, though its result is not there."""
        return (self.folder / "evaluations").is_dir() and not self.unreadable


RunView = JobView[RunConfig]
EvaluationView = JobView[EvaluateConfig]
PublicationView = JobView[PublishConfig]


def _told(job: Job, status: Status, end: End) -> tuple[str, str]:
    """A status in a sentence, and what to do next."""
    message, hint = _plainly(job, status, end)
    if status in ("stopped", "stopping") and (why := job.stop_reason):
        message = f"{why} {message}".strip()
    return message, hint


def _plainly(job: Job, status: Status, end: End) -> tuple[str, str]:
    resumable = job.folder.parent.name == "runs"
    match status, end:
        case "failed", ev.Failed(message=message, hint=hint):
            return message, hint
        case "finished", ev.Finished(url=url, artifact=artifact):
            place = os.path.normpath(job.folder / artifact)  # a publication may use what an earlier one made
            if url or not os.path.exists(place):  # noqa: PTH110 - of a run that is only shown, the result is not there
                return (f"Published at {url}" if url else ""), ""
            return f"The result is in {place}", ""
        case "stopped" | "lost", ev.Stopped() | None if job.folder.parent.name == "publications":
            ended = "Stopped" if status == "stopped" else "The process ended without a word"
            return f"{ended} before it was published.", "Publish again: what was made whole is used."
        case "stopped", ev.Stopped(step=step, artifact=str(artifact), best_step=int(best)) if best != step:
            return f"Stopped at step {step}; the best so far, of step {best}, is in {job.folder / artifact}", ""
        case "stopped", ev.Stopped(step=step, artifact=str(artifact)):
            return f"Stopped at step {step}; the result so far is in {job.folder / artifact}", ""
        case "stopped", ev.Stopped(step=0) if resumable:
            return "Stopped before the first step", "Start it again with Use these settings again."
        case "stopped", _ if not resumable:
            return "Stopped before its end; nothing was kept.", "Start it again."
        case "stopped", _ if job.process() is None:
            return "Taken out of the queue before it began", "Resume puts it back."
        case "stopped", _:
            return "Ended before it could save", "Resume it from its last checkpoint, if it has one, or start it again."
        case "lost", _:
            last = [line for line in job.log_tail(4000).splitlines() if line.strip()]
            hint = "Resume it from its last checkpoint, or start it again." if resumable else "Start it again."
            ended = "The process ended without a word: it was killed, or the machine ran out of memory or restarted."
            return f"{ended} Last line of its log: {last[-1][:300]}" if last else ended, hint
        case "queued", _:
            return "Waits for the run before it to end", ""
        case _:
            return "", ""
