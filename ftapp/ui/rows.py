"""A dataset's rows as conversations, page by page, or those that contain some words."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.studio import Studio
from ftapp.ui import markup
from ftapp.ui.edge import Edge

PAGE = 5

Place = dict[str, Any]
"""Where the view stands: {"start": first row's number, "before": [where the earlier pages began], "next": ...}."""
TOP: Place = {"start": 0, "before": [], "next": None}

Now = dict[str, str | None]
"""What a page looks at: {"dataset": id, "measuring": id}. A handler holds the page's own dict, not a copy of it, and so
sees what is chosen while it is under way."""


@dataclass(frozen=True)
class RowsView:
    """The components of the list of rows."""

    search: Any
    preview: Any
    place: Any
    back: Any
    where: Any
    forth: Any

    @property
    def shown(self) -> list[Any]:
        """What `show` fills."""
        return [self.preview, self.place, self.where, self.back, self.forth]


def place() -> RowsView:
    """Put the list of rows on the page."""
    search = gr.Textbox(
        label="Rows with these words", placeholder="Enter searches", max_lines=1, elem_id="dataset-search"
    )
    preview = gr.HTML(elem_id="dataset-preview")
    with gr.Row(elem_classes="pager"):
        back = gr.Button("← Earlier rows", size="sm", elem_id="dataset-back", min_width=90)
        where = gr.HTML(elem_id="dataset-where")
        forth = gr.Button("Later rows →", size="sm", elem_id="dataset-forth", min_width=90)
    return RowsView(search, preview, gr.State(TOP), back, where, forth)


def wire(bound: Edge, view: RowsView, chosen: Any, now: Any) -> None:
    """Bind searching and paging; `now` says which dataset is looked at by then."""
    for event in (view.search.submit, view.search.blur):
        bound.on(event, _found, [now, chosen, view.search], view.shown, trigger_mode="always_last")
    bound.on(view.back.click, _earlier, [now, chosen, view.search, view.place], view.shown)
    bound.on(view.forth.click, _later, [now, chosen, view.search, view.place], view.shown)


def first(studio: Studio, id: str | None, words: str) -> tuple[Any, ...]:
    """The first page: updates for `RowsView.shown`."""
    return _show(studio, id, words, TOP)


def _found(studio: Studio, now: Now, id: str | None, words: str) -> tuple[Any, ...]:
    return _unless_late(studio, now, id, words, TOP)


def _earlier(studio: Studio, now: Now, id: str | None, words: str, at: Place) -> tuple[Any, ...]:
    before = at["before"]
    if not before:
        return _unless_late(studio, now, id, words, TOP)
    return _unless_late(studio, now, id, words, {"start": before[-1], "before": before[:-1], "next": None})


def _later(studio: Studio, now: Now, id: str | None, words: str, at: Place) -> tuple[Any, ...]:
    if at["next"] is None:
        return _unless_late(studio, now, id, words, at)
    following = {"start": at["next"], "before": [*at["before"], at["start"]], "next": None}
    return _unless_late(studio, now, id, words, following)


def _unless_late(studio: Studio, now: Now, id: str | None, words: str, at: Place) -> tuple[Any, ...]:
    """A page of rows, unless another dataset was chosen while they were looked for."""
    shown = _show(studio, id, words, at)
    return shown if now.get("dataset") == id else (gr.skip(),) * len(shown)


def _show(studio: Studio, id: str | None, words: str, at: Place) -> tuple[Any, ...]:
    off = gr.update(interactive=False)
    if not id:
        return "", TOP, "", off, off
    start, words = at["start"], (words or "").strip()
    rows = studio.dataset(id).report.valid
    if words:
        found = studio.search_examples(id, words, start, PAGE + 1)
    else:
        found = list(enumerate(studio.examples(id, start, PAGE + 1), start))
    following = found[PAGE][0] if len(found) > PAGE else None
    found = found[:PAGE]
    if not found:
        return markup.empty(f"No row contains “{words}”."), TOP, "", off, off
    html = "".join(markup.row(example, number + 1) for number, example in found)
    ends = f"Rows {found[0][0] + 1:,}–{found[-1][0] + 1:,} of {rows:,}"
    at = {**at, "next": following}
    earlier, later = gr.update(interactive=bool(at["before"])), gr.update(interactive=following is not None)
    return html, at, f"<p class='where'>{ends}</p>", earlier, later
