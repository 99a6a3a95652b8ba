"""What lists, the queue and estimates know of a run without reading all its events; derived from its folder."""

import math
import threading
from collections.abc import Container
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ftapp.contract import events as ev
from ftapp.contract.base import Contract
from ftapp.contract.duration import Speed
from ftapp.contract.errors import JobError, StorageError
from ftapp.store.files import write_whole
from ftapp.store.jobs import Job, Status


class RunRow(Contract):
    """A run in a list."""

    name: str
    title: str
    """Its owner's name for it; empty if there is none."""
    note: str
    status: Status
    method: str
    """Empty, as are model and dataset, if its config cannot be read."""
    model: str
    dataset: str
    rows: int
    """That trained and measured, or, before that is known, that the dataset had."""
    step: int
    total_steps: int
    best_eval_loss: float | None
    """Lowest loss on the held-out rows."""
    last_loss: float | None
    """Of the last step that was told."""
    seconds: float
    """Time at work, without the pauses between an end and a resume."""
    created: float
    """Seconds since the epoch."""


class Summary(Contract):
    """A run's row, how it ended, and how fast it was."""

    stamp: int
    """When the run's folder changed last, nanoseconds since the epoch."""
    status: Status
    end: ev.Finished | ev.Stopped | ev.Failed | None = None
    row: RunRow
    speed: Speed | None = None


def summarise(job: Job, status: Status, stamp: int) -> Summary:
    """What a run's folder says of it."""
    state, end = job.refresh(), job.refresh().end
    if isinstance(end, ev.Failed):
        end = end.model_copy(update={"traceback": ""})
    about, dataset = job.about(), job.dataset()
    method = model = data = ""
    try:
        config = job.run_config()
        method, model, data = config.method.type, config.model.id, config.data.dataset
    except JobError:
        pass  # there is more to tell of it, and its owner may delete it
    known = state.resolved
    last = state.metrics[-1] if state.metrics else None
    losses = [evaluation.loss for evaluation in state.evaluations if math.isfinite(evaluation.loss)]
    row = RunRow(
        name=job.name,
        title=about.title,
        note=about.note,
        status=status,
        method=method,
        model=model,
        dataset=data,
        rows=known.train_rows + known.eval_rows if known else dataset.used if dataset else 0,
        step=last.step if last else 0,
        total_steps=last.total_steps if last else known.total_steps if known else 0,
        best_eval_loss=min(losses, default=None),
        last_loss=last.loss if last else None,
        seconds=state.worked_seconds,
        created=job.created.timestamp(),
    )
    return Summary(stamp=stamp, status=status, end=end, row=row, speed=_speed(job, row))


def _speed(job: Job, row: RunRow) -> Speed | None:
    state = job.state
    tokens, seconds, trained = 0, 0.0, 0.0
    for before, after in zip(state.metrics, state.metrics[1:], strict=False):
        more, longer = (after.tokens or 0) - (before.tokens or 0), (after.seconds or 0) - (before.seconds or 0)
        if more > 0 and longer > 0:  # not across a resume, where both begin again
            tokens, seconds = tokens + more, seconds + longer
        trained += max(0.0, longer)
    if not (seconds and state.resolved):
        return None
    measured = [evaluation.seconds for evaluation in state.evaluations if evaluation.seconds is not None]
    return Speed(
        model=row.model,
        method=row.method,
        device=str(state.resolved.values.get("device", "")),
        parameters=state.resolved.total_parameters,
        tokens_per_second=tokens / seconds,
        other_seconds=max(0.0, state.worked_seconds - trained - sum(measured)),
        steps=len(state.metrics),
        seconds_an_evaluation=sum(measured) / len(measured) if measured else 0.0,
    )


class Summaries:
    """The summaries of a user's ended runs, in memory and in one file, so that a restart need not read every log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, Summary] | None = None
        self._changed = False

    def get(self, name: str, stamp: int) -> Summary | None:
        """The summary of a run whose folder has not changed since."""
        if self._known is None:
            with self._lock:
                self._known = self._load() if self._known is None else self._known
        found = self._known.get(name)
        return found if found and found.stamp == stamp else None

    def put(self, name: str, summary: Summary) -> None:
        """Remember an ended run."""
        with self._lock:
            if self._known is not None:
                self._known[name] = summary
                self._changed = True

    def save(self, names: Container[str] | None = None) -> None:
        """Write what was learned since the last time; forget the runs that are not among these names, if given."""
        with self._lock:
            if not self._changed or self._known is None:
                return
            if names is not None:
                self._known = {name: summary for name, summary in self._known.items() if name in names}
            try:
                # one whose config could not be read is looked at again by the next version
                kept = {name: summary for name, summary in self._known.items() if summary.row.method}
                write_whole(self._path, _table.dump_json(kept))
            except StorageError:
                pass  # it is only a shortcut
            self._changed = False

    def _load(self) -> dict[str, Summary]:
        try:
            return _table.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):  # none yet, or of another version of the app
            return {}


_table: TypeAdapter[dict[str, Summary]] = TypeAdapter(dict[str, Summary])
