"""Where a dataset comes from: an upload, pasted rows or the Hub; and what a person must say before it can be read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ftapp.contract.errors import EncodingNeeded, FtappError, MappingNeeded
from ftapp.contract.formats import Mapping
from ftapp.contract.report import DatasetInfo, HubSource, Reading
from ftapp.studio import Studio
from ftapp.ui import edge, markup
from ftapp.ui.edge import Edge

NONE = "–"
"""Stands for no column in a list of columns."""
SHAPES = {
    "pairs": ("A prompt and an answer", ("prompt", "answer", "system")),
    "turns": ("A list of turns", ("messages", "system")),
    "text": ("A plain text", ("text",)),
}
"""What a row may be, and which columns that needs."""
ROLES = {
    "prompt": ("Prompt", "What the user says"),
    "answer": ("Answer", "What the model learns to say"),
    "system": ("System text", "May be left out"),
    "messages": ("Turns", "A list of role and content"),
    "text": ("Text", "Learned whole"),
}
PREVIEWED = 3

Pending = dict[str, Any]
"""What waits for a word: {"upload": id} or {"dataset": id}, and the reading so far; empty if nothing does."""


@dataclass(frozen=True)
class Sources:
    """The places that rows come from."""

    upload: Any
    pasted: Any
    paste: Any
    hub_id: Any
    look: Any
    split: Any
    said: Any
    fetch: Any
    offered: Any
    problem: Any
    cancel: Any


@dataclass(frozen=True)
class Question:
    """What a person is asked about files that do not speak for themselves."""

    pending: Any
    box: Any
    words: Any
    encoding: Any
    mapping: Any
    shape: Any
    columns: dict[str, Any]
    preview: Any
    read: Any
    discard: Any
    instead: Any
    """What steps aside while the question stands."""

    @property
    def asked(self) -> list[Any]:
        """What `ask` and `answered` fill."""
        shown = [self.pending, self.box, self.words, self.encoding, self.mapping, self.shape]
        return [*shown, *self.columns.values(), self.preview, self.instead]


def place() -> Sources:
    """Put the sources on the page."""
    with gr.Tabs(elem_id="dataset-sources"):
        with gr.Tab("Upload"):
            upload = gr.File(
                label="One or several files",
                file_count="multiple",
                height=150,
                elem_id="dataset-upload",
            )
            gr.HTML(
                "<p class='ft-small'>JSONL, JSON, CSV, TSV, Parquet or text, also as .gz. One row a line or record: "
                "<code>messages</code>, ShareGPT, Alpaca, prompt/completion, question/answer, text, or columns "
                "of your own.</p>"
            )
        with gr.Tab("Paste"):
            pasted = gr.Textbox(
                label="Rows",
                placeholder='{"question": "…", "answer": "…"}',
                lines=6,
                max_lines=12,
                elem_id="dataset-pasted",
            )
            paste = gr.Button("Check these rows", size="sm", elem_id="dataset-paste")
        with gr.Tab("Hub"):
            hub_id = gr.Textbox(
                label="Dataset on the Hub", placeholder="owner/name", max_lines=1, elem_id="dataset-hub-id"
            )
            look = gr.Button("Look it up", size="sm", elem_id="dataset-hub-look")
            said = gr.HTML(elem_id="dataset-hub-said")
            split = gr.Dropdown(
                choices=[], label="Config and split", visible=False, filterable=False, interactive=True,
                elem_id="dataset-hub-split",
            )  # fmt: skip
            fetch = gr.Button("Download and check", size="sm", visible=False, elem_id="dataset-hub-fetch")
    problem = gr.HTML(elem_id="dataset-problem")
    cancel = gr.Button("Cancel", size="sm", visible=False, variant="stop", elem_id="dataset-cancel")
    return Sources(upload, pasted, paste, hub_id, look, split, said, fetch, gr.State([]), problem, cancel)


def place_question(instead: Any) -> Question:
    """Put the question on the page, hidden until it is asked; then `instead` steps aside."""
    with gr.Column(visible=False, elem_id="dataset-question", elem_classes="question") as box:
        words = gr.HTML(elem_id="dataset-question-words")
        encoding = gr.Button("", variant="primary", visible=False, elem_id="dataset-encoding")
        with gr.Column(visible=False, elem_id="dataset-mapping") as mapping:
            shape = gr.Radio(
                choices=[(words, name) for name, (words, _) in SHAPES.items()],
                value="pairs",
                label="A row is",
                elem_id="dataset-shape",
            )
            with gr.Row(elem_classes="fields"):
                columns = {role: _column(role) for role in ROLES}
            read = gr.Button("Use these columns", variant="primary", elem_id="dataset-map")
            preview = gr.HTML(elem_id="dataset-mapped")
        with gr.Row(elem_classes="actions"):
            discard = gr.Button("Discard", size="sm", elem_id="dataset-discard", min_width=100)
    return Question(gr.State({}), box, words, encoding, mapping, shape, columns, preview, read, discard, instead)


def _column(role: str) -> Any:
    title, told = ROLES[role]
    return gr.Dropdown(
        choices=[NONE],
        value=NONE,
        label=title,
        info=told,
        filterable=False,
        interactive=True,
        visible=role in SHAPES["pairs"][1],
        min_width=150,
        elem_id=f"dataset-column-{role}",
        elem_classes=["field"],
    )


def wire(bound: Edge, sources: Sources, question: Question, chosen: Any, shown: Any) -> list[Any]:
    """Bind what happens here; gives the events after which there may be a new dataset.

    `chosen` is the list of datasets, `shown` where progress is seen.
    """
    outputs = [chosen, sources.problem, *question.asked]
    working = {"show_progress": "full", "show_progress_on": [shown], "trigger_mode": "once"}
    columns = list(question.columns.values())
    answers = [question.pending, question.shape, *columns]

    def checked(event: Any, handler: Callable[..., Any], inputs: list[Any], more: list[Any], **options: Any) -> Any:
        begun = bound.on(event, lambda _: (gr.update(visible=True), ""), outputs=[sources.cancel, sources.problem])
        done = bound.on(begun.then, handler, inputs, [*outputs, *more], **working, **options)
        return bound.on(done.then, lambda _: gr.update(visible=False), outputs=[sources.cancel])

    ends = [
        checked(sources.upload.upload, _uploaded, [sources.upload], [sources.upload], preprocess=True),
        checked(sources.paste.click, _pasted, [sources.pasted], [sources.pasted]),
        checked(sources.fetch.click, _fetched, [sources.offered, sources.split], []),
        checked(question.encoding.click, _with_encoding, [question.pending], []),
        checked(question.read.click, _with_mapping, answers, []),
    ]
    cancelled = bound.on(sources.cancel.click, lambda studio: studio.cancel_checks(), trigger_mode="multiple")
    bound.on(cancelled.then, lambda _: gr.update(visible=False), outputs=[sources.cancel])
    for event in (sources.look.click, sources.hub_id.submit):
        bound.on(
            event, _looked_up, [sources.hub_id],
            [sources.said, sources.split, sources.fetch, sources.offered],
            show_progress="minimal", show_progress_on=[sources.said],
        )  # fmt: skip
    shaped = bound.on(question.shape.input, _shaped, [question.shape], columns)
    bound.on(shaped.then, _mapped, answers, [question.preview])
    for one in columns:
        bound.on(one.input, _mapped, answers, [question.preview], trigger_mode="always_last")
    bound.on(question.discard.click, _discarded, [question.pending], question.asked)
    return ends


def ask_again(studio: Studio, id: str) -> tuple[Any, ...]:
    """Ask for the columns of a stored dataset: updates for `Question.asked`."""
    info = studio.dataset(id)
    seen = studio.preview_dataset(id, Reading(encoding=info.reading.encoding), PREVIEWED)
    mapping = info.reading.mapping or seen.suggestion
    suggested = mapping.model_dump(exclude_none=True) if mapping else None
    pending = {"dataset": id, "encoding": info.reading.encoding}
    words = markup.notice("info", "Say which columns hold what; the rows are then read anew.")
    return _ask_columns(studio, pending, words, seen.columns, suggested)


def ask_encoding(studio: Studio, id: str) -> tuple[Any, ...]:
    """Ask about the rows of a stored dataset that are not UTF-8: updates for `Question.asked`."""
    offer = studio.dataset(id).report.encoding_offer
    if offer is None:
        return answered()
    words = f"Read as {offer.encoding}, line {offer.line} says: “{offer.excerpt}”. Does that look right?"
    return _ask_encoding({"dataset": id}, markup.notice("info", words), offer.encoding)


def _uploaded(studio: Studio, paths: list[str] | None, progress: gr.Progress) -> tuple[Any, ...]:
    if not paths:
        return *_nothing(), None
    files = [(Path(path), Path(path).name) for path in paths]  # moved away: Gradio's cache can be read by address
    return *_attempt(studio, lambda: {"upload": studio.hold_files(files).id}, progress), None


def _pasted(studio: Studio, text: str, progress: gr.Progress) -> tuple[Any, ...]:
    settled = _attempt(studio, lambda: {"upload": studio.hold_pasted(text or "").id}, progress)
    return *settled, "" if settled[0] is not None and settled[1] == "" else gr.skip()


def _fetched(studio: Studio, offered: list[Any], number: int | None, progress: gr.Progress) -> tuple[Any, ...]:
    if number is None or not offered:
        return _nothing()
    source = HubSource.model_validate(offered[number])
    loading = edge.by_bytes(progress, "Downloading")
    return _attempt(studio, lambda: {"upload": studio.hold_hub_dataset(source, loading).id}, progress)


def _looked_up(studio: Studio, id: str) -> tuple[Any, ...]:
    hidden = gr.update(visible=False)
    if not id.strip():
        return markup.notice("info", "Type the name of a dataset, such as owner/name."), hidden, hidden, []
    try:
        found = studio.hub_dataset(id.strip().removeprefix("https://huggingface.co/datasets/"))
    except FtappError as error:
        return edge.in_place(error), hidden, hidden, []
    choices = [
        (f"{source.config} · {source.split} · {markup.size(source.bytes)}", number)
        for number, source in enumerate(found.sources)
    ]
    preferred = next((n for n, source in enumerate(found.sources) if source.split == "train"), 0)
    gated = " · gated" if found.gated else ""
    words = f"{found.id} at {found.revision[:8]} · licence {found.licence or 'not stated'}{gated}"
    return (
        f"<p class='ft-small'>{markup.text(words)}</p>",
        gr.update(choices=choices, value=preferred, visible=True),
        gr.update(visible=True),
        [source.model_dump(mode="json") for source in found.sources],
    )


def _with_encoding(studio: Studio, pending: Pending, progress: gr.Progress) -> tuple[Any, ...]:
    return _attempt(studio, lambda: {**pending, "encoding": pending["offered"]}, progress)


def _with_mapping(
    studio: Studio, pending: Pending, shape: str, *columns: str, progress: gr.Progress
) -> tuple[Any, ...]:
    mapping = _mapping(shape, columns)
    if not mapping.whole:
        needed = " and ".join(ROLES[role][0].lower() for role in SHAPES[shape][1] if role != "system")
        edge.warn(f"Choose a column for: {needed}.")
        return _nothing()
    return _attempt(studio, lambda: {**pending, "mapping": mapping}, progress)


def _attempt(studio: Studio, take: Callable[[], Pending], progress: gr.Progress) -> tuple[Any, ...]:
    """Try to make a dataset of what is taken; a question or a problem takes the place of its result."""
    pending: Pending = {}
    told = edge.by_bytes(progress, "Checking")
    try:
        pending = take()
        reading = Reading(encoding=pending.get("encoding"), mapping=pending.get("mapping"))
        info = _read(studio, pending, reading, told)
    except EncodingNeeded as error:
        asked = _ask_encoding(pending, edge.in_place(error, "info"), error.encoding)
        return gr.skip(), "", *asked
    except MappingNeeded as error:
        asked = _ask_columns(studio, pending, edge.in_place(error, "info"), error.columns, error.suggestion)
        return gr.skip(), "", *asked
    except FtappError as error:
        kept = "dataset" in pending  # a stored one stays as it was; an upload is gone
        return gr.skip(), edge.in_place(error), *((gr.skip(),) * len(answered()) if kept else answered())
    return info.id, "", *answered()


def _read(studio: Studio, pending: Pending, reading: Reading, progress: Callable[[int, int], None]) -> DatasetInfo:
    if "dataset" in pending:
        return studio.read_again(pending["dataset"], reading, progress)
    return studio.add_upload(pending["upload"], progress, reading)


def _ask_encoding(pending: Pending, words: str, encoding: str) -> tuple[Any, ...]:
    button = gr.update(value=f"Read it as {encoding}", visible=True)
    columns = (gr.skip(),) * len(ROLES)
    shown = gr.update(visible=True), words, button, gr.update(visible=False), gr.skip()
    return {**pending, "offered": encoding}, *shown, *columns, "", gr.update(visible=False)


def _ask_columns(
    studio: Studio, pending: Pending, words: str, names: list[str], suggestion: dict[str, str] | None
) -> tuple[Any, ...]:
    suggested = suggestion or {}
    shape = next((s for s, (_, roles) in SHAPES.items() if roles[0] in suggested), "pairs")
    values = [suggested.get(role, NONE) for role in ROLES]
    columns = [
        gr.update(choices=[NONE, *names], value=value, visible=role in SHAPES[shape][1])
        for role, value in zip(ROLES, values, strict=True)
    ]
    pending = {key: value for key, value in pending.items() if key != "mapping"}
    seen = _mapped(studio, pending, shape, *values)
    shown = gr.update(visible=True), words, gr.update(visible=False), gr.update(visible=True), gr.update(value=shape)
    return pending, *shown, *columns, seen, gr.update(visible=False)


def answered() -> tuple[Any, ...]:
    """No question any more: updates for `Question.asked`."""
    return {}, gr.update(visible=False), "", *(gr.skip(),) * (len(ROLES) + 3), "", gr.update(visible=True)


def _nothing() -> tuple[Any, ...]:
    return gr.skip(), gr.skip(), *(gr.skip(),) * len(answered())


def _shaped(_: Studio, shape: str) -> list[Any]:
    return [gr.update(visible=role in SHAPES[shape][1]) for role in ROLES]


def _mapping(shape: str, columns: tuple[str, ...]) -> Mapping:
    named = dict(zip(ROLES, columns, strict=True))
    return Mapping.model_validate({role: named[role] for role in SHAPES[shape][1] if named[role] != NONE})


def _mapped(studio: Studio, pending: Pending, shape: str, *columns: str) -> str:
    """What the first rows become under these columns."""
    mapping = _mapping(shape, columns)
    reading = Reading(encoding=pending.get("encoding"), mapping=mapping if mapping.whole else None)
    try:
        if "dataset" in pending:
            seen = studio.preview_dataset(pending["dataset"], reading, PREVIEWED)
        elif "upload" in pending:
            seen = studio.preview_upload(pending["upload"], reading, PREVIEWED)
        else:
            return ""
    except FtappError as error:
        return edge.in_place(error)
    parts = []
    for row in seen.rows:
        cells = markup.table(list(row.cells), [list(row.cells.values())], f"Row {row.row} as the file has it")
        if not mapping.whole:
            become = "<p class='ft-small'>Choose the columns above to see what becomes of it.</p>"
        elif row.example:
            become = markup.turns(row.example)
        else:
            become = markup.notice("warning", row.problem)
        parts.append(f"<section class='ft-row'><h4>Row {row.row}</h4>{cells}{become}</section>")
    return "".join(parts)


def _discarded(studio: Studio, pending: Pending) -> tuple[Any, ...]:
    if "upload" in pending:
        studio.discard_upload(pending["upload"])
    return answered()
