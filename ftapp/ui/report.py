"""What checking a dataset found: figures, advice, findings with a button for each fix, and the rows with problems."""

from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from ftapp.contract.errors import FtappError
from ftapp.contract.report import EDITS, DatasetInfo, Edit, Finding, Report
from ftapp.studio import Studio
from ftapp.ui import edge, markup, sources
from ftapp.ui.edge import Edge
from ftapp.ui.sources import Sources

FORMATS = {
    "messages": "messages (OpenAI)",
    "sharegpt": "ShareGPT",
    "alpaca": "Alpaca",
    "prompt_completion": "prompt and completion",
    "question_answer": "question and answer",
    "text": "plain text",
    "preference": "preference pairs",
    "mapped": "your own columns",
}
PROBLEMS_SHOWN = 200
ROWS_NAMED = 5
ALL = "all"
IN_FORCE: dict[Edit, str] = {
    "drop_problems": "The rows with problems are left out.",
    "drop_trailing": "Turns after the last answer are dropped.",
    "merge_turns": "Turns of one role in a row are merged.",
    "fold_system": "The system text stands in front of the first user turn.",
    "drop_short": "Rows with very short answers are left out.",
    "drop_duplicates": "Repeated rows are left out.",
    "drop_near_duplicates": "Rows that are almost the same are left out.",
}


@dataclass(frozen=True)
class Fix:
    """One fix: what speaks for it, and the button that applies it or takes it back."""

    edit: Edit
    row: Any
    words: Any
    button: Any


@dataclass(frozen=True)
class ReportView:
    """The components of the report."""

    figures: Any
    fixes: list[Fix]
    others: Any
    again: Any
    encoding: Any

    @property
    def shown(self) -> list[Any]:
        """What `show` fills."""
        parts = [part for fix in self.fixes for part in (fix.row, fix.words, fix.button)]
        return [self.figures, *parts, self.others, self.again, self.encoding]


@dataclass(frozen=True)
class ProblemsView:
    """The components of the list of problems."""

    kind: Any
    table: Any

    @property
    def shown(self) -> list[Any]:
        """What `problems` fills."""
        return [self.kind, self.table]


def place() -> ReportView:
    """Put the report on the page."""
    figures = gr.HTML(elem_id="dataset-report")
    fixes = []
    with gr.Column(elem_id="dataset-fixes", elem_classes="fixes"):
        for edit in get_args(Edit):
            name = edit.replace("_", "-")
            with gr.Row(visible=False, elem_classes="fix") as row:
                words = gr.HTML(elem_id=f"dataset-finding-{name}")
                button = gr.Button(EDITS[edit], size="sm", elem_id=f"dataset-fix-{name}", min_width=120)
            fixes.append(Fix(edit, row, words, button))
    others = gr.HTML(elem_id="dataset-findings")
    with gr.Row(elem_classes="actions"):
        again = gr.Button("Choose the columns", size="sm", visible=False, elem_id="dataset-remap", min_width=140)
        encoding = gr.Button("", size="sm", visible=False, elem_id="dataset-recode", min_width=140)
    return ReportView(figures, fixes, others, again, encoding)


def place_problems() -> ProblemsView:
    """Put the list of problems on the page."""
    kind = gr.Dropdown(
        choices=[ALL], value=ALL, label="Which problems", filterable=False, interactive=True,
        elem_id="dataset-problem-kind",
    )  # fmt: skip
    return ProblemsView(kind, gr.HTML(elem_id="dataset-problems"))


def wire(bound: Edge, view: ReportView, listed: ProblemsView, chosen: Any, whence: Sources) -> list[Any]:
    """Bind the fixes and the filter; gives the events after which the dataset is another."""
    bound.on(listed.kind.input, _filtered, [chosen, listed.kind], [listed.table])
    ends = []
    for fix in view.fixes:

        def change(studio: Studio, id: str, progress: gr.Progress, edit: Edit = fix.edit) -> Any:
            return _change(studio, id, edit, progress)

        begun = bound.on(
            fix.button.click, lambda _: (gr.update(visible=True), ""), outputs=[whence.cancel, whence.problem]
        )
        done = bound.on(
            begun.then, change, [chosen], [whence.problem],
            show_progress="full", show_progress_on=[view.figures], trigger_mode="once",
        )  # fmt: skip
        ends.append(sources.watch(bound, done.then, whence))
    return ends


def _change(studio: Studio, id: str, edit: Edit, progress: gr.Progress) -> Any:
    told = edge.by_bytes(progress, "Checking")
    try:
        if edit in studio.dataset(id).edits:
            studio.undo_fix(id, edit, told)
        else:
            studio.apply_fix(id, edit, told)
    except FtappError as error:
        return edge.in_place(error)
    return gr.skip()


