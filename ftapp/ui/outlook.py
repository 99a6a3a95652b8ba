"""What is known before a run starts: how much is trained, on which rows, in how much memory, for how long."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.chat import Loading
from ftapp.contract.config import RunConfig, remarks
from ftapp.contract.duration import DurationEstimate, tokens_per_epoch
from ftapp.contract.errors import FtappError, JobError
from ftapp.contract.events import Resolved
from ftapp.contract.memory import MemoryView
from ftapp.contract.preview import Lengths
from ftapp.studio import Studio
from ftapp.ui import edge, fields, form, markup
from ftapp.ui.edge import Edge

POLL_SECONDS = 0.3
CHANGES = 4
"""Ways to make a run fit that are offered at once."""
PARTS = {
    "weights": "model",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "reserve": "reserve",
}
VERDICTS = {
    "fits": ("success", "It fits"),
    "tight": ("warning", "Tight: it may just fit"),
    "does not fit": ("error", "It does not fit"),
    "unknown": ("info", "Nobody knows whether it fits"),
}

Measured = dict[str, Any]
"""Of a dataset's rows for a model: {"dataset": …, "model": …, "revision": …, "longest": …, "tokens": …, "within": …};
or empty. `longest` is the longest row whatever the limit, `tokens` an epoch's within the limit that `within` says."""


@dataclass(frozen=True)
class Outlook:
    """The components of the summary."""

    parameters: Any
    counted: Any
    rows: Any
    measure: Any
    measured: Any
    two_steps: Any
    memory: Any
    changes: list[Any]
    offered: Any
    duration: Any
    remarks: Any
    machine: Any

    @property
    def estimated(self) -> list[Any]:
        """What `estimate` fills."""
        return [self.rows, self.memory, self.offered, *self.changes, self.duration, self.remarks]


def place() -> Outlook:
    """Put the summary on the page."""
    parameters = gr.HTML(elem_id="config-parameters")
    rows = gr.HTML(elem_id="config-rows")
    memory = gr.HTML(elem_id="config-memory")
    changes = [gr.Button("", size="sm", visible=False, elem_id=f"config-change-{n}") for n in range(CHANGES)]
    duration = gr.HTML(elem_id="config-duration")
    remarked = gr.HTML(elem_id="config-remarks")
    with gr.Row(elem_classes="actions"):
        measure = gr.Button("Measure these rows", size="sm", elem_id="config-measure", min_width=130)
        two_steps = gr.Button("Try two steps", size="sm", elem_id="config-two-steps", min_width=110)
    machine = gr.HTML(elem_id="config-machine")
    return Outlook(
        parameters,
        gr.State(()),
        rows,
        measure,
        gr.State({}),
        two_steps,
        memory,
        changes,
        gr.State([]),
        duration,
        remarked,
        machine,
    )


def wire(bound: Edge, view: Outlook, components: list[Any]) -> list[Any]:
    """Bind measuring, trying and the offered changes; gives the events after which other values are in the form."""
    for button, verb in ((view.measure, _measure), (view.two_steps, _two_steps)):
        done = bound.on(button.click, verb, components, [view.duration, view.measured], trigger_mode="once")
        bound.on(edge.ended(done), estimate, [view.measured, *components], view.estimated)
    changed = []
    for number, button in enumerate(view.changes):

        def change(_: Studio, offered: list[dict[str, Any]], number: int = number) -> list[Any]:
            return fields.updates(offered[number] if number < len(offered) else {})

        changed.append(bound.on(button.click, change, [view.offered], components))
    return changed


