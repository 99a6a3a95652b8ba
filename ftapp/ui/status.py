"""A job as it stands, in HTML: one look for trainings and publications; the Train and Publish tabs call it."""

from typing import Any

from ftapp.contract.config import RunConfig
from ftapp.contract.events import Phase
from ftapp.store.jobs import Status
from ftapp.ui import form, markup
from ftapp.views import JobView

WORDS: dict[Status, str] = {
    "queued": "Waiting",
    "starting": "Starting",
    "running": "Running",
    "stopping": "Stopping",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "lost": "Lost",
}
TITLES = {field.name: field.title for field in form.fields_of(RunConfig)}
TITLES |= {
    "model.licence": "Licence of the model",
    "memory.predicted": "Memory, predicted",
    "memory.predicted_peak": "Memory, predicted with reserve",
    "dtype": "Precision",
    "device": "Device",
}


def headline(view: JobView[Any], tail: str = "", told: bool = True) -> str:
    """Status, what it is doing, the message if it is to be `told`, and the end of the log of a job that got lost."""
    word = markup.badge(WORDS[view.status], view.status)
    phase = view.state.phase
    doing = f"<span class='doing'>{markup.text(_phase(phase))}</span>" if view.active and phase else ""
    state = view.state
    device = str(state.resolved.values.get("device", "")) if state.resolved else ""
    processes = f"{state.started.world_size} processes" if state.started and state.started.world_size > 1 else ""
    where = " · ".join(filter(None, [device, processes]))
    on = f"<span class='device'>{markup.text(where)}</span>" if where else ""
    last = f"<pre class='ft-tail' tabindex='0' aria-label='End of the log'>{markup.text(tail)}</pre>" if tail else ""
    return f"<div class='ft-headline'>{word}{doing}{on}</div>{_message(view) if told else ''}{last}"


def _message(view: JobView[Any]) -> str:
    if not view.message:
        return ""
    level = {"failed": "error", "lost": "error", "finished": "success"}.get(view.status, "info")
    level = "error" if view.unreadable else level
    return markup.notice(level, view.message, view.hint)


def _phase(phase: Phase) -> str:
    if phase.done is None:
        return f"{phase.name} …"
    if phase.unit == "bytes":
        total = f" of {markup.size(phase.total)}" if phase.total else ""
        return f"{phase.name}: {markup.size(phase.done)}{total}"
    total = f" of {phase.total:,}" if phase.total else ""
    return f"{phase.name}: {phase.done:,}{total} {phase.unit}"


def phase_bar(view: JobView[Any]) -> str:
    """How far the present phase is; nothing once the job has ended."""
    phase = view.state.phase
    if not view.active or view.status == "queued":
        return ""
    if phase and phase.total and phase.done is not None:
        return markup.bar(phase.done / phase.total, phase.name)
    return markup.bar(None, phase.name if phase else "starting")


def training(view: JobView[RunConfig]) -> str:
    """Steps, time to go, tokens a second and the last losses."""
    metrics, evaluations = view.state.metrics, view.state.evaluations
    if not metrics:
        return phase_bar(view)
    last = metrics[-1]
    pairs: list[tuple[str, object]] = [
        ("Step", f"{last.step:,} / {last.total_steps:,}"),
        ("Epoch", f"{last.epoch:.2f}"),
    ]
    if view.active and (left := view.state.remaining_seconds()) is not None:
        pairs.append(("Time left", "about " + markup.duration(left)))
    elif not view.active:
        pairs.append(("Took", markup.duration(view.state.worked_seconds)))
    if last.tokens_per_second:
        pairs.append(("Tokens / s", markup.quantity(last.tokens_per_second)))
    pairs.append(("Loss", _figure(last.loss)))
    if evaluations:
        pairs.append(("Held-out loss", _figure(evaluations[-1].loss)))
        pairs.append(("Perplexity", _figure(evaluations[-1].perplexity)))
    if view.active and view.state.checkpoints:
        pairs.append(("Last checkpoint", f"step {view.state.checkpoints[-1].step:,}"))
    if last.memory:
        pairs.append(("GPU memory", markup.size(last.memory)))
    fraction = last.step / last.total_steps if last.total_steps else None
    return markup.bar(fraction, "training") + markup.facts(pairs)


def _figure(value: float) -> str:
    return f"{value:.4g}" if value == value else "NaN"


def notes(view: JobView[Any]) -> str:
    """What the worker wants a person to know, the newest first."""
    return "".join(markup.notice(note.level, note.message) for note in view.state.notes[::-1][:20])


def resolved(view: JobView[RunConfig]) -> str:
    """What `auto` became, and what the data and the model turned out to be."""
    said = view.state.resolved
    if said is None:
        return markup.empty("Not known yet.", "The worker tells when it has read the data and the model.")
    rows: list[tuple[str, str]] = [
        ("Rows to train on", f"{said.train_rows:,}"),
        ("Rows held out", f"{said.eval_rows:,}"),
        ("Rows left out, too long", f"{said.left_out_rows:,}"),
        ("Tokens in one epoch", f"{said.train_tokens:,}"),
        ("Trained parameters", f"{said.trainable_parameters:,} of {said.total_parameters:,}"),
        ("Steps", f"{said.total_steps:,}"),
    ]
    rows += [(TITLES.get(name) or name, _used(name, value)) for name, value in said.values.items()]
    measured = max((metrics.memory or 0 for metrics in view.state.metrics), default=0)
    if measured:
        rows.append(("Memory, measured", markup.size(measured)))
    if said.data_hash:
        rows += [("Fingerprint of the token rows", said.data_hash[:16]), ("… of the template", said.template_hash[:16])]
    if view.state.started:
        rows += [(f"Version of {name}", version) for name, version in view.state.started.versions.items()]
    return markup.table(("What", "Value used"), rows, "Values used")


def _used(name: str, value: object) -> str:
    if name.startswith("memory.") and isinstance(value, int):
        return markup.size(value)
    return str(form.to_value(value))


def samples(view: JobView[RunConfig]) -> str:
    """The answers to held-out prompts that the worker wrote at the last measurement."""
    told, shown = view.state.samples, []
    for sample in [one for one in told if one.step == told[-1].step]:
        turns = (
            markup.bubble("user", sample.prompt)
            + markup.bubble("assistant", sample.answer, "The model")
            + markup.bubble("reference", sample.reference, "The dataset's answer")
        )
        shown.append(f"<section class='ft-row'><h4>At step {sample.step:,}</h4>{turns}</section>")
    return "".join(shown) or markup.empty("No answers yet.")


def log(text: str) -> str:
    """The end of what the worker printed, scrolled to its last line."""
    words = markup.text(text) or "Nothing was printed yet."
    return f"<div class='ft-log' tabindex='0' role='region' aria-label='Log'><pre>{words}</pre></div>"