def show(info: DatasetInfo | None) -> tuple[Any, ...]:
    """Updates for `ReportView.shown`."""
    if info is None:
        nothing = markup.empty("No dataset chosen.", "Upload a file, paste rows, or choose the demo.")
        hidden = gr.update(visible=False)
        return nothing, *(hidden, "", hidden) * len(EDITS), "", hidden, hidden
    updates: list[Any] = []
    for edit in get_args(Edit):
        words = _why(info, edit)
        applied = edit in info.edits
        button = "Undo" if applied else EDITS[edit]
        updates += [gr.update(visible=bool(words)), words, gr.update(value=button)]
    others = [finding for finding in info.report.findings if finding.fix is None]
    told = "".join(markup.notice("info", _finding(finding)) for finding in others)
    unread = info.report.problem_kinds.keys() & {"unknown_format", "other_format", "preference"}
    mappable = bool(unread) or info.reading.mapping is not None
    offer = info.report.encoding_offer
    encoding = gr.update(visible=offer is not None, value=f"Read it as {offer.encoding}" if offer else "")
    return _figures(info), *updates, told, gr.update(visible=mappable), encoding


def _why(info: DatasetInfo, edit: Edit) -> str:
    """What speaks for a fix, or that it is in force; nothing if neither."""
    report = info.report
    if edit in info.edits:
        count = report.problem_count if edit == "drop_problems" else report.left_out.get(edit, 0)
        rows = f" ({count:,} row{'s' if count != 1 else ''})" if count else ""
        return markup.notice("success", IN_FORCE[edit].removesuffix(".") + rows + ".")
    if edit == "drop_problems" and report.problem_count:
        told = f"{report.problem_count:,} of {report.rows:,} rows cannot be used; see Problems."
        return markup.notice("warning", told)
    found = [finding for finding in report.findings if finding.fix == edit]
    return "".join(markup.notice("warning", _finding(finding)) for finding in found)


def _finding(finding: Finding) -> str:
    named = [f"{row.row:,}" for row in finding.rows[:ROWS_NAMED]]
    more = " …" if finding.count > len(named) else ""
    rows = f" Row{'s' if len(named) > 1 else ''} {', '.join(named)}{more}" if named else ""
    return f"{finding.message.removesuffix('.')}.{rows}"


def _figures(info: DatasetInfo) -> str:
    report, source = info.report, info.source
    pairs: list[tuple[str, object]] = [
        ("Format", _formats(report)),
        ("Rows", f"{report.rows:,}"),
        ("Usable", f"{report.valid:,}"),
        ("With problems", f"{report.problem_count:,}"),
    ]
    if report.left_out:
        pairs.append(("Left out by fixes", f"{sum(report.left_out.values()):,}"))
    if report.figures.longest_answer:
        pairs.append(("Answer, median", f"{report.figures.median_answer:,} characters"))
    pairs.append(("Size", markup.size(info.bytes)))
    foreign = [encoding for encoding in report.encodings if encoding != "utf-8"]
    if foreign:
        pairs.append(("Read as", ", ".join(foreign)))
    parts = [f"<h3>{markup.text(info.filename)}</h3>"]
    if source:
        where = f"{source.id} · {source.config} · {source.split} · revision {source.revision[:8]}"
        parts.append(f"<p class='ft-small'>From the Hub: {markup.text(where)}</p>")
    parts.append(markup.facts(pairs))
    if not info.unresolved:
        left = " that are left" if info.left_out else ""
        all_rows = "The one row" if report.valid == 1 else f"All {report.valid:,} rows"
        parts.append(markup.notice("success", f"{all_rows}{left} can be used."))
    parts += [markup.notice("info", advice.message) for advice in report.advice]
    return "".join(parts)


def _formats(report: Report) -> str:
    """The format of the rows; of several, how many rows have each."""
    known = sorted(report.formats.items(), key=lambda found: -found[1])
    told = [(FORMATS[format], count) for format, count in known if format in FORMATS]
    return ", ".join(f"{name} ({count:,})" if len(told) > 1 else name for name, count in told) or report.format


def problems(info: DatasetInfo | None) -> tuple[Any, Any]:
    """Updates for `ProblemsView.shown`."""
    kinds = info.report.problem_kinds if info else {}
    choices = [(f"All ({sum(kinds.values()):,})", ALL)]
    choices += [(f"{kind.replace('_', ' ')} ({count:,})", kind) for kind, count in kinds.items()]
    return gr.update(choices=choices, value=ALL, visible=bool(kinds)), _table(info, ALL)


def _filtered(studio: Studio, id: str | None, kind: str) -> str:
    return _table(studio.dataset(id) if id else None, kind)


def _table(info: DatasetInfo | None, kind: str) -> str:
    if info is None or not info.report.problem_count:
        return markup.empty("No row has a problem." if info else "No dataset chosen.")
    report = info.report
    found = [problem for problem in report.problems if kind in (ALL, problem.kind)]
    rows = []
    for problem in found[:PROBLEMS_SHOWN]:
        line = f"{problem.line:,}" if problem.line else "–"
        where = f"{problem.file}: {line}" if problem.file else line
        rows.append((f"{problem.row:,}", where, problem.message, problem.excerpt, problem.advice))
    count = report.problem_count if kind == ALL else sum(n for k, n in report.problem_kinds.items() if k == kind)
    more = count - len(rows)
    rest = f"<p class='ft-small'>… and {more:,} more: the CSV file has them all.</p>" if more else ""
    headers = ("Row", "Line", "Problem", "Excerpt", "What to do")
    return markup.table(headers, rows, "Problems", "problems") + rest
