"""The Train tab: follows one run, whoever started it, and asks it to stop, end or go on."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.errors import JobError
from ftapp.studio import RunView, Studio
from ftapp.ui import charts, confirm, edge, markup, status

POLL_SECONDS = 0.8
LOST_LINES = 12
"""Lines of the log that are shown of a run that ended without a word."""


@dataclass(frozen=True)
class TrainTab:
    """The components that other tabs are wired to."""

    run: Any
    status: Any
    progress: Any
    loss: Any
    notes: Any
    samples: Any
    resolved: Any
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
        boxes = [self.status, self.progress, self.loss, self.notes, self.samples, self.resolved, self.log]
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
    sure = confirm.confirmation("End it now, without saving what came after the last checkpoint?", "End now", "train-sure")
    notes = gr.HTML(elem_id="train-notes")
    loss = gr.Plot(show_label=False, label="Loss and learning rate", elem_id="train-loss", visible=False)
    with gr.Accordion("Answers on the way", open=False, elem_id="train-samples-box"):
        samples = gr.HTML(elem_id="train-samples")
    with gr.Accordion("What “auto” became", open=False, elem_id="train-resolved-box"):
        resolved = gr.HTML(elem_id="train-resolved")
    with gr.Accordion("Log", open=False, elem_id="train-log-box") as log_box:
        log = gr.Textbox(
            show_label=False, label="Log", lines=12, max_lines=12, interactive=False, elem_id="train-log",
            elem_classes="log", placeholder="Nothing was printed yet."
        )
    return TrainTab(
        run=run, status=shown_status, progress=progress, loss=loss, notes=notes, samples=samples, resolved=resolved,
        log=log, log_box=log_box, log_open=gr.State(False), stop=stop, kill=kill, sure=sure, resume=resume,
        again=again, chat=chat, publish=publish, timer=gr.Timer(POLL_SECONDS, active=False), seen=gr.State(()),
    )  # fmt: skip


def wire(bound: edge.Edge, tab: TrainTab) -> None:
    """Bind what happens inside this tab."""
    looked_at = [tab.run, tab.log_open]
    bound.on(tab.run.change, show, looked_at, tab.shown)
    bound.poll(tab.timer.tick, _poll, [*looked_at, tab.seen], [tab.run, *tab.shown])
    bound.on(tab.run.focus, lambda studio: gr.update(choices=choices(studio)), outputs=[tab.run])
    stopped = bound.on(tab.stop.click, lambda studio, name: studio.stop(name), [tab.run])
    bound.on(stopped.then, show, looked_at, tab.shown)
    killed = confirm.bind(bound, tab.kill, tab.sure, lambda studio, name: studio.kill(name), [tab.run])
    bound.on(killed.then, show, looked_at, tab.shown)
    resumed = bound.on(tab.resume.click, lambda studio, name: studio.resume(name), [tab.run])
    bound.on(resumed.then, show, looked_at, tab.shown)
    opened = bound.on(tab.log_box.expand, lambda _: True, outputs=[tab.log_open])
    bound.on(opened.then, show, looked_at, tab.shown)
    bound.on(tab.log_box.collapse, lambda _: False, outputs=[tab.log_open])


def choices(studio: Studio) -> list[tuple[str, str]]:
    """Every run with its status, newest first."""
    return [(f"{view.name} · {status.WORDS[view.status].lower()}", view.name) for view in studio.runs()]


def chosen(studio: Studio, name: str | None) -> Any:
    """The list of runs, with the run that was chosen, else the newest active one, else the newest."""
    views = studio.runs()
    names = [view.name for view in views]
    if name not in names:
        name = next((view.name for view in views if view.active), names[0] if names else None)
    return gr.update(choices=choices(studio), value=name)


def show(studio: Studio, name: str | None, log_open: bool) -> tuple[Any, ...]:
    """Everything about a run."""
    if not name:
        return _nothing()
    view = studio.run(name)
    log = studio.log_tail(name) if log_open else ""
    return _everything(studio, view, log, old=())


def _poll(studio: Studio, name: str | None, log_open: bool, seen: tuple[Any, ...]) -> Any:
    if not name:
        return (gr.skip(), *_nothing())
    try:
        view = studio.run(name)
    except JobError:
        return (chosen(studio, None), *[gr.skip()] * len(_nothing()))
    log = studio.log_tail(name) if log_open else ""
    if _signature(view, log) == seen:
        return gr.skip()
    news = not seen or seen[:2] != (name, view.status)
    return (gr.update(choices=choices(studio)) if news else gr.skip(), *_everything(studio, view, log, seen))


def _signature(view: RunView, log: str) -> tuple[Any, ...]:
    """Changes when anything on the screen changes."""
    state = view.state
    drawn = (len(state.metrics), len(state.evaluations), state.metrics[-1].step if state.metrics else 0)
    return view.name, view.status, state.count, drawn, len(state.samples), len(state.notes), hash(log)


def _everything(studio: Studio, view: RunView, log: str, old: tuple[Any, ...]) -> tuple[Any, ...]:
    """All updates; those that cost much are left out when nothing of theirs changed since `old`."""
    new = _signature(view, log)
    same_run = bool(old) and old[0] == new[0]
    figure: Any = gr.skip()
    if not (same_run and old[3] == new[3]):
        drawn = charts.curves(view.state.metrics, view.state.evaluations)
        figure = gr.update(value=drawn, visible=drawn is not None)
    idle = not view.active
    resumable = view.status in ("lost", "failed", "stopped")
    tail = "\n".join(studio.log_tail(view.name).splitlines()[-LOST_LINES:]) if view.status == "lost" else ""
    return (
        status.headline(view, tail),
        status.training(view),
        figure,
        gr.skip() if same_run and old[5] == new[5] else status.notes(view),
        gr.skip() if same_run and old[4] == new[4] else status.samples(view),
        status.resolved(view),
        gr.skip() if same_run and old[6] == new[6] else log,
        gr.update(visible=view.active and view.status != "stopping"),
        gr.update(visible=view.active),
        gr.update(visible=resumable, interactive=bool(view.state.checkpoints)),
        gr.update(visible=idle),
        gr.update(visible=idle and view.has_result),
        gr.update(visible=idle and view.has_result),
        gr.Timer(active=view.active),
        new,
    )


def _nothing() -> tuple[Any, ...]:
    nothing = markup.empty("No runs yet.", "Go to Configure and press Start: the demo takes under a minute.")
    hidden = [gr.update(visible=False)] * 6
    none = gr.update(value=None, visible=False)
    return nothing, "", none, "", "", "", "", *hidden, gr.Timer(active=False), ()
