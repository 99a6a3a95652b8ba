"""The Publish tab: merge, check, describe and push a run's result, or write it to this machine."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.config import FullConfig
from ftapp.contract.errors import ConfigError
from ftapp.studio import Studio
from ftapp.ui import card_box, destination, edge, form, markup, publication
from ftapp.ui.destination import OF_ARTIFACT, PLACED
from ftapp.views import PublicationView

POLL_SECONDS = 0.8
AGAIN = ("failed", "lost", "stopped")
END = "End now"


@dataclass(frozen=True)
class PublishTab:
    """The components that other tabs are wired to."""

    run: Any
    placed: list[Any]
    """One for each of PLACED."""
    about_base: Any
    token: Any
    check: Any
    account: Any
    suggestion: Any
    card: card_box.CardBox
    start: Any
    keep: Any
    stop: Any
    again: Any
    progress: Any
    checked: Any
    result: Any
    earlier: Any
    number: Any
    problems: Any
    timer: Any
    seen: Any

    @property
    def shown(self) -> list[Any]:
        """What `_show` updates, in its order."""
        boxes = [self.progress, self.checked, self.result, self.earlier]
        return [*boxes, self.stop, self.again, self.number, self.timer, self.seen]

    @property
    def of(self) -> dict[str, Any]:
        """The component of each field."""
        return {field.name: one for field, one in zip(PLACED, self.placed, strict=True)}


def place(studio: Studio) -> PublishTab:
    """Put the components on the page."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            run = gr.Dropdown(choices=[], label="Run", elem_id="publish-run", interactive=True, filterable=False)
            made, about_base = destination.place()
            token = gr.Textbox(
                label="Hub token", type="password", max_lines=1, elem_id="publish-token",
                info="Used for this publication only; it is not stored.",
                placeholder=_whose_token(studio),
                html_attributes=gr.InputHTMLAttributes(autocomplete="new-password", spellcheck=False),
            )  # fmt: skip
            with gr.Row(elem_classes="actions"):
                check = gr.Button("Check token and destination", size="sm", elem_id="publish-check", min_width=110)
            account = gr.HTML(elem_id="publish-account")
            suggestion = gr.Textbox(visible="hidden", elem_id="publish-suggestion")
            card = card_box.place()
            start = gr.Button("Write to this machine", variant="primary", elem_id="publish-start")
            keep = gr.Button("Make and check, do not push", size="sm", visible=False, elem_id="publish-keep")
        with gr.Column(scale=1, min_width=300):
            progress = gr.HTML(elem_id="publish-progress")
            with gr.Row(elem_classes="actions"):
                stop = gr.Button("Stop", size="sm", visible=False, elem_id="publish-stop", min_width=110)
                again = gr.Button("Publish again", size="sm", visible=False, elem_id="publish-again", min_width=110)
            checked = gr.HTML(elem_id="publish-checked")
            result = gr.HTML(elem_id="publish-result")
            earlier = gr.HTML(elem_id="publish-earlier")
    return PublishTab(
        run, [made[field.name] for field in PLACED], about_base, token, check, account, suggestion, card, start, keep,
        stop, again, progress, checked, result, earlier,
        gr.State(""), gr.State({}), gr.Timer(POLL_SECONDS, active=False), gr.State(()),
    )  # fmt: skip


def wire(bound: edge.Edge, tab: PublishTab) -> None:
    """Bind what happens inside this tab."""
    of, card, asked = tab.of, tab.card, [tab.run, tab.problems, *tab.placed]
    marked = [*tab.placed, tab.problems]
    for one in (of["destination"], of["artifact"]):
        bound.on(one.change, _buttons, [of["destination"], of["artifact"]], [tab.start, tab.keep])
    bound.on(of["mode"].change, destination.of_mode, [of["mode"]], [of["branch"]])
    for event in (of["destination"].blur, of["branch"].blur, of["with_base"].input, of["mode"].input):
        looked = bound.on(event, destination.check, asked, marked)
        _fill(bound, looked.then, _draft, tab)
    kind = [tab.run, of["artifact"]]
    about = [tab.about_base, *(of[name] for name in OF_ARTIFACT), tab.check, card.box]
    based = bound.on(of["artifact"].change, destination.of_artifact, kind, about)
    _fill(bound, based.then, _draft, tab)
    told = [tab.account, tab.suggestion]
    checked = bound.on(tab.check.click, destination.check_all, [tab.run, tab.token, *tab.placed], told)
    bound.in_browser(checked.then, destination.SUGGEST, [of["destination"], tab.suggestion], [of["destination"]])
    _fill(bound, card.box.expand, _draft, tab)
    _fill(bound, card.anew.click, _anew, tab)
    bound.on(card.preview_tab.select, card_box.preview, [card.text], [card.preview])
    for button, how in ((tab.start, _publish), (tab.keep, _keep)):
        inputs = [tab.run, tab.token, tab.problems, card.text, card.drafted, *tab.placed]
        _after_start(bound, tab, bound.on(button.click, how, inputs, [tab.number, *marked]))
    _after_start(bound, tab, bound.on(tab.again.click, _again, [tab.run, tab.number, tab.token], [tab.number]))
    changed = bound.on(tab.run.change, _of_run, [tab.run], [of["artifact"], tab.start, tab.number], **edge.LAST)
    based = bound.on(changed.then, destination.of_artifact, kind, about, **edge.LAST)
    _fill(bound, based.then, _anew, tab)
    bound.on(changed.then, _show, [tab.run, tab.number], tab.shown, **edge.LAST)
    stopped = bound.on(tab.stop.click, _stop, [tab.run, tab.number, tab.stop])
    bound.on(edge.ended(stopped), _show, [tab.run, tab.number], tab.shown)
    bound.poll(tab.timer.tick, _poll, [tab.run, tab.number, tab.seen], tab.shown)


