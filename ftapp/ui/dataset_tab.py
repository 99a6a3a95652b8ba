"""The Dataset tab: upload, what was found in the file, and the rows as they will be learned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ftapp.contract.errors import FtappError
from ftapp.contract.report import DatasetInfo
from ftapp.store.readers import SUFFIXES
from ftapp.studio import DEMO, Studio
from ftapp.ui import confirm, edge, markup

PAGE = 5
PROBLEMS_SHOWN = 20
FORMATS = {
    "messages": "messages (OpenAI)",
    "sharegpt": "ShareGPT",
    "alpaca": "Alpaca",
    "prompt_completion": "prompt and completion",
    "question_answer": "question and answer",
    "text": "plain text",
}


@dataclass(frozen=True)
class DatasetTab:
    """The components that other tabs are wired to."""

    chosen: Any
    use: Any
    leave_out: Any
    upload: Any
    problem: Any
    delete: Any
    sure: confirm.Confirmation
    report: Any
    preview: Any
    start: Any
    where: Any
    back: Any
    forth: Any


def place() -> DatasetTab:
    """Put the components on the page."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            upload = gr.File(label="Upload a dataset", file_types=list(SUFFIXES), height=150, elem_id="dataset-upload")
            gr.HTML(
                "<p class='ft-small'>One row a line or record: <code>messages</code>, ShareGPT, Alpaca, "
                "prompt/completion, question/answer or text; .jsonl, .json, .csv or .parquet.</p>"
            )
            problem = gr.HTML(elem_id="dataset-problem")
            chosen = gr.Radio(choices=[], label="Your datasets", elem_id="dataset-list", elem_classes="tall-list")
            delete = gr.Button("Delete this dataset", size="sm", elem_id="dataset-delete")
            sure = confirm.confirmation("Delete it for good? Runs keep their results.", "Delete", "dataset-confirm")
        with gr.Column(scale=2, min_width=300):
            report = gr.HTML(elem_id="dataset-report")
            leave_out = gr.Button("Leave out the rows with problems", visible=False, elem_id="dataset-leave-out")
            use = gr.Button("Use this dataset →", variant="primary", elem_id="dataset-use")
            preview = gr.HTML(elem_id="dataset-preview")
            with gr.Row(elem_classes="pager"):
                back = gr.Button("← Earlier rows", size="sm", elem_id="dataset-back", min_width=90)
                where = gr.HTML(elem_id="dataset-where")
                forth = gr.Button("Later rows →", size="sm", elem_id="dataset-forth", min_width=90)
    start = gr.State(0)
    return DatasetTab(chosen, use, leave_out, upload, problem, delete, sure, report, preview, start, where, back, forth)


def wire(bound: edge.Edge, tab: DatasetTab, listeners: list[Any]) -> None:
    """Bind the handlers; `listeners` are the lists of datasets elsewhere on the page."""
    page = [tab.preview, tab.start, tab.where, tab.back, tab.forth]
    checking = {"show_progress": "full", "show_progress_on": [tab.report], "preprocess": True}
    done = bound.on(
        tab.upload.upload, _add, [tab.upload, tab.chosen], [tab.chosen, tab.upload, tab.problem], **checking
    )
    for one in listeners:
        bound.on(done.then, choices, outputs=[one])
    shown = [tab.report, tab.delete, tab.use, tab.leave_out, *page]
    bound.on(tab.chosen.change, _show, [tab.chosen], shown)
    bound.on(tab.leave_out.click, _leave_out, [tab.chosen], shown)
    bound.on(tab.back.click, _earlier, [tab.chosen, tab.start], page)
    bound.on(tab.forth.click, _later, [tab.chosen, tab.start], page)
    deleted = confirm.bind(bound, tab.delete, tab.sure, lambda studio, id: studio.delete_dataset(id), [tab.chosen])
    for one in [tab.chosen, *listeners]:
        bound.on(deleted.success, _after_delete, outputs=[one])


def refresh(bound: edge.Edge, event: Any, tab: DatasetTab, listeners: list[Any]) -> None:
    """On this event, read the list of datasets again."""
    bound.on(event, _listed, [tab.chosen], [tab.chosen])
    for one in listeners:
        bound.on(event, choices, outputs=[one])


def _listed(studio: Studio, id: str | None) -> Any:
    known = [info.id for info in studio.datasets()]
    return choices(studio, first=id not in known)


