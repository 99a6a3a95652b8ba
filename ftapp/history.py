"""What a user can do with runs that are there: list, name, compare, delete, put in order; a Studio is one of these."""

from collections.abc import Sequence
from typing import Any

from ftapp.arrivals import Arrivals
from ftapp.contract.base import Contract
from ftapp.contract.errors import JobError
from ftapp.people import Person, acts
from ftapp.processes.child import alive
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.jobs import ACTIVE, About, Job
from ftapp.store.notices import Notices
from ftapp.store.summaries import RunRow

POINTS = 500
"""Of a curve in a comparison, about."""


class Curve(Contract):
    """A run's losses as (step, loss)."""

    loss: list[tuple[int, float]]
    eval_loss: list[tuple[int, float]]


class Comparison(Contract):
    """Several runs side by side; every list has one entry for each of them, in the order asked for."""

    runs: list[RunRow]
    differences: dict[str, list[Any]]
    """Dotted config name → each run's value, where they are not all the same; None where a run has no such value."""
    curves: list[Curve]


class QueueEntry(Contract):
    """A run that waits for its turn."""

    position: int
    """From 1, over the runs of all users."""
    mine: bool
    name: str
    """Empty if it is another user's."""
    title: str
    """Its owner's name for it; empty if there is none, or if it is another user's."""


class History(Arrivals):
    """The runs of one user, and their places in the queue of all users."""

    def __init__(self, settings: Settings, person: Person, scheduler: Scheduler) -> None:
        super().__init__(settings, person, scheduler)
        self._runs = scheduler.runs(self.folder / "runs")
        self._jobs = self._runs.store

    def history(self, search: str = "") -> list[RunRow]:
        """The user's runs, newest first; only those that have every word of `search` in what a list shows of them."""
        rows = [summary.row for _, summary in self._runs.all()]
        words = search.casefold().split()
        return [row for row in rows if all(word in _text(row) for word in words)] if words else rows

    def notices(self) -> list[str]:
        """What is to be known of this installation as a whole: of its volume, of its sleep; no one's name is in it."""
        return list(Notices(self.settings.home).read().values())

    @acts
    def describe_run(self, name: str, title: str | None = None, note: str | None = None) -> None:
        """Give a run a title or a note, or take it away with ""; its name and its folder stay. Raises JobError."""
        job = self._jobs.get(name)
        changes = {"title": title, "note": note}
        job.describe(
            About.model_validate(
                job.about().model_dump() | {key: text.strip() for key, text in changes.items() if text is not None}
            )
        )

    @acts
    def delete_run(self, name: str, publications: bool = False) -> None:
        """Delete an ended run with its checkpoints and its result, for good; datasets stay.

        Raises JobError while it works, and while it has publications on this machine, unless these may go too.
        """
        job = self._jobs.get(name)
        if self._runs.summary(job).status in ACTIVE:
            raise JobError(f"{name} waits or is at work.", "Stop it first.")
        kept = self._jobs.publications(job)
        if any(one.status(alive(one.process())) in ACTIVE for one in kept):
            raise JobError(f"{name} is being published.", "Wait for that to end, or stop it.")
        files = [one for one in kept if _has_files(one)]
        if files and not publications:
            count = f"{len(files)} publications" if len(files) > 1 else "a publication"
            raise JobError(
                f"{name} has {count} with files on this machine.",
                "They go with it if you confirm that; what is on the Hub or in a folder of its own stays.",
            )
        self._let_go(name)
        self._mark_deleted("runs", name)
        self._jobs.delete(job)

    def compare(self, names: Sequence[str]) -> Comparison:
        """Runs side by side: where their configs differ, and their curves. Raises JobError."""
        jobs = [self._jobs.get(name) for name in names]
        configs = [_dotted(job.run_config().model_dump(mode="json")) for job in jobs]
        fields = dict.fromkeys(field for config in configs for field in config)
        values = {field: [config.get(field) for config in configs] for field in fields}
        summaries = [self._runs.summary(job) for job in jobs]
        return Comparison(
            runs=[summary.row for summary in summaries],
            differences={field: found for field, found in values.items() if any(one != found[0] for one in found)},
            curves=[_curve(self._jobs.get(name)) for name in names],
        )

    # The queue

    def queue(self) -> list[QueueEntry]:
        """The runs that wait, the next one first."""
        entries = []
        for position, waiting in enumerate(self.scheduler.queue(), 1):
            mine = waiting.user == self.person.name
            name, title = (waiting.job.name, waiting.job.about().title) if mine else ("", "")
            entries.append(QueueEntry(position=position, mine=mine, name=name, title=title))
        return entries

    @acts
    def move(self, name: str, places: int) -> None:
        """Move a waiting run so many places down, or up if negative, among one's own; raises JobError."""
        self.scheduler.move(self.person.name, name, places)

    @acts
    def unqueue(self, name: str) -> None:
        """Take a waiting run out of the queue; raises JobError if it does not wait. `resume` puts it back."""
        job = self._jobs.get(name)
        if self._runs.summary(job).status != "queued":
            raise JobError(f"{name} does not wait in the queue.", "It has begun, or was taken out.")
        job.request_stop()

    def _let_go(self, run: str) -> None:
        """Use a run's files no more."""
        raise NotImplementedError


def _text(row: RunRow) -> str:
    return "\n".join((row.name, row.title, row.note, row.model, row.dataset, row.method, row.status)).casefold()


def _has_files(publication: Job) -> bool:
    own = {"config.json", "events.jsonl", "output.log", "process.json", "stop"}
    return any(path.name not in own for path in publication.folder.iterdir())


def _dotted(value: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _dotted(inner, f"{before}{key}.") if isinstance(inner, dict) else {before + key: inner}
    return found


def _curve(job: Job) -> Curve:
    state = job.refresh()
    step = max(1, len(state.metrics) // POINTS)
    shown = [*state.metrics[:-1:step], *state.metrics[-1:]]
    return Curve(
        loss=[(metrics.step, metrics.loss) for metrics in shown],
        eval_loss=[(evaluation.step, evaluation.loss) for evaluation in state.evaluations],
    )