def _fill(bound: edge.Edge, event: Any, how: Any, tab: PublishTab) -> None:
    """On this event, write the card from the run, as `how` says."""
    card = tab.card
    card_box.take(bound, bound.on(event, how, [tab.run, card.text, card.drafted, *tab.placed], [card.offer]).then, card)


def _after_start(bound: edge.Edge, tab: PublishTab, started: Any) -> None:
    # whatever came of it, the token leaves the page
    bound.on(edge.ended(started), lambda _: "", outputs=[tab.token])
    bound.on(started.success, _show, [tab.run, tab.number], tab.shown)


def refresh(bound: edge.Edge, event: Any, tab: PublishTab) -> None:
    """On this event, read again which runs have a result, and what became of the chosen one's publications."""
    listed = bound.on(event, lambda studio, name: edge.keep_chosen(chosen(studio, name), name), [tab.run], [tab.run])
    bound.on(listed.then, _show, [tab.run, tab.number], tab.shown)


def _buttons(_: Studio, name: str, artifact: str) -> tuple[Any, Any]:
    named = bool(name.strip()) and artifact != "gguf"
    return gr.update(value="Publish" if named else "Write to this machine"), gr.update(visible=named)


def _whose_token(studio: Studio) -> str:
    if studio.settings.sign_in:
        return "That of your sign-in is used"
    return "HF_TOKEN of the environment is used" if studio.settings.hub_token else "hf_…"


def _draft(studio: Studio, run: str | None, text: str | None, drafted: str, *values: form.Value) -> str:
    return card_box.draft(studio, destination.valid(run, values), text, drafted, anew=False)


def _anew(studio: Studio, run: str | None, text: str | None, drafted: str, *values: form.Value) -> str:
    return card_box.draft(studio, destination.valid(run, values), text, drafted, anew=True)


def _publish(
    studio: Studio,
    run: str | None,
    token: str | None,
    shown: dict[str, str],
    text: str | None,
    drafted: str,
    *values: form.Value,
) -> list[Any]:
    return _start(studio, run, token, shown, values, card=card_box.edited(text, drafted))


def _keep(
    studio: Studio,
    run: str | None,
    token: str | None,
    shown: dict[str, str],
    text: str | None,
    drafted: str,
    *values: form.Value,
) -> list[Any]:
    card = card_box.edited(text, drafted)
    return _start(studio, run, token, shown, values, card=card, **destination.HERE)


def _start(
    studio: Studio,
    run: str | None,
    token: str | None,
    shown: dict[str, str],
    values: tuple[form.Value, ...],
    **given: Any,
) -> list[Any]:
    if not run:
        edge.warn("There is no trained run to publish yet. Start one in the Configure tab.")
        return [gr.skip()] * (len(PLACED) + 2)
    try:
        number = studio.publish(destination.config(run, values, **given), token)
    except ConfigError as error:
        edge.warn("Correct what is marked first." if set(error.problems) - {"card"} else error.message)
        return [gr.skip(), *form.marks(PLACED, error.problems, shown), error.problems]
    return [number, *form.marks(PLACED, {}, shown), {}]


def _stop(studio: Studio, run: str, number: str, asked: str) -> None:
    """Ask it to stop; a large file on its way can take long, so then end it, if that is what the button says."""
    if asked == END:
        studio.kill(run, number)
    else:
        studio.stop(run, number)


def _again(studio: Studio, run: str, number: str, token: str | None) -> str:
    return studio.publish_again(run, number, token)


def chosen(studio: Studio, name: str | None) -> Any:
    """The runs that have a result, the newest chosen unless another one was."""
    names = [view.name for view in studio.runs() if view.has_result]
    value = name if name in names else names[0] if names else None
    return gr.update(choices=names, value=value, visible=bool(names))


def _of_run(studio: Studio, run: str | None) -> tuple[Any, Any, str]:
    if not run:
        return gr.skip(), gr.update(interactive=False), ""
    full = isinstance(studio.run(run).config.method, FullConfig)
    publications = studio.publications(run)
    newest = publications[0].name if publications else ""
    return gr.update(value="merged") if full else gr.skip(), gr.update(interactive=True), newest


def _poll(studio: Studio, run: str | None, number: str, seen: tuple[Any, ...]) -> Any:
    if not run or not number:
        return (*[gr.skip()] * 7, gr.Timer(active=False), ())
    if _signature(studio.publication(run, number)) == seen:
        return gr.skip()
    return _show(studio, run, number)


def _signature(view: PublicationView) -> tuple[Any, ...]:
    return view.folder, view.status, view.state.count


def _show(studio: Studio, run: str | None, number: str) -> tuple[Any, ...]:
    hidden, off = gr.update(visible=False), gr.Timer(active=False)
    if not run:
        nothing = markup.empty("Nothing to publish yet.", "Train first: go to Configure and press Start.")
        return nothing, "", "", "", hidden, hidden, "", off, ()
    views = studio.publications(run)
    # one at work goes first, whoever began it; else the one that was shown, else the newest
    views.sort(key=lambda one: (not one.active, one.name != number))
    view = views[0] if views else None
    if view is None:
        nothing = markup.empty("Not published yet.", "Choose what and where to, then press the button.")
        return nothing, "", "", "", hidden, hidden, "", off, ()
    return (
        publication.head(view),
        publication.checked(view),
        publication.result(studio, view),
        publication.earlier([one for one in views if one is not view]),
        gr.update(visible=view.active, value=END if view.status == "stopping" else "Stop"),
        gr.update(visible=view.status in AGAIN and not view.unreadable),
        view.name,
        gr.Timer(active=view.active),
        _signature(view),
    )
