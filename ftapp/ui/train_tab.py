"""The Train tab: follows one run, whoever started it, and asks it to stop, end or go on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.errors import JobError
from ftapp.studio import RunView, Studio
from ftapp.ui import charts, confirm, edge, markup, status

POLL_SECONDS = 0.7
RESUMABLE = ("lost", "failed", "stopped")
LOST_LINES = 12
"""Lines of the log that are shown of a run that ended without a word."""


@dataclass(frozen=True)
class Seen:
    """What the screen shows: a poll sends only what differs from it."""

    run: str
    status: str
    keys: tuple[Any, ...]
    """One for each component, in the order of TrainTab.shown."""


NOTHING_SEEN = Seen("", "", ())


@dataclass(frozen=True)
class TrainTab:
    """The components that other tabs are wired to."""

    run: Any
    status: Any
    progress: Any
    loss: Any
    notes: Any
    samples: Any
    samples_box: Any
    resolved: Any
    details: Any
    logarithmic: Any
    log: Any
    log_box: Any
    log_open: Any
    stop: Any
    kill: Any
    sure: confirm.Confirmation
    resume: Any
    again: Any
    chat: Any
    publish: Any
    timer: Any
    seen: Any

    @property
    def shown(self) -> list[Any]:
        """What `show` updates, in its order."""
        boxes = [self.status, self.progress, self.loss, self.notes, self.samples, self.resolved, self.details]
        boxes += [self.logarithmic, self.log, self.samples_box]
        buttons = [self.stop, self.kill, self.resume, self.again, self.chat, self.publish]
        return [*boxes, *buttons, self.timer, self.seen]


def place() -> TrainTab:
    """Put the components on the page."""
    run = gr.Dropdown(choices=[], label="Run", elem_id="train-run", interactive=True, filterable=False)
    shown_status = gr.HTML(elem_id="train-status")
    progress = gr.HTML(elem_id="train-progress")
    with gr.Row(elem_classes="actions"):
        stop = gr.Button("Stop and save", size="sm", visible=False, elem_id="train-stop", min_width=110)
        kill = gr.Button("End now", size="sm", variant="stop", visible=False, elem_id="train-kill", min_width=110)
        resume = gr.Button("Resume", size="sm", visible=False, elem_id="train-resume", min_width=110)
        again = gr.Button("Use these settings again", size="sm", visible=False, elem_id="train-again", min_width=110)
        chat = gr.Button(
            "Chat with it →", size="sm", variant="primary", visible=False, elem_id="train-chat", min_width=110
        )
        publish = gr.Button("Publish →", size="sm", visible=False, elem_id="train-publish", min_width=110)
    sure = confirm.confirmation(
        "End it now, without saving what came after the last checkpoint?", "End now", "train-sure"
    )
    notes = gr.HTML(elem_id="train-notes")
    logarithmic = gr.Checkbox(
        label="Logarithmic loss", visible=False, container=False, elem_id="train-logarithmic", interactive=True
    )
    loss = gr.Plot(show_label=False, label="Loss and learning rate", elem_id="train-loss", visible=False)
    with gr.Column(visible=False) as details:
        with gr.Accordion("Answers on the way", open=False, elem_id="train-samples-box", visible=False) as samples_box:
            samples = gr.HTML(elem_id="train-samples")
        with gr.Accordion("What “auto” became", open=False, elem_id="train-resolved-box"):
            resolved = gr.HTML(elem_id="train-resolved")
        with gr.Accordion("Log", open=False, elem_id="train-log-box") as log_box:
            log = gr.HTML(elem_id="train-log")
    return TrainTab(
        run=run, status=shown_status, progress=progress, loss=loss, notes=notes, samples=samples,
        samples_box=samples_box, resolved=resolved, details=details, logarithmic=logarithmic, log=log,
        log_box=log_box, log_open=gr.State(False), stop=stop, kill=kill, sure=sure, resume=resume, again=again,
        chat=chat, publish=publish, timer=gr.Timer(POLL_SECONDS, active=False), seen=gr.State(NOTHING_SEEN),
    )  # fmt: skip


def wire(bound: edge.Edge, tab: TrainTab) -> None:
    """Bind what happens inside this tab."""
    looked_at = [tab.run, tab.log_open, tab.logarithmic]
    bound.on(tab.run.change, show, looked_at, tab.shown)
    bound.poll(tab.timer.tick, _poll, [*looked_at, tab.seen], [tab.run, *tab.shown])
    bound.on(tab.run.focus, lambda studio: gr.update(choices=choices(studio)), outputs=[tab.run])
    stopped = bound.on(tab.stop.click, lambda studio, name: studio.stop(name), [tab.run])
    refresh(bound, stopped.then, tab)
    killed = confirm.bind(bound, tab.kill, tab.sure, lambda studio, name: studio.kill(name), [tab.run])
    refresh(bound, killed.then, tab)
    resumed = bound.on(tab.resume.click, lambda studio, name: studio.resume(name), [tab.run])
    refresh(bound, resumed.then, tab)
    opened = bound.on(tab.log_box.expand, lambda _: True, outputs=[tab.log_open])
    bound.on(opened.then, show, looked_at, tab.shown)
    bound.on(tab.logarithmic.input, show, looked_at, tab.shown)
    bound.on(tab.log_box.collapse, lambda _: False, outputs=[tab.log_open])


def load(bound: edge.Edge, event: Any, tab: TrainTab, tabs: Any) -> None:
    """On this event, the page is new: choose a run, which shows it, and open this tab if it is at work."""
    bound.on(event, _first, [tab.run], [tab.run, tab.status, tabs])


def refresh(bound: edge.Edge, event: Any, tab: TrainTab) -> None:
    """On this event, read the runs again and show the chosen one as it is now."""
    listed = bound.on(event, chosen, [tab.run], [tab.run])
    bound.on(listed.then, show, [tab.run, tab.log_open, tab.logarithmic], tab.shown)


def _first(studio: Studio, name: str | None) -> tuple[Any, Any, Any]:
    update = chosen(studio, name)
    if not update["value"]:
        return update, _nothing()[0], gr.skip()
    active = studio.run(update["value"]).active
    return update, gr.skip(), gr.Tabs(selected="train") if active else gr.skip()


def choices(studio: Studio) -> list[tuple[str, str]]:
    """Every run with its status, newest first."""
    return [(f"{view.name} · {status.WORDS[view.status].lower()}", view.name) for view in studio.runs()]


def chosen(studio: Studio, name: str | None) -> Any:
    """The list of runs, with the run that was chosen, else the newest active one, else the newest."""
    views = studio.runs()
    names = [view.name for view in views]
    if name not in names:
        name = next((view.name for view in views if view.active), names[0] if names else None)
    return gr.update(choices=choices(studio), value=name, visible=bool(names))


def show(studio: Studio, name: str | None, log_open: bool, logarithmic: bool) -> tuple[Any, ...]:
    """Everything about a run."""
    return _changes(studio, studio.run(name), log_open, logarithmic, NOTHING_SEEN) if name else _nothing()


def _poll(studio: Studio, name: str | None, log_open: bool, logarithmic: bool, seen: Seen) -> Any:
    if not name:
        return (gr.skip(), *_nothing())
    try:
        view = studio.run(name)
    except JobError:  # its folder is gone
        return (chosen(studio, None), *[gr.skip()] * len(_nothing()))
    changes = _changes(studio, view, log_open, logarithmic, seen)
    if changes[-1] == seen:
        return gr.skip()
    listed = seen.run == name and seen.status == view.status
    # with its value, or the browser would go on showing the label of before
    return (gr.skip() if listed else gr.update(choices=choices(studio), value=name), *changes)


def _changes(studio: Studio, view: RunView, log_open: bool, logarithmic: bool, seen: Seen) -> tuple[Any, ...]:
    """Updates for what is not on the screen yet, and what is seen once they are."""
    state, active = view.state, view.active
    log = studio.log_tail(view.name) if log_open else ""
    curve = (len(state.metrics), state.metrics[-1].step if state.metrics else 0, len(state.evaluations))
    saved, has_result = bool(state.checkpoints), view.has_result
    parts: list[tuple[Any, Callable[[], Any]]] = [
        ((view.status, state.count), lambda: status.headline(view, _lost(studio, view))),
        ((view.status, state.count), lambda: status.training(view)),
        (curve, lambda: _figure(view, logarithmic)),
        (len(state.notes), lambda: status.notes(view)),
        (len(state.samples), lambda: status.samples(view)),
        (state.resolved and state.resolved.time, lambda: status.resolved(view)),
        (True, lambda: gr.update(visible=True)),
        (bool(state.metrics), lambda: gr.update(visible=bool(state.metrics))),
        (hash(log), lambda: status.log(log)),
        (bool(state.samples), lambda: gr.update(visible=bool(state.samples))),
        (view.status, lambda: gr.update(visible=active and view.status != "stopping")),
        (view.status, lambda: gr.update(visible=active)),
        ((view.status, saved), lambda: gr.update(visible=view.status in RESUMABLE, interactive=saved)),
        (active, lambda: gr.update(visible=not active)),
        ((active, has_result), lambda: gr.update(visible=not active and has_result)),
        ((active, has_result), lambda: gr.update(visible=not active and has_result)),
        (active, lambda: gr.Timer(active=active)),
    ]
    known = seen.keys if seen.run == view.name else ()
    keys = tuple(key for key, _ in parts)
    updates = [gr.skip() if known and known[number] == key else make() for number, (key, make) in enumerate(parts)]
    return (*updates, Seen(view.name, view.status, keys))


def _figure(view: RunView, logarithmic: bool) -> Any:
    drawn = charts.curves(view.state.metrics, view.state.evaluations, logarithmic)
    return gr.update(value=drawn, visible=drawn is not None)


def _lost(studio: Studio, view: RunView) -> str:
    """The end of the log of a run that ended without a word."""
    return "\n".join(studio.log_tail(view.name).splitlines()[-LOST_LINES:]) if view.status == "lost" else ""


def _nothing() -> tuple[Any, ...]:
    nothing = markup.empty("No runs yet.", "Go to Configure and press Start: the demo takes about a minute.")
    hidden = [gr.update(visible=False)] * 6
    none = gr.update(value=None, visible=False)
    return (
        nothing,
        "",
        none,
        "",
        "",
        "",
        *[gr.update(visible=False)] * 2,
        "",
        *hidden,
        gr.Timer(active=False),
        NOTHING_SEEN,
    )
