"""The Dataset tab: where rows come from, what was found in them, and the rows as they will be learned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.store.exports import Kind
from ftapp.studio import DEMO, Studio
from ftapp.ui import confirm, downloads, question, report, rows, sources, tokens
from ftapp.ui.confirm import Confirmation
from ftapp.ui.edge import Edge
from ftapp.ui.question import Question
from ftapp.ui.report import ProblemsView, ReportView
from ftapp.ui.rows import Now, RowsView
from ftapp.ui.sources import Sources
from ftapp.ui.tokens import TokensView


@dataclass(frozen=True)
class DatasetTab:
    """The parts of the tab; other tabs are wired to `chosen`, `use` and `tokens`."""

    chosen: Any
    now: Any
    use: Any
    delete: Any
    sure: Confirmation
    sources: Sources
    question: Question
    report: ReportView
    problems: ProblemsView
    rows: RowsView
    tokens: TokensView
    exports: dict[str, Any]
    exported: Any


Listeners = Sequence[tuple[Any, Callable[[Studio], Any]]]
EXPORTS = {"jsonl": "Rows as chat JSONL", "parquet": "Rows as Parquet", "problems": "Problems as CSV"}


def place() -> DatasetTab:
    """Put the components on the page."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            whence = sources.place()
            chosen = gr.Radio(choices=[], label="Your datasets", elem_id="dataset-list", elem_classes="tall-list")
            delete = gr.Button("Delete this dataset", size="sm", elem_id="dataset-delete")
            sure = confirm.confirmation("Delete", "dataset-confirm")
        with gr.Column(scale=2, min_width=300):
            details = gr.Column(elem_id="dataset-details", render=False)
            asked = question.place(details)
            details.render()
        with details:
            found = report.place()
            use = gr.Button("Use this dataset →", variant="primary", elem_id="dataset-use")
            with gr.Tabs(elem_id="dataset-views"):
                with gr.Tab("Rows"):
                    listed = rows.place()
                with gr.Tab("Problems"):
                    problems = report.place_problems()
                with gr.Tab("Tokens"):
                    measured = tokens.place()
                with gr.Tab("Export"):
                    with gr.Row(elem_classes="actions"):
                        exports = {
                            kind: gr.Button(words, size="sm", elem_id=f"dataset-export-{kind}", min_width=150)
                            for kind, words in EXPORTS.items()
                        }
                    exported = gr.File(label="Download", visible=False, elem_id="dataset-exported")
    return DatasetTab(
        chosen, gr.State({}), use, delete, sure, whence, asked, found, problems, listed, measured, exports, exported
    )


def wire(bound: Edge, tab: DatasetTab, listeners: Listeners) -> None:
    """Bind the handlers; `listeners` are the lists of datasets elsewhere on the page, and how each is filled."""
    shown = _shown(tab)
    looked_at = [tab.now, tab.chosen, tab.rows.search]
    bound.on(tab.chosen.change, _show, looked_at, [*shown, *tab.tokens.cleared])
    rows.wire(bound, tab.rows, tab.chosen, tab.now)
    tokens.wire(bound, tab.tokens, tab.chosen, tab.now)
    fixed = report.wire(bound, tab.report, tab.problems, tab.chosen, tab.sources)
    added = sources.wire(bound, tab.sources, tab.question, tab.chosen, tab.report.figures)
    bound.on(tab.report.again.click, question.ask_columns_again, [tab.chosen], tab.question.filled)
    bound.on(tab.report.encoding.click, question.ask_encoding_again, [tab.chosen], tab.question.filled)
    deleted = confirm.bind(bound, tab.delete, tab.sure, _sure, lambda studio, id: studio.delete_dataset(id), tab.chosen)
    for ended in (*added, *fixed):  # the same one may have been read anew
        bound.on(ended.then, _show, looked_at, [*shown, *tab.tokens.cleared], trigger_mode="always_last")
    bound.on(deleted.success, _after_delete, outputs=[tab.chosen])
    lists = [(tab.chosen, choices), *listeners]
    for one, fill in lists:
        for ended in (*added, *fixed, *([] if one is tab.chosen else [deleted])):
            bound.on(ended.then, fill, outputs=[one], trigger_mode="always_last")

    def watched(studio: Studio, seen: tuple[bool, list[str]]) -> tuple[Any, ...]:
        return _watched(studio, seen, [fill for _, fill in lists])

    followed = [*tab.sources.watched, *(one for one, _ in lists)]
    bound.poll(tab.sources.ticks.tick, watched, [tab.sources.seen], followed)
    for kind in EXPORTS:

        def export(studio: Studio, id: str | None, kind: str = kind) -> Any:
            return _export(studio, id, kind)

        bound.on(tab.exports[kind].click, export, [tab.chosen], [tab.exported], show_progress="full")


