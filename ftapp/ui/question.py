"""What a person must say before files can be read: what their text is, and which columns hold what."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.errors import FtappError
from ftapp.contract.formats import Mapping
from ftapp.contract.report import Reading
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
    def filled(self) -> list[Any]:
        """What asking and `answered` fill."""
        shown = [self.pending, self.box, self.words, self.encoding, self.mapping, self.shape]
        return [*shown, *self.columns.values(), self.preview, self.instead]

    @property
    def answers(self) -> list[Any]:
        """What is answered about columns: `mapping_of` reads all but the first."""
        return [self.pending, self.shape, *self.columns.values()]


def place(instead: Any) -> Question:
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


def wire(bound: Edge, asked: Question) -> None:
    """Bind what shows the consequences of an answer; the answers themselves are taken where rows come from."""
    columns = list(asked.columns.values())
    shaped = bound.on(asked.shape.input, _shaped, [asked.shape], columns)
    bound.on(shaped.then, _mapped, asked.answers, [asked.preview])
    for one in columns:
        bound.on(one.input, _mapped, asked.answers, [asked.preview], trigger_mode="always_last")
    bound.on(asked.discard.click, _discarded, [asked.pending], asked.filled)


def ask_columns_again(studio: Studio, id: str) -> tuple[Any, ...]:
    """Ask for the columns of a stored dataset: updates for `Question.filled`."""
    info = studio.dataset(id)
    seen = studio.preview_dataset(id, Reading(encoding=info.reading.encoding), PREVIEWED)
    mapping = info.reading.mapping or seen.suggestion
    suggested = mapping.model_dump(exclude_none=True) if mapping else None
    pending = {"dataset": id, "encoding": info.reading.encoding}
    words = markup.notice("info", "Say which columns hold what; the rows are then read anew.")
    return about_columns(studio, pending, words, seen.columns, suggested)


def ask_encoding_again(studio: Studio, id: str) -> tuple[Any, ...]:
    """Ask about the rows of a stored dataset that are not UTF-8: updates for `Question.filled`."""
    offer = studio.dataset(id).report.encoding_offer
    if offer is None:
        return answered()
    words = f"Read as {offer.encoding}, line {offer.line} says: “{offer.excerpt}”. Does that look right?"
    return about_encoding({"dataset": id}, markup.notice("info", words), offer.encoding)


def about_encoding(pending: Pending, words: str, encoding: str) -> tuple[Any, ...]:
    """Ask whether text is in this encoding: updates for `Question.filled`."""
    button = gr.update(value=f"Read it as {encoding}", visible=True)
    columns = (gr.skip(),) * len(ROLES)
    shown = gr.update(visible=True), words, button, gr.update(visible=False), gr.skip()
    return {**pending, "offered": encoding}, *shown, *columns, "", gr.update(visible=False)


def about_columns(
    studio: Studio, pending: Pending, words: str, names: list[str], suggestion: dict[str, str] | None
) -> tuple[Any, ...]:
    """Ask which columns hold what: updates for `Question.filled`."""
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
    """No question any more: updates for `Question.filled`."""
    return {}, gr.update(visible=False), "", *(gr.skip(),) * (len(ROLES) + 3), "", gr.update(visible=True)


def _shaped(_: Studio, shape: str) -> list[Any]:
    return [gr.update(visible=role in SHAPES[shape][1]) for role in ROLES]


def mapping_of(shape: str, columns: tuple[str, ...]) -> Mapping:
    """The mapping that was chosen, whole or not; `columns` one for each of ROLES."""
    named = dict(zip(ROLES, columns, strict=True))
    return Mapping.model_validate({role: named[role] for role in SHAPES[shape][1] if named[role] != NONE})


def _mapped(studio: Studio, pending: Pending, shape: str, *columns: str) -> str:
    """What the first rows become under these columns."""
    mapping = mapping_of(shape, columns)
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
