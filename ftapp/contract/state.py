"""What the events of a job add up to."""

from dataclasses import dataclass, field
from typing import Any

from ftapp.contract import events as ev

RATE_WINDOW = 20
"""Metrics over which the time of one step is averaged."""


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
