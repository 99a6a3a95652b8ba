"""All runs of a user in one list: search, compare, name, note, delete; and the queue with its order."""

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import gradio as gr

from ftapp.contract.errors import FtappError
from ftapp.history import Comparison, QueueEntry
from ftapp.store.summaries import RunRow
from ftapp.studio import Studio
from ftapp.ui import charts, confirm, edge, form, markup, status
from ftapp.ui.edge import Edge

SHOWN = 100
MOST_COMPARED = 8


@dataclass(frozen=True)
class HistoryView:
    """The components of the list of runs."""

    queue_box: Any
    queue: Any
    waiting: Any
    sooner: Any
    later: Any
    unqueue: Any
    search: Any
    table: Any
    picked: Any
    open: Any
    compare: Any
    edit: Any
    about: Any
    title: Any
    note: Any
    save: Any
    publications: Any
    delete: Any
    sure: confirm.Confirmation
    problem: Any
    logarithmic: Any
    chart: Any
    differences: Any

    @property
    def listed(self) -> list[Any]:
        """What `show` fills."""
        return [self.table, self.picked, self.queue_box, self.queue, self.waiting]


def place() -> HistoryView:
    """Put the components on the page."""
    with gr.Column(visible=False, elem_id="history-queue-box", elem_classes="question") as queue_box:
        queue = gr.HTML(elem_id="history-queue")
        waiting = gr.Radio(choices=[], label="Your waiting runs", elem_id="history-waiting", elem_classes="tall-list")
        with gr.Row(elem_classes="actions"):
            sooner = gr.Button("↑ Sooner", size="sm", elem_id="history-sooner", min_width=90)
            later = gr.Button("↓ Later", size="sm", elem_id="history-later", min_width=90)
            unqueue = gr.Button("Take out of the queue", size="sm", elem_id="history-unqueue", min_width=150)
    search = gr.Textbox(
        label="Search", placeholder="Words of a name, note, model, dataset, method or status; Enter searches",
        max_lines=1, elem_id="history-search",
    )  # fmt: skip
    table = gr.HTML(elem_id="history-table")
    picked = gr.Dropdown(
        choices=[], value=[], label="Chosen runs", multiselect=True, interactive=True, elem_id="history-picked",
        max_choices=MOST_COMPARED,
    )  # fmt: skip
    with gr.Row(elem_classes="actions"):
        open_it = gr.Button("Open", size="sm", elem_id="history-open", min_width=90)
        compare = gr.Button("Compare", size="sm", elem_id="history-compare", min_width=90)
        edit = gr.Button("Name and note", size="sm", elem_id="history-edit", min_width=110)
        delete = gr.Button("Delete", size="sm", variant="stop", elem_id="history-delete", min_width=90)
    with gr.Row(visible=False, elem_classes="fields asking", elem_id="history-about") as about:
        title = gr.Textbox(label="Name", max_lines=1, elem_id="history-title", min_width=160, scale=2)
        note = gr.Textbox(label="Note", max_lines=4, elem_id="history-note", min_width=200, scale=4)
        save = gr.Button("Save", variant="primary", elem_id="history-save", min_width=80, scale=1)
    sure = confirm.confirmation("Delete", "history-sure")
    publications = gr.Checkbox(
        label="When deleting: also what was published from them to this machine", container=False,
        elem_id="history-publications",
    )  # fmt: skip
    problem = gr.HTML(elem_id="history-problem")
    logarithmic = gr.Checkbox(label="Logarithmic loss", visible=False, container=False, elem_id="history-logarithmic")
    chart = gr.Plot(show_label=False, label="Losses", visible=False, elem_id="history-chart")
    differences = gr.HTML(elem_id="history-differences")
    return HistoryView(
        queue_box, queue, waiting, sooner, later, unqueue, search, table, picked, open_it, compare,
        edit, about, title, note, save, publications, delete, sure, problem, logarithmic, chart, differences,
    )  # fmt: skip


def wire(bound: Edge, view: HistoryView) -> None:
    """Bind what happens inside the list."""
    looked_at = [view.search, view.picked]
    bound.on(view.search.submit, show, looked_at, view.listed)
    bound.on(view.edit.click, _about, [view.picked], [view.about, view.title, view.note])
    saved = bound.on(view.save.click, _describe, [view.picked, view.title, view.note], [view.about])
    deleted = confirm.bind(bound, view.delete, view.sure, _sure, _delete, view.picked, [view.publications])
    for button, places in ((view.sooner, -1), (view.later, 1)):

        def move(studio: Studio, name: str | None, places: int = places) -> None:
            if name:
                studio.move(name, places)

        moved = bound.on(button.click, move, [view.waiting])
        refresh(bound, edge.ended(moved), view)
    taken = bound.on(view.unqueue.click, _unqueue, [view.waiting])
    for done in (saved, deleted, taken):
        refresh(bound, edge.ended(done), view)
    compared = [view.problem, view.logarithmic, view.chart, view.differences]
    for event in (view.compare.click, view.logarithmic.input):
        bound.on(event, _compare, [view.picked, view.logarithmic], compared)


def refresh(bound: Edge, event: Any, view: HistoryView) -> None:
    """On this event, read the list and the queue again."""
    bound.on(event, show, [view.search, view.picked], view.listed)


