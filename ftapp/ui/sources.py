"""Where a dataset comes from: an upload, pasted rows or the Hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ftapp.contract.errors import EncodingNeeded, FtappError, MappingNeeded
from ftapp.contract.report import DatasetInfo, HubSource, Reading
from ftapp.studio import Studio
from ftapp.ui import edge, markup, question
from ftapp.ui.edge import Edge
from ftapp.ui.question import ROLES, SHAPES, Pending, Question


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


def wire(bound: Edge, sources: Sources, asked: Question, chosen: Any, shown: Any) -> list[Any]:
    """Bind what happens here; gives the events after which there may be a new dataset.

    `chosen` is the list of datasets, `shown` where progress is seen.
    """
    outputs = [chosen, sources.problem, *asked.filled]
    working = {"show_progress": "full", "show_progress_on": [shown], "trigger_mode": "once"}

    def checked(event: Any, handler: Callable[..., Any], inputs: list[Any], more: list[Any], **options: Any) -> Any:
        begun = bound.on(event, lambda _: (gr.update(visible=True), ""), outputs=[sources.cancel, sources.problem])
        done = bound.on(begun.then, handler, inputs, [*outputs, *more], **working, **options)
        return bound.on(done.then, lambda _: gr.update(visible=False), outputs=[sources.cancel])

    ends = [
        checked(sources.upload.upload, _uploaded, [sources.upload], [sources.upload], preprocess=True),
        checked(sources.paste.click, _pasted, [sources.pasted], [sources.pasted]),
        checked(sources.fetch.click, _fetched, [sources.offered, sources.split], []),
        checked(asked.encoding.click, _with_encoding, [asked.pending], []),
        checked(asked.read.click, _with_mapping, asked.answers, []),
    ]
    cancelled = bound.on(sources.cancel.click, lambda studio: studio.cancel_checks(), trigger_mode="multiple")
    bound.on(cancelled.then, lambda _: gr.update(visible=False), outputs=[sources.cancel])
    for event in (sources.look.click, sources.hub_id.submit):
        bound.on(
            event, _looked_up, [sources.hub_id],
            [sources.said, sources.split, sources.fetch, sources.offered],
            show_progress="minimal", show_progress_on=[sources.said],
        )  # fmt: skip
    question.wire(bound, asked)
    return ends


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
    mapping = question.mapping_of(shape, columns)
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
        asked = question.about_encoding(pending, edge.in_place(error, "info"), error.encoding)
        return gr.skip(), "", *asked
    except MappingNeeded as error:
        asked = question.about_columns(studio, pending, edge.in_place(error, "info"), error.columns, error.suggestion)
        return gr.skip(), "", *asked
    except FtappError as error:
        kept = "dataset" in pending  # a stored one stays as it was; an upload is gone
        return (
            gr.skip(),
            edge.in_place(error),
            *((gr.skip(),) * len(question.answered()) if kept else question.answered()),
        )
    return info.id, "", *question.answered()


def _read(studio: Studio, pending: Pending, reading: Reading, progress: Callable[[int, int], None]) -> DatasetInfo:
    if "dataset" in pending:
        return studio.read_again(pending["dataset"], reading, progress)
    return studio.add_upload(pending["upload"], progress, reading)


def _nothing() -> tuple[Any, ...]:
    return gr.skip(), gr.skip(), *(gr.skip(),) * len(question.answered())
