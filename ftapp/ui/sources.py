"""Where a dataset comes from: an upload, pasted rows or the Hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ftapp.contract.errors import DatasetError, EncodingNeeded, FtappError, MappingNeeded
from ftapp.contract.report import DatasetInfo, HubSource, Reading
from ftapp.studio import Studio
from ftapp.ui import edge, markup, question
from ftapp.ui.edge import Edge
from ftapp.ui.question import ROLES, SHAPES, Pending, Question

WATCH_SECONDS = 2
TAKE = "files => [files, null]"
"""In the browser: the place is free for the next upload as soon as this one is under way."""
CLEAR = "(text, sent) => text === sent ? '' : text"
"""In the browser: rows that were typed during the check of others stay."""


@dataclass(frozen=True)
class Sources:
    """The places that rows come from."""

    upload: Any
    taken: Any
    pasted: Any
    sent: Any
    paste: Any
    hub_id: Any
    look: Any
    split: Any
    said: Any
    fetch: Any
    offered: Any
    problem: Any
    cancel: Any
    ticks: Any
    seen: Any

    @property
    def watched(self) -> list[Any]:
        """What `under_way` fills."""
        return [self.cancel, self.ticks, self.seen]


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
            taken = gr.File(visible="hidden", file_count="multiple", elem_id="dataset-taken")
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
            sent = gr.Textbox(visible="hidden", elem_id="dataset-pasted-sent")
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
    ticks = gr.Timer(WATCH_SECONDS, active=False)
    return Sources(
        upload, taken, pasted, sent, paste, hub_id, look, split, said, fetch, gr.State([]), problem, cancel, ticks,
        gr.State((False, [])),
    )  # fmt: skip


def wire(bound: Edge, sources: Sources, asked: Question, chosen: Any, shown: Any) -> list[Any]:
    """Bind what happens here; gives the events after which there may be a new dataset.

    `chosen` is the list of datasets, `shown` where progress is seen.
    """
    outputs = [chosen, sources.problem, *asked.filled]
    working = {"show_progress": "full", "show_progress_on": [shown]}

    def begin(event: Any, mode: str) -> Any:
        """Other rows than those that were asked about: that question is closed."""
        said = [sources.cancel, sources.problem, *asked.filled]
        return bound.on(
            event, lambda _: (gr.update(visible=True), "", *question.answered()), outputs=said, trigger_mode=mode
        )

    def answer(event: Any) -> Any:
        return bound.on(event, lambda _: (gr.update(visible=True), ""), outputs=[sources.cancel, sources.problem])

    uploaded, pasted = begin(sources.upload.upload, "multiple"), begin(sources.paste.click, "multiple")
    several = {**working, "trigger_mode": "multiple"}
    taken = bound.in_browser(uploaded.then, TAKE, [sources.upload], [sources.taken, sources.upload])
    upload_read = bound.on(taken.then, _uploaded, [sources.taken], outputs, preprocess=True, **several)
    paste_read = bound.on(pasted.then, _pasted, [sources.pasted], [*outputs, sources.sent], **several)
    bound.in_browser(paste_read.then, CLEAR, [sources.pasted, sources.sent], [sources.pasted])
    fetched = begin(sources.fetch.click, "once")
    done = [
        upload_read,
        paste_read,
        bound.on(fetched.then, _fetched, [sources.offered, sources.split], outputs, **working),
        bound.on(answer(asked.encoding.click).then, _with_encoding, [asked.pending], outputs, **working),
        bound.on(answer(asked.read.click).then, _with_mapping, asked.answers, outputs, **working),
    ]
    cancelled = bound.on(sources.cancel.click, lambda studio: studio.cancel_checks(), trigger_mode="multiple")
    watch(bound, cancelled.then, sources)
    for event in (sources.look.click, sources.hub_id.submit):
        bound.on(
            event, _looked_up, [sources.hub_id],
            [sources.said, sources.split, sources.fetch, sources.offered],
            show_progress="minimal", show_progress_on=[sources.said],
        )  # fmt: skip
    question.wire(bound, asked)
    return [watch(bound, one.then, sources) for one in done]


def watch(bound: Edge, event: Any, sources: Sources) -> Any:
    """On this event, offer to cancel as long as a check is under way, whichever page began it."""
    return bound.on(event, under_way, outputs=sources.watched, trigger_mode="always_last")


def under_way(studio: Studio) -> tuple[Any, Any, Any]:
    """Whether there is a check to cancel and to wait for: updates for `Sources.watched`."""
    busy = studio.checking()
    return gr.update(visible=busy), gr.Timer(active=busy), (busy, [])


def _uploaded(studio: Studio, paths: list[str] | None, progress: gr.Progress) -> tuple[Any, ...]:
    if not paths:
        return _nothing()
    files = [(Path(path), Path(path).name) for path in paths]  # moved away: Gradio's cache can be read by address
    return _attempt(studio, lambda: {"upload": studio.hold_files(files).id}, progress)


def _pasted(studio: Studio, text: str, progress: gr.Progress) -> tuple[Any, ...]:
    settled = _attempt(studio, lambda: {"upload": studio.hold_pasted(text or "").id}, progress)
    failed = isinstance(settled[1], str)
    return *settled, "" if failed else text


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
    _refuse_unknown(pending)
    return _attempt(studio, lambda: {**pending, "encoding": pending["offered"]}, progress)


def _with_mapping(
    studio: Studio, pending: Pending, shape: str, *columns: str, progress: gr.Progress
) -> tuple[Any, ...]:
    _refuse_unknown(pending)
    mapping = question.mapping_of(shape, columns)
    if not mapping.whole:
        needed = " and ".join(ROLES[role][0].lower() for role in SHAPES[shape][1] if role != "system")
        edge.warn(f"Choose a column for: {needed}.")
        return _nothing()
    return _attempt(studio, lambda: {**pending, "mapping": mapping}, progress)


def _refuse_unknown(pending: Pending) -> None:
    """Raise DatasetError if a page answers that is older than this process, which knows nothing of its question."""
    if not pending:
        raise DatasetError("ftapp was started again since it asked this.", "Reload the page and choose the rows again.")


def _attempt(studio: Studio, take: Callable[[], Pending], progress: gr.Progress) -> tuple[Any, ...]:
    """Try to make a dataset of what is taken; a question or a problem takes the place of its result.

    Another check may have ended meanwhile: what it asks or tells stays.
    """
    pending: Pending = {}
    standing = (gr.skip(),) * len(question.answered())
    told = edge.by_bytes(progress, "Checking")
    try:
        pending = take()
        reading = Reading(encoding=pending.get("encoding"), mapping=pending.get("mapping"))
        info = _read(studio, pending, reading, told)
    except EncodingNeeded as error:
        asked = question.about_encoding(pending, edge.in_place(error, "info"), error.encoding)
        return gr.skip(), gr.skip(), *asked
    except MappingNeeded as error:
        asked = question.about_columns(studio, pending, edge.in_place(error, "info"), error.columns, error.suggestion)
        return gr.skip(), gr.skip(), *asked
    except FtappError as error:
        gone = "dataset" not in pending  # a stored one stays as it was
        return gr.skip(), edge.in_place(error), *(question.answered() if _asked_about(pending) and gone else standing)
    return info.id, gr.skip(), *(question.answered() if _asked_about(pending) else standing)


def _asked_about(pending: Pending) -> bool:
    """Whether this is the answer to a question."""
    return bool(pending.keys() - {"upload"})


def _read(studio: Studio, pending: Pending, reading: Reading, progress: Callable[[int, int], None]) -> DatasetInfo:
    if "dataset" in pending:
        return studio.read_again(pending["dataset"], reading, progress)
    return studio.add_upload(pending["upload"], progress, reading)


def _nothing() -> tuple[Any, ...]:
    return gr.skip(), gr.skip(), *(gr.skip(),) * len(question.answered())
