"""A dataset for a chosen base model: how long its rows are, and each row as the tokens that training will see."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.chat import Loading
from ftapp.contract.config import DataConfig, ModelConfig
from ftapp.contract.errors import FtappError
from ftapp.contract.preview import Lengths, Row, Rows
from ftapp.studio import DEMO, Studio
from ftapp.ui import edge, form, markup
from ftapp.ui.edge import Edge
from ftapp.ui.rows import Now

PAGE = 5
WIDTH, HEIGHT = 600, 120
LEGEND = (
    "<p class='ft-small ft-legend'><span class='ft-token trained'>trained</span> the model learns to write this "
    "<span class='ft-token'>read</span> it only reads this <span class='ft-token special'>special</span> "
    "stands for no text, such as the end of a turn</p>"
)
NOT_YET = markup.empty("Not measured yet.", "Choose a base model: only its tokenizer is loaded.")
TOKENS_SHOWN = 2000
REFUSALS_SHOWN = 20
MODEL_FIELDS = [field for field in form.fields_of(ModelConfig) if field.name == "id"]
LENGTH_FIELDS = [field for field in form.fields_of(DataConfig) if field.name == "max_length"]


@dataclass(frozen=True)
class TokensView:
    """The components of the token view."""

    model: Any
    max_length: Any
    measure: Any
    said: Any
    lengths: Any
    take: Any
    suggested: Any
    search: Any
    rows: Any
    place: Any
    back: Any
    where: Any
    forth: Any

    @property
    def cleared(self) -> list[Any]:
        """What `cleared` empties."""
        measured = [self.lengths, self.take, self.suggested, self.search]
        return [self.said, *measured, self.rows, self.place, self.where, self.back, self.forth]

    @property
    def page(self) -> list[Any]:
        """What a page of rows fills."""
        return [self.said, self.rows, self.place, self.where, self.back, self.forth]


def place() -> TokensView:
    """Put the token view on the page."""
    with gr.Row(elem_classes="fields asking"):
        model = gr.Textbox(
            label="Base model", value=DEMO, max_lines=1, elem_id="tokens-model", min_width=180, scale=3,
            placeholder="demo, owner/name or a folder",
        )  # fmt: skip
        max_length = gr.Textbox(
            label="Maximum length", value="auto", max_lines=1, elem_id="tokens-max-length", min_width=120, scale=1
        )
        measure = gr.Button("Measure", variant="primary", elem_id="tokens-measure", min_width=100, scale=1)
    said = gr.HTML(NOT_YET, elem_id="tokens-said")
    lengths = gr.HTML(elem_id="tokens-lengths")
    take = gr.Button("Train with this model and length →", size="sm", visible=False, elem_id="tokens-take")
    search = gr.Textbox(
        label="Rows with these words", placeholder="Enter searches", max_lines=1, visible=False, elem_id="tokens-search"
    )
    rows = gr.HTML(elem_id="tokens-rows")
    with gr.Row(elem_classes="pager"):
        back = gr.Button("← Earlier rows", size="sm", visible=False, elem_id="tokens-back", min_width=90)
        where = gr.HTML(elem_id="tokens-where")
        forth = gr.Button("Later rows →", size="sm", visible=False, elem_id="tokens-forth", min_width=90)
    return TokensView(
        model, max_length, measure, said, lengths, take, gr.State(None), search, rows, gr.State(0), back, where, forth
    )


def wire(bound: Edge, view: TokensView, chosen: Any, now: Any) -> None:
    """Bind measuring, searching and paging; `now` says which dataset is looked at by then."""
    asked = [now, chosen, view.model, view.max_length, view.search]
    measured = [view.said, view.lengths, view.take, view.suggested, view.search, *view.page[1:]]
    paged = [now, chosen, view.model, view.search, view.place]
    for event in (view.measure.click, view.model.submit, view.max_length.submit):
        # another dataset can be measured while this one's tokenizer is loaded: that is then given up
        bound.on(event, _measured, asked, measured, trigger_mode="multiple")
    bound.on(view.search.submit, _first, paged, view.page, trigger_mode="once")
    bound.on(view.back.click, _earlier, paged, view.page, trigger_mode="once")
    bound.on(view.forth.click, _later, paged, view.page, trigger_mode="once")


def cleared() -> tuple[Any, ...]:
    """Another dataset was chosen: updates for `TokensView.cleared`."""
    hidden = gr.update(visible=False)
    return NOT_YET, "", hidden, None, hidden, "", 0, "", hidden, hidden


def _measured(
    studio: Studio, now: Now, id: str | None, model: str, limit: str, words: str
) -> Iterator[tuple[Any, ...]]:
    """Measure, then show the first rows, until another dataset is chosen."""
    if id and now.get("measuring") == id:
        return
    now.update(dataset=id, measuring=id)
    nothing = (gr.skip(),) * 10  # Gradio sends the last word again at the end: it has to be this one
    try:
        failed = False
        for updates in _measure(studio, id, model, limit):
            failed = updates[3] is None
            yield (*updates, *nothing[:5]) if now["dataset"] == id else nothing
        if now["dataset"] != id:
            yield nothing
            return  # to ask for its rows would end what is asked of the other one
        for said, *page in _page(studio, now, id, model, words, 0):
            yield gr.skip() if failed else said, *nothing[:4], *page
    finally:
        if now["measuring"] == id:
            now["measuring"] = None


def _measure(studio: Studio, id: str | None, model: str, limit: str) -> Iterator[tuple[Any, ...]]:
    """Load the tokenizer, then say how long the rows are."""
    same = (gr.skip(),) * 4
    if not id:
        yield markup.empty("No dataset chosen."), *same
        return
    try:
        base = form.parse(ModelConfig, {"id": model}, MODEL_FIELDS)
        data = form.parse(DataConfig, {"max_length": limit}, LENGTH_FIELDS, dataset=id)
        longest = None if data.max_length == "auto" else data.max_length
        yield _waiting("starting"), *same
        with closing(studio.measure(id, base, longest)) as replies:  # type: ignore[type-var]
            for reply in replies:
                if isinstance(reply, Loading):
                    yield _waiting(reply.name), *same
                elif isinstance(reply, Lengths):
                    taken = {"dataset": id, "model": model, "max_length": str(reply.max_length)}
                    words = f"Train with {base.public_name} and a maximum length of {reply.max_length:,} →"
                    yield "", draw(reply), gr.update(visible=True, value=words), taken, gr.update(visible=True)
    except FtappError as error:
        yield edge.in_place(error), "", gr.update(visible=False), None, gr.update(visible=False)


def _first(studio: Studio, now: Now, id: str | None, model: str, words: str, _: int) -> Iterator[tuple[Any, ...]]:
    yield from _page(studio, now, id, model, words, 0)


def _earlier(studio: Studio, now: Now, id: str | None, model: str, words: str, start: int) -> Iterator[tuple[Any, ...]]:
    yield from _page(studio, now, id, model, words, max(0, start - PAGE))


def _later(studio: Studio, now: Now, id: str | None, model: str, words: str, start: int) -> Iterator[tuple[Any, ...]]:
    yield from _page(studio, now, id, model, words, start + PAGE)


def _page(studio: Studio, now: Now, id: str | None, model: str, words: str, start: int) -> Iterator[tuple[Any, ...]]:
    """A page of rows, unless another dataset is chosen meanwhile."""
    for updates in _rows(studio, id, model, words, start):
        yield updates if now.get("dataset") == id else (gr.skip(),) * 6


def _rows(studio: Studio, id: str | None, model: str, words: str, start: int) -> Iterator[tuple[Any, ...]]:
    if not id:
        return
    same = (gr.skip(),) * 5
    try:
        base = form.parse(ModelConfig, {"id": model}, MODEL_FIELDS)
        with closing(studio.token_rows(id, base, start, PAGE, words or "")) as replies:  # type: ignore[type-var]
            for reply in replies:
                if isinstance(reply, Loading):
                    yield _waiting(reply.name), *same
                elif isinstance(reply, Rows):
                    yield _drawn(reply, start)
    except FtappError as error:
        yield edge.in_place(error), *same


def _drawn(reply: Rows, start: int) -> tuple[Any, ...]:
    if not reply.rows:
        hidden = gr.update(visible=False)
        return "", markup.empty("No row contains these words."), 0, "", hidden, hidden
    end = start + len(reply.rows)
    where = f"<p class='where'>{start + 1:,}–{end:,} of {reply.found:,} rows</p>"
    back = gr.update(visible=True, interactive=start > 0)
    forth = gr.update(visible=True, interactive=end < reply.found)
    return "", LEGEND + "".join(_row(row) for row in reply.rows), start, where, back, forth


def _row(row: Row) -> str:
    line = f" · line {row.line:,}" if row.line else ""
    if row.problem:
        return (
            f"<section class='ft-row'><h4>Row {row.row:,}{line}</h4>{markup.notice('warning', row.problem)}</section>"
        )
    pieces = []
    for piece in row.pieces[:TOKENS_SHOWN]:
        kind = " special" if piece.special else ""
        kind += " trained" if piece.trained else ""
        words = markup.text(piece.text).replace("\n", "<span class='newline'>⏎</span>\n")
        pieces.append(f"<span class='ft-token{kind}'>{words}</span>")
    more = len(row.pieces) - TOKENS_SHOWN
    rest = f" … and {more:,} more" if more > 0 else ""
    told = f"Row {row.row:,}{line} · {row.tokens:,} tokens, {row.trained:,} of them trained"
    return f"<section class='ft-row'><h4>{told}</h4><div class='ft-tokens'>{''.join(pieces)}{rest}</div></section>"


def _waiting(what: str) -> str:
    return f"<div class='ft-stats waiting'>{markup.text(what[:1].upper() + what[1:])} …</div>"


def draw(lengths: Lengths) -> str:
    """The lengths: a histogram, figures, what the maximum length does, and the rows that the template refuses."""
    of = lengths.rows
    sampled = f" drawn from {lengths.of_rows:,}" if of + lengths.refused < lengths.of_rows else ""
    cut = lengths.answers_cut
    figures = markup.facts(
        [
            ("Half of the rows up to", f"{lengths.p50:,} tokens"),
            ("95 %", f"{lengths.p95:,}"),
            ("99 %", f"{lengths.p99:,}"),
            ("Longest", f"{lengths.longest:,}"),
            ("Suggested maximum", f"{lengths.suggested:,}"),
            ("Model's context", f"{lengths.context:,}"),
            ("Tokens per epoch", markup.quantity(lengths.tokens_per_epoch)),
        ]
    )
    if lengths.longer:
        lose = "1 answer loses its end" if cut == 1 else f"{cut:,} answers lose their end"
        told = (
            f"With a maximum length of {lengths.max_length:,}, {lengths.longer:,} of {of:,} rows "
            f"({_share(lengths.longer, of)}) are too long: they are left out, or, if truncated, {lose} "
            f"({_share(cut, of)}), {lengths.answer_tokens_lost:.2%} of all answer tokens."
        )
        effect = markup.notice("warning", told)
    else:
        effect = markup.notice("success", f"No row is longer than {lengths.max_length:,} tokens: no answer is cut.")
    refused = ""
    if lengths.refused:
        told = (
            f"The model's chat template refuses {lengths.refused:,} rows: a training would end at the first of them. "
            "Correct them, apply a fix above, or choose another model."
        )
        rows = [(f"{r.row:,}", f"{r.line:,}" if r.line else "–", r.message) for r in lengths.refusals[:REFUSALS_SHOWN]]
        refused = markup.notice("warning", told) + markup.table(
            ("Row", "Line", "What the template says"), rows, "Refused"
        )
    return f"<p class='ft-small'>Measured: {of:,} rows{sampled}.</p>{_histogram(lengths)}{figures}{effect}{refused}"


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.1%}"


def _histogram(lengths: Lengths) -> str:
    """Rows by their length in tokens."""
    end, most = lengths.edges[-1], max(lengths.counts)
    bars = []
    for low, high, count in zip(lengths.edges, lengths.edges[1:], lengths.counts, strict=False):
        if count:
            height = max(1.0, HEIGHT * count / most)
            left, width = WIDTH * low / end, max(1.0, WIDTH * (high - low) / end - 1)
            told = f"{low + 1:,} to {high:,} tokens: {count:,} row{'s' if count != 1 else ''}"
            bars.append(
                f"<rect x='{left:.1f}' y='{HEIGHT - height:.1f}' width='{width:.1f}' height='{height:.1f}'>"
                f"<title>{told}</title></rect>"
            )
    marks = [("p50", lengths.p50), ("p95", lengths.p95), ("p99", lengths.p99), ("limit", lengths.max_length)]
    lines = [
        f"<line class='{name}' x1='{WIDTH * at / end:.1f}' x2='{WIDTH * at / end:.1f}' y1='0' y2='{HEIGHT}'>"
        f"<title>{name}: {at:,} tokens</title></line>"
        for name, at in marks
        if at <= end
    ]
    return (
        f"<figure class='ft-histogram'><svg viewBox='0 0 {WIDTH} {HEIGHT}' preserveAspectRatio='none' role='img' "
        f"aria-label='Rows by their length in tokens'>{''.join(bars)}{''.join(lines)}</svg>"
        f"<figcaption><span>0</span><span>tokens per row · lines: half, 95 %, 99 % of the rows, maximum length</span>"
        f"<span>{end:,}</span></figcaption></figure>"
    )