def count(studio: Studio, counted: Any, *values: form.Value) -> tuple[Any, Any]:
    """How much is trained; asked again only when the model or the method changed."""
    plain = form.values_to_plain(fields.named(values), fields.FIELDS)
    wanted = {"model": plain.get("model"), "method": plain.get("method"), "data": {"dataset": "any"}}
    if wanted == counted:
        return gr.skip(), gr.skip()
    try:
        config = RunConfig.model_validate(wanted)
        found = studio.parameters(config.model, config.method)
    except ValueError:
        return _figure("Parameters", "–", "Correct the model and the method first."), wanted
    except FtappError as error:
        return edge.in_place(error), ()
    share = found.trainable / found.total if found.total else 0
    figure = f"{markup.quantity(found.trainable)} of {markup.quantity(found.total)} trained"
    return _figure("Parameters", figure, f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"), wanted


def estimate(studio: Studio, measured: Measured, *values: form.Value) -> tuple[Any, ...]:
    """Updates for `Outlook.estimated`: rows, memory with what would make it fit, duration, values without effect."""
    config = fields.valid(values)
    if config is None:
        return "", "", [], *(gr.update(visible=False),) * CHANGES, "", ""
    known = measured if measured and _key(config).items() <= measured.items() else {}
    memory, offered = _memory(studio, config, known)
    buttons = [gr.update(visible=True, value=f"{words} → {markup.size(peak)}") for words, _, peak in offered[:CHANGES]]
    buttons += [gr.update(visible=False)] * (CHANGES - len(buttons))
    values_offered = [changed for _, changed, _ in offered]
    remarked = "".join(markup.notice("info", remark) for remark in remarks(config))
    return _rows(studio, config), memory, values_offered, *buttons, _duration(studio, config, known), remarked


def _key(config: RunConfig) -> Measured:
    return {"dataset": config.data.dataset, "model": config.model.id, "revision": config.model.revision}


def _within(config: RunConfig) -> list[Any]:
    return [config.data.max_length, config.data.over_length]


def measured_by(told: Resolved, config: RunConfig) -> Measured:
    """What a run tells of its rows."""
    return _measured(config, told.longest_row, tokens_per_epoch(told, config))


def _measured(config: RunConfig, longest: int, tokens: int) -> Measured:
    return {**_key(config), "longest": longest, "tokens": tokens, "within": _within(config)}


def _rows(studio: Studio, config: RunConfig) -> str:
    """How many rows would train and measure, and whether the two share any."""
    try:
        found, known = studio.overlap(config.data, config.seed), studio.measured_before(config)
    except FtappError as error:
        return edge.in_place(error)
    more = f"{found.eval_rows:,} held out to measure on" if found.eval_rows else "none held out"
    if found.shared_rows:
        more += f"; {found.shared_rows:,} left out, since their prompts are in both"
    warning = markup.notice("warning", known) if known else ""
    return _figure("Rows", f"{found.train_rows:,} to train on", more) + warning


def _memory(studio: Studio, config: RunConfig, known: Measured) -> tuple[str, list[tuple[str, dict[str, Any], int]]]:
    try:
        view = studio.memory(config, known.get("longest"))
    except FtappError:
        return "", []  # told with the parameters
    return draw(view, bool(known)), [(change.words, change.values, change.peak) for change in view.changes]


def draw(view: MemoryView, measured: bool) -> str:
    """The estimate by part against what is free."""
    peak, free = view.estimate.peak, view.machine.free
    whole = max(peak, free or 0, 1)
    parts = [(words, getattr(view.estimate, name)) for name, words in PARTS.items()]
    bars = "".join(
        f"<span class='part-{number}' style='width:{100 * size / whole:.2f}%' title='{markup.text(words)}: "
        f"{markup.size(size)}'></span>"
        for number, (words, size) in enumerate(parts)
    )
    mark = f"<i style='left:{100 * free / whole:.2f}%' title='free: {markup.size(free)}'></i>" if free else ""
    legend = "".join(
        f"<li><span class='part-{number}'></span>{markup.text(words)} {markup.size(size)}</li>"
        for number, (words, size) in enumerate(parts)
        if size
    )
    level, words = VERDICTS[view.verdict]
    of = f" of {markup.size(free)} free" if free is not None else ""
    kind = "GPU memory" if view.machine.kind == "cuda" else "memory"
    told = f"{words}: about {markup.size(peak)} of {kind}{of}."
    length = f"Estimated for rows of {view.estimate.plan.row_tokens:,} tokens"
    length += "." if measured else ", the longest allowed; measure the rows for a truer figure."
    hint = length + (" Each of these would make it fit:" if view.changes else "")
    notes = "".join(markup.notice("info", note) for note in view.notes)
    return (
        f"<div class='ft-figure'><span class='name'>Memory</span><div class='ft-memory' role='img' "
        f"aria-label='{markup.text(told)}'>{bars}{mark}</div><ul class='ft-parts'>{legend}</ul>"
        f"{markup.notice(level, told, hint)}{notes}</div>{_disk(view)}"
    )


def _disk(view: MemoryView) -> str:
    """What the checkpoints and the result will take."""
    if view.disk_free is None:
        return ""
    figure = f"{markup.size(view.disk)} of {markup.size(view.disk_free)} free"
    if view.disk <= view.disk_free:
        return _figure("Disk", figure, "for checkpoints and the result")
    return _figure("Disk", figure, "") + markup.notice(
        "error", "The disk would be full before the run ends.", "Free some space, or train fewer parameters."
    )


def _duration(studio: Studio, config: RunConfig, known: Measured) -> str:
    if known.get("within") != _within(config):
        return _figure("Time", "–", "Measure the rows to estimate it from past runs, or try two steps.")
    try:
        found = studio.duration(config, known["tokens"])
    except FtappError as error:
        return edge.in_place(error)
    if found is None:
        return _figure("Time", "–", "No past run on this machine to go by: try two steps.")
    return _figure("Time", _span(found), found.basis)


def _span(found: DurationEstimate) -> str:
    low, high = markup.duration(found.low), markup.duration(found.high)
    time = f"about {low}" if low == high else f"{low} to {high}"
    if found.dollars_low is None or found.dollars_high is None:
        return time
    return f"{time}, ${found.dollars_low:.2f} to ${found.dollars_high:.2f} on {found.hardware}"


def _measure(studio: Studio, *values: form.Value) -> Iterator[tuple[Any, Any]]:
    config = fields.valid(values)
    if config is None:
        yield _figure("Time", "–", "Correct the values marked ⚠ first."), gr.skip()
        return
    longest = None if config.data.max_length == "auto" else config.data.max_length
    yield _figure("Time", "…", "Starting"), gr.skip()
    try:
        with closing(studio.measure(config.data.dataset, config.model, longest)) as replies:  # type: ignore[type-var]
            for reply in replies:
                if isinstance(reply, Loading):
                    yield _figure("Time", "…", reply.name), gr.skip()
                elif isinstance(reply, Lengths):
                    yield gr.skip(), _measured(config, reply.longest, reply.tokens_per_epoch)
    except FtappError as error:
        yield edge.in_place(error), {}
        raise


def _two_steps(studio: Studio, *values: form.Value) -> Iterator[tuple[Any, Any]]:
    """Two steps as a run; what it told of the rows is then measured, and the estimate goes by how fast it was."""
    config = fields.valid(values)
    if config is None:
        yield _figure("Time", "–", "Correct the values marked ⚠ first."), gr.skip()
        return
    name, said = studio.try_two_steps(config), ""
    while (view := studio.run(name)).active:
        doing = view.message or (view.state.phase.name if view.state.phase else "starting")
        if doing != said:
            yield _figure("Time", "…", f"Two steps: {doing[:1].lower()}{doing[1:]}"), gr.skip()
        said = doing
        time.sleep(POLL_SECONDS)
    told = view.state.resolved
    if view.status != "finished" or told is None:
        raise JobError(f"The two steps did not end well: {view.message}", view.hint)
    yield gr.skip(), measured_by(told, config)


def _figure(name: str, figure: str, more: str) -> str:
    return (
        f"<div class='ft-figure'><span class='name'>{name}</span><strong>{markup.text(figure)}</strong>"
        f"<span>{markup.text(more)}</span></div>"
    )


def machine(studio: Studio) -> str:
    """What this machine trains on."""
    found = studio.gpus()
    if not found:
        words = "No GPU: this machine's processor trains. Fine for the demo, slow for real models."
        return f"<div class='ft-figure'><span class='name'>Machine</span><span>{words}</span></div>"
    rows = "".join(
        f"<strong>{markup.text(gpu.name)}</strong><span>{markup.size(gpu.free)} of {markup.size(gpu.total)} free</span>"
        for gpu in found
    )
    return f"<div class='ft-figure'><span class='name'>Machine</span>{rows}</div>"
