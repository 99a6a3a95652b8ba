"""The Train tab: follows one run, whoever started it, and asks it to stop, end or go on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.errors import JobError
from ftapp.studio import Studio
from ftapp.ui import charts, confirm, edge, form, history, markup, run_curves, status
from ftapp.views import RunView

POLL_SECONDS = 0.7
STOP, TAKE_OUT = "Stop and save", "Take out of the queue"
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
    growing: Any
    notes: Any
    samples: Any
    samples_box: Any
    resolved: Any
    details: Any
    curves: Any
    logarithmic: Any
    smoothing: Any
    below: Any
    log: Any
    log_box: Any
    log_open: Any
    stop: Any
    kill: Any
    sure: confirm.Confirmation
    changed: Any
    resume: Any
    again: Any
    chat: Any
    evaluate: Any
    publish: Any
    timer: Any
    seen: Any
    status_seen: Any
    """Another one whenever the run that is followed gets another status."""
    views: Any
    every: Any
    history: history.HistoryView

    @property
    def looked_at(self) -> list[Any]:
        """What decides what is shown."""
        return [self.run, self.log_open, self.logarithmic, self.smoothing, self.below]

    @property
    def shown(self) -> list[Any]:
        """What `show` updates, in its order."""
        boxes = [self.status, self.progress, self.loss, self.growing, self.notes, self.samples, self.resolved]
        boxes += [self.details, self.curves, self.log, self.samples_box]
        buttons = [self.stop, self.kill, self.changed, self.resume, self.again, self.chat, self.evaluate]
        buttons += [self.publish]
        return [*boxes, *buttons, self.timer, self.seen]


def place() -> TrainTab:
    """Put the components on the page."""
    with gr.Tabs(selected="run", elem_id="train-views") as views:
        one = gr.Tab("This run", id="run")
        with gr.Tab("All runs and the queue", id="all", elem_id="train-all") as every:
            listed = history.place()
    with one:
        return _place_run(views, every, listed)


def _place_run(views: Any, every: Any, listed: history.HistoryView) -> TrainTab:
    run = gr.Dropdown(choices=[], label="Run", elem_id="train-run", interactive=True, filterable=False)
    shown_status = gr.HTML(elem_id="train-status")
    progress = gr.HTML(elem_id="train-progress")
    with gr.Row(elem_classes="actions"):
        stop = gr.Button(STOP, size="sm", visible=False, elem_id="train-stop", min_width=110)
        kill = gr.Button("End now", size="sm", variant="stop", visible=False, elem_id="train-kill", min_width=110)
        changed = gr.Button("", size="sm", variant="primary", visible=False, elem_id="train-changed", min_width=110)
        resume = gr.Button("Resume", size="sm", visible=False, elem_id="train-resume", min_width=110)
        again = gr.Button("Use these settings again", size="sm", visible=False, elem_id="train-again", min_width=110)
        chat = gr.Button(
            "Chat with it →", size="sm", variant="primary", visible=False, elem_id="train-chat", min_width=110
        )
        evaluate = gr.Button("Evaluate →", size="sm", visible=False, elem_id="train-evaluate", min_width=110)
        publish = gr.Button("Publish →", size="sm", visible=False, elem_id="train-publish", min_width=110)
    sure = confirm.confirmation("End now", "train-sure")
    notes = gr.HTML(elem_id="train-notes")
    with gr.Row(visible=False, elem_id="train-curves", elem_classes="curves") as curves:
        logarithmic = gr.Checkbox(
            label="Logarithmic loss", container=False, elem_id="train-logarithmic", interactive=True, min_width=150
        )
        smoothing = gr.Slider(
            0, 0.98, value=0, step=0.02, label="Smoothing", elem_id="train-smoothing", interactive=True, min_width=180
        )
        below = gr.Dropdown(
            choices=[(title, name) for name, (title, _) in charts.BELOW.items()], value="learning_rate",
            label="Below the loss", filterable=False, elem_id="train-below", interactive=True, min_width=180,
        )  # fmt: skip
    loss = gr.Plot(show_label=False, label="Loss and learning rate", elem_id="train-loss", visible=False)
    growing = gr.HTML(visible="hidden", html_template=" ", js_on_load=run_curves.SCRIPT, elem_id="train-growing")
    with gr.Column(visible=False) as details:
        with gr.Accordion("Answers on the way", open=True, elem_id="train-samples-box", visible=False) as samples_box:
            samples = gr.HTML(elem_id="train-samples")
        with gr.Accordion("What “auto” became", open=False, elem_id="train-resolved-box"):
            resolved = gr.HTML(elem_id="train-resolved")
        with gr.Accordion("Log", open=False, elem_id="train-log-box") as log_box:
            log = gr.HTML(elem_id="train-log")
    return TrainTab(
        run=run, status=shown_status, progress=progress, loss=loss, growing=growing, notes=notes, samples=samples,
        samples_box=samples_box, resolved=resolved, details=details, curves=curves, logarithmic=logarithmic,
        smoothing=smoothing, below=below, log=log, log_box=log_box, log_open=gr.State(False), stop=stop, kill=kill,
        sure=sure, changed=changed, resume=resume, again=again, chat=chat, evaluate=evaluate, publish=publish,
        timer=gr.Timer(POLL_SECONDS, active=False), seen=gr.State(NOTHING_SEEN),
        status_seen=gr.Textbox("", visible="hidden"), views=views, every=every, history=listed,
    )  # fmt: skip


def wire(bound: edge.Edge, tab: TrainTab) -> None:
    """Bind what happens inside this tab."""
    looked_at = tab.looked_at
    history.wire(bound, tab.history)
    bound.on(tab.history.open.click, _opened, [tab.history.picked], [tab.run, tab.views])
    bound.on(tab.run.change, show, looked_at, tab.shown)
    bound.poll(tab.timer.tick, _poll, [*looked_at, tab.seen], [tab.run, tab.status_seen, *tab.shown])
    for event in (tab.every.select, tab.status_seen.change):
        history.refresh(bound, event, tab.history)
    bound.on(tab.run.focus, lambda studio: gr.update(choices=choices(studio)), outputs=[tab.run])
    stopped = bound.on(tab.stop.click, lambda studio, name: studio.stop(name), [tab.run])
    killed = confirm.bind(bound, tab.kill, tab.sure, _sure, lambda studio, name: studio.kill(name), tab.run)
    resumed = bound.on(tab.resume.click, lambda studio, name: studio.resume(name), [tab.run])
    restarted = bound.on(tab.changed.click, _start_changed, [tab.run], [tab.run])
    for done in (stopped, killed, resumed, restarted):
        refresh(bound, edge.ended(done), tab)
    opened = bound.on(tab.log_box.expand, lambda _: True, outputs=[tab.log_open])
    bound.on(opened.then, show, looked_at, tab.shown)
    for one in (tab.logarithmic.input, tab.smoothing.change, tab.below.input):
        bound.on(one, show, looked_at, tab.shown, trigger_mode="always_last")
    bound.on(tab.log_box.collapse, lambda _: False, outputs=[tab.log_open])


def load(bound: edge.Edge, event: Any, tab: TrainTab, tabs: Any) -> None:
    """On this event, the page is new: choose a run, which shows it, and open this tab if it is at work."""
    bound.on(event, _first, [tab.run], [tab.run, tab.status, tabs])


def refresh(bound: edge.Edge, event: Any, tab: TrainTab) -> None:
    """On this event, read the runs again and show the chosen one as it is now."""
    listed = bound.on(event, chosen, [tab.run], [tab.run])
    bound.on(listed.then, show, tab.looked_at, tab.shown)
    history.refresh(bound, event, tab.history)


def _sure(name: str) -> str:
    return f"End {name} now, without saving what came after its last checkpoint?"


def _first(studio: Studio, name: str | None) -> tuple[Any, Any, Any]:
    update = chosen(studio, name)
    if not update["value"]:
        return update, _nothing()[0], gr.skip()
    active = studio.run(update["value"]).active
    return update, gr.skip(), gr.Tabs(selected="train") if active else gr.skip()


def choices(studio: Studio) -> list[tuple[str, str]]:
    """Every run with its status, newest first."""
    # one word for all that a live process can be: the browser keeps the label of the moment it was chosen
    words = {**status.WORDS, "starting": "at work", "running": "at work", "stopping": "at work"}
    return [(f"{view.name} · {words[view.status].lower()}", view.name) for view in studio.runs()]


def chosen(studio: Studio, name: str | None) -> Any:
    """The list of runs, with the run that was chosen, else the one at work, one that waits, or the newest."""
    views = studio.runs()
    names = [view.name for view in views]
    if name not in names:
        views.sort(key=lambda view: (not view.active, view.status == "queued"))
        name = views[0].name if views else None
    return gr.update(choices=choices(studio), value=name, visible=bool(names))


def _opened(_: Studio, picked: list[str] | None) -> tuple[Any, Any]:
    name = history.opened(picked)
    return (name, gr.Tabs(selected="run")) if name else (gr.skip(), gr.skip())


def show(studio: Studio, name: str | None, log_open: bool, *drawing: Any) -> tuple[Any, ...]:
    """Everything about a run; `drawing` says how its curves are drawn."""
    return _changes(studio, studio.run(name), log_open, drawing, NOTHING_SEEN) if name else _nothing()


def _poll(
    studio: Studio, name: str | None, log_open: bool, logarithmic: bool, smoothing: float, below: str, seen: Seen
) -> Any:
    if not name:
        return (gr.skip(), gr.skip(), *_nothing())
    try:
        view = studio.run(name)
    except JobError:  # its folder is gone
        return (chosen(studio, None), "", *[gr.skip()] * len(_nothing()))
    changes = _changes(studio, view, log_open, (logarithmic, smoothing, below), seen)
    if changes[-1] == seen:
        return gr.skip()
    listed = seen.run == name and seen.status == view.status
    # with its value, or the browser would go on showing the label of before
    update = gr.skip() if listed else gr.update(choices=choices(studio), value=name)
    return (update, f"{name} {view.status}", *changes)


def _changes(studio: Studio, view: RunView, log_open: bool, drawing: tuple[Any, ...], seen: Seen) -> tuple[Any, ...]:
    """Updates for what is not on the screen yet, and what is seen once they are."""
    state, active = view.state, view.active
    waiting, stopping = view.status == "queued", view.status == "stopping"
    log = studio.log_tail(view.name) if log_open else ""
    curve = (len(state.metrics), state.metrics[-1].step if state.metrics else 0, len(state.evaluations))
    begun = view.status != "stopped" or view.job.process() is not None  # one taken out of the queue just waits again
    resumable, has_result, readable = bool(state.checkpoints) or not begun, view.has_result, not view.unreadable
    parts: list[tuple[Any, Callable[[], Any]]] = [
        ((view.status, state.count), lambda: status.headline(view, _lost(studio, view))),
        ((view.status, state.count), lambda: status.training(view)),
        (any(curve), lambda: run_curves.figure(view.job, curve, drawing)),
        (curve, lambda: run_curves.growing(view.job, curve, drawing)),
        (len(state.notes), lambda: status.notes(view)),
        (len(state.samples), lambda: status.samples(view)),
        (state.resolved and state.resolved.time, lambda: status.resolved(view)),
        (waiting, lambda: gr.update(visible=not waiting)),
        (bool(state.metrics), lambda: gr.update(visible=bool(state.metrics))),
        (hash(log), lambda: status.log(log)),
        (bool(state.samples), lambda: gr.update(visible=bool(state.samples))),
        (view.status, lambda: gr.update(visible=active and not stopping, value=TAKE_OUT if waiting else STOP)),
        (view.status, lambda: gr.update(visible=active and not waiting)),
        (view.status, lambda: _changed(view)),
        (
            (view.status, resumable, readable),
            lambda: gr.update(visible=view.status in RESUMABLE and readable, interactive=resumable),
        ),
        ((active, readable), lambda: gr.update(visible=not active and readable)),
        ((active, has_result), lambda: gr.update(visible=not active and has_result)),
        ((active, has_result), lambda: gr.update(visible=not active and has_result)),
        ((active, has_result), lambda: gr.update(visible=not active and has_result)),
        (active, lambda: gr.Timer(active=active)),
    ]
    known = seen.keys if seen.run == view.name else ()
    keys = tuple(key for key, _ in parts)
    updates = [gr.skip() if known and known[number] == key else make() for number, (key, make) in enumerate(parts)]
    return (*updates, Seen(view.name, view.status, keys))


def _changed(view: RunView) -> Any:
    """The button that starts a failed run again with what its failure suggests."""
    changes = ", ".join(
        f"{status.TITLES.get(name) or name} {form.to_value(value)}" for name, value in view.changes.items()
    )
    return gr.update(visible=bool(changes), value=f"Start again with: {changes}")


def _start_changed(studio: Studio, name: str) -> Any:
    return chosen(studio, studio.start_changed(name))


def _lost(studio: Studio, view: RunView) -> str:
    """The end of the log of a run that ended without a word."""
    return "\n".join(studio.log_tail(view.name).splitlines()[-LOST_LINES:]) if view.status == "lost" else ""


def _nothing() -> tuple[Any, ...]:
    nothing = markup.empty("No runs yet.", "Go to Configure and press Start: the demo takes about a minute.")
    hidden = [gr.update(visible=False)] * 8
    none = gr.update(value=None, visible=False)
    return (
        nothing,
        "",
        none,
        "",
        "",
        "",
        "",
        *[gr.update(visible=False)] * 2,
        "",
        gr.update(visible=False),
        *hidden,
        gr.Timer(active=False),
        NOTHING_SEEN,
    )