def _shown(tab: DatasetTab) -> list[Any]:
    buttons = [tab.delete, tab.use, tab.exports["problems"], tab.exported]
    return [*tab.report.shown, *tab.problems.shown, *tab.rows.shown, *buttons]


def refresh(bound: Edge, event: Any, tab: DatasetTab, listeners: Listeners) -> None:
    """On this event, read the list of datasets again, and offer to cancel a check that another page began."""
    bound.on(event, _listed, [tab.chosen], [tab.chosen])
    sources.watch(bound, event, tab.sources)
    for one, fill in listeners:
        bound.on(event, fill, outputs=[one])


def _watched(studio: Studio, seen: tuple[bool, list[str]], fills: list[Callable[[Studio], Any]]) -> tuple[Any, ...]:
    """Follow the checks under way, whichever page began them: Cancel, and the lists if a dataset is new."""
    was_busy, known = seen
    busy = studio.checking()
    ids = [info.id for info in studio.datasets()]
    filled = [gr.skip() if ids == known else fill(studio) for fill in fills]
    # once more after the last check: its dataset is there a moment after it has ended
    return gr.update(visible=busy), gr.Timer(active=busy or was_busy), (busy, ids), *filled


def _listed(studio: Studio, id: str | None) -> Any:
    known = [info.id for info in studio.datasets()]
    return choices(studio, first=id not in known)


def choices(studio: Studio, first: bool = False) -> Any:
    """The list of datasets for a Radio or Dropdown; `first` also chooses the first one."""
    found = _named(studio)
    return gr.update(choices=found, value=found[0][1]) if first else gr.update(choices=found)


def optional_choices(studio: Studio) -> Any:
    """The list of datasets for a Dropdown that may stay empty."""
    return gr.update(choices=[("a share of the rows", ""), *_named(studio)])


def _named(studio: Studio) -> list[tuple[str, str]]:
    return [(f"{info.id} · {info.report.valid:,} rows", info.id) for info in studio.datasets()]


def _sure(id: str | None) -> str:
    return f"Delete {id} for good? Runs keep their results." if id else ""


def _after_delete(studio: Studio) -> Any:
    return choices(studio, first=True)


def _show(studio: Studio, now: Now, id: str | None, words: str) -> tuple[Any, ...]:
    now["dataset"] = id  # at once: what is still under way for another one is not shown any more
    info = studio.dataset(id) if id else None
    problems = gr.update(interactive=info is not None and info.report.problem_count > 0)
    buttons = gr.update(interactive=id != DEMO), gr.update(interactive=info is not None), problems
    report_shown = *report.show(info), *report.problems(info), *rows.first(studio, id, words)
    return *report_shown, *buttons, gr.update(visible=False), *tokens.cleared()


def _export(studio: Studio, id: str | None, kind: str) -> Any:
    if not id:
        return gr.skip()
    path = studio.problems_csv(id) if kind == "problems" else studio.export_dataset(id, _kind(kind))
    return gr.update(value=downloads.offered(path), visible=True) if path else gr.skip()


def _kind(name: str) -> Kind:
    return "parquet" if name == "parquet" else "jsonl"