def choices(studio: Studio, first: bool = False) -> Any:
    """The list of datasets for a Radio or Dropdown; `first` also chooses the first one."""
    found = [(f"{info.id} · {info.report.valid:,} rows", info.id) for info in studio.datasets()]
    return gr.update(choices=found, value=found[0][1]) if first else gr.update(choices=found)


def _after_delete(studio: Studio) -> Any:
    return choices(studio, first=True)


def _add(studio: Studio, path: str | None, chosen: str | None, progress: gr.Progress) -> tuple[Any, Any, str]:
    if not path:
        return gr.skip(), gr.skip(), ""
    file = Path(path)
    try:
        info = studio.add_dataset(
            file, file.name, lambda done, total: progress((done, total), desc="Checking", unit="bytes")
        )
    except FtappError as error:
        return gr.update(value=chosen), None, edge.in_place(error)
    finally:
        file.unlink(missing_ok=True)  # whatever lies in Gradio's cache can be read by its address
    return gr.update(**{**choices(studio), "value": info.id}), None, ""


def _show(studio: Studio, id: str | None) -> tuple[Any, ...]:
    if not id:
        nothing = markup.empty("No dataset chosen.", "Upload a file, or choose the demo.")
        return nothing, *(gr.update(interactive=False),) * 2, gr.update(visible=False), *_page(studio, None, 0)
    info = studio.dataset(id)
    deletable = gr.update(interactive=id != DEMO)
    return _report(info), deletable, gr.update(interactive=True), _leave_out_button(info), *_page(studio, info, 0)


def _leave_out(studio: Studio, id: str | None) -> tuple[Any, ...]:
    if id:
        info = studio.dataset(id)
        studio.leave_out_problems(id) if info.unresolved else studio.undo_fix(id, "drop_problems")
    return _show(studio, id)


def _leave_out_button(info: DatasetInfo) -> Any:
    count = info.report.problem_count
    rows = f"the {count:,} row{'s' if count != 1 else ''} with problems"
    return gr.update(visible=count > 0, value=f"Leave out {rows}" if info.unresolved else f"Keep asking about {rows}")


def _earlier(studio: Studio, id: str | None, start: int) -> tuple[Any, ...]:
    return _page(studio, studio.dataset(id) if id else None, start - PAGE)


def _later(studio: Studio, id: str | None, start: int) -> tuple[Any, ...]:
    return _page(studio, studio.dataset(id) if id else None, start + PAGE)


def _page(studio: Studio, info: DatasetInfo | None, start: int) -> tuple[Any, ...]:
    rows = info.report.valid if info else 0
    start = max(0, min(start, (rows - 1) // PAGE * PAGE))
    if info is None or not rows:
        return "", 0, "", gr.update(interactive=False), gr.update(interactive=False)
    end = min(start + PAGE, rows)
    html = markup.conversation(studio.examples(info.id, start, PAGE), start + 1)
    where = f"<p class='where'>Rows {start + 1:,}–{end:,} of {rows:,}</p>"
    return html, start, where, gr.update(interactive=start > 0), gr.update(interactive=end < rows)


def _report(info: DatasetInfo) -> str:
    report = info.report
    figures = markup.facts(
        [
            ("Format", FORMATS.get(report.format, report.format)),
            ("Rows", f"{report.rows:,}"),
            ("Usable", f"{report.valid:,}"),
            ("With problems", f"{report.problem_count:,}"),
            ("Size", markup.size(info.bytes)),
        ]
    )
    return f"<h3>{markup.text(info.filename)}</h3>{figures}{_problems(info)}"


def _problems(info: DatasetInfo) -> str:
    report = info.report
    if not report.problem_count:
        return markup.notice("success", "Every row can be used.")
    shown = report.problems[:PROBLEMS_SHOWN]
    rows = [(f"{problem.row:,}", f"{problem.line:,}" if problem.line else "–", problem.message) for problem in shown]
    more = report.problem_count - len(shown)
    rest = f"<p class='ft-small'>… and {more:,} more.</p>" if more else ""
    end = "." if info.unresolved else " and are left out."
    told = f"{report.problem_count:,} of {report.rows:,} rows cannot be used{end}"
    return markup.notice("warning", told) + markup.table(("Row", "Line", "Problem"), rows, "Problems") + rest