def show(studio: Studio, words: str, picked: list[str] | None) -> tuple[Any, ...]:
    """Updates for `HistoryView.listed`."""
    every = studio.history()
    rows = studio.history(words) if (words or "").strip() else every
    names = {row.name for row in every}
    shown = {row.name: row for row in rows} | {row.name: row for row in every if row.name in (picked or [])}
    choices = [(_label(row), row.name) for row in shown.values()]
    left = [name for name in picked or [] if name in names]
    # without need no value is sent: another run may have been chosen meanwhile
    update = gr.update(choices=choices) if left == (picked or []) else gr.update(choices=choices, value=left)
    return _table(rows, words), update, *_queue(studio.queue())


def _label(row: RunRow) -> str:
    return f"{row.title} ({row.name})" if row.title else row.name


def _table(rows: list[RunRow], words: str) -> str:
    if not rows:
        if (words or "").strip():
            return markup.empty(f"No run has the words “{words.strip()}”.")
        return markup.empty("No runs yet.", "Go to Configure and press Start: the demo takes about a minute.")
    unknown = "config cannot be read"
    headers = ("Run", "Status", "Method", "Base model", "Data", "Best held-out loss", "Loss", "Time", "Begun", "Note")
    cells = [
        (
            row.title or row.name,
            status.WORDS[row.status] + (f", step {row.step:,} of {row.total_steps:,}" if row.total_steps else ""),
            form.CHOICE_LABELS.get(row.method, row.method) or "–",
            row.model or unknown,
            (f"{row.dataset} · {row.rows:,} rows" if row.rows else row.dataset) if row.dataset else "–",
            _figure(row.best_eval_loss),
            _figure(row.last_loss),
            markup.duration(row.seconds) if row.seconds else "–",
            f"{datetime.fromtimestamp(row.created):%Y-%m-%d %H:%M}",
            row.note,
        )
        for row in rows[:SHOWN]
    ]
    more = len(rows) - SHOWN
    rest = f"<p class='ft-small'>… and {more:,} more: search for them.</p>" if more > 0 else ""
    return markup.table(headers, cells, "Runs", "runs") + rest


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if math.isfinite(value) else "NaN"


def _queue(entries: list[QueueEntry]) -> tuple[Any, Any, Any]:
    mine = [entry for entry in entries if entry.mine]
    if not mine:
        return gr.update(visible=False), "", gr.update(choices=[], value=None)
    others = len(entries) - len(mine)
    told = f"{len(entries):,} run{'s wait' if len(entries) > 1 else ' waits'} for the machine"
    told += f", {others:,} of them other people's." if others else "."
    choices = [(f"{entry.position}. {entry.title or entry.name}", entry.name) for entry in mine]
    return gr.update(visible=True), markup.notice("info", told), gr.update(choices=choices)


def _unqueue(studio: Studio, name: str | None) -> None:
    if name:
        studio.unqueue(name)


def _one(picked: list[str] | None) -> str | None:
    """The chosen run, if it is exactly one."""
    if picked and len(picked) == 1:
        return picked[0]
    edge.warn("Choose one run first." if not picked else "Choose only one run for that.")
    return None


def opened(picked: list[str] | None) -> str | None:
    """The run to show."""
    return _one(picked)


def _about(studio: Studio, picked: list[str] | None) -> tuple[Any, Any, Any]:
    if (name := _one(picked)) is None:
        return gr.skip(), gr.skip(), gr.skip()
    row = next((row for row in studio.history() if row.name == name), None)
    return gr.update(visible=True), row.title if row else "", row.note if row else ""


def _describe(studio: Studio, picked: list[str] | None, title: str, note: str) -> Any:
    if (name := _one(picked)) is None:
        return gr.skip()
    studio.describe_run(name, title, note)
    return gr.update(visible=False)


def _sure(picked: list[str] | None) -> str:
    if not picked:
        edge.warn("Choose the runs to delete first.")
        return ""
    return f"Delete {', '.join(picked)} for good, with checkpoints and results? Datasets stay."


def _delete(studio: Studio, picked: list[str] | None, publications: bool) -> None:
    for name in picked or []:
        studio.delete_run(name, publications)


def _compare(studio: Studio, picked: list[str] | None, logarithmic: bool) -> tuple[Any, Any, Any, Any]:
    hidden = gr.update(visible=False)
    if not picked:
        return markup.notice("info", "Choose two or more runs to compare."), hidden, hidden, ""
    try:
        found = studio.compare(picked)
    except FtappError as error:
        return edge.in_place(error), hidden, hidden, ""
    titles = Counter(row.title for row in found.runs)
    names = [row.title if titles[row.title] == 1 and row.title else _label(row) for row in found.runs]
    named = [(name, curve.loss, curve.eval_loss) for name, curve in zip(names, found.curves, strict=True)]
    drawn = charts.as_plotly(charts.comparison(named, logarithmic))
    shown = gr.update(visible=True)
    return "", shown, gr.update(value=drawn, visible=True), _differences(found, names)


def _differences(found: Comparison, names: list[str]) -> str:
    results = [
        ("Best held-out loss", *[_figure(row.best_eval_loss) for row in found.runs]),
        ("Time", *[markup.duration(row.seconds) for row in found.runs]),
    ]
    rows = [
        (status.TITLES.get(field) or field, *["–" if value is None else form.to_value(value) for value in values])
        for field, values in found.differences.items()
    ]
    same = "" if rows or len(names) < 2 else "<p class='ft-small'>Their configs are the same.</p>"
    return markup.table(("", *names), [*results, *rows], "Where the runs differ") + same
