"""The Publish tab: merge, check, describe and push a run's result, or write it to this machine."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.config import FullConfig, PublishConfig, parse_publish_config
from ftapp.contract.elsewhere import short_name
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.studio import Studio
from ftapp.ui import card_box, edge, form, markup, publication
from ftapp.views import PublicationView

FIELDS = {field.name: field for field in form.fields_of(PublishConfig)}
PLACED = [FIELDS[name] for name in ("artifact", "with_base", "destination", "private", "mode", "branch")]
POLL_SECONDS = 0.8
AGAIN = ("failed", "lost", "stopped")


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
        return [*boxes, self.stop, self.again, self.timer, self.seen]

    @property
    def of(self) -> dict[str, Any]:
        """The component of each field."""
        return {field.name: one for field, one in zip(PLACED, self.placed, strict=True)}


def place(studio: Studio) -> PublishTab:
    """Put the components on the page."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            run = gr.Dropdown(choices=[], label="Run", elem_id="publish-run", interactive=True, filterable=False)
            made = {"artifact": form.component(FIELDS["artifact"], elem_id="publish-artifact")}
            about_base = gr.HTML(elem_id="publish-about-base")
            made["with_base"] = form.component(FIELDS["with_base"], elem_id="publish-with-base", visible=False)
            made["destination"] = form.component(
                FIELDS["destination"], elem_id="publish-destination", placeholder="owner/name"
            )
            made["private"] = form.component(FIELDS["private"], elem_id="publish-private")
            made["mode"] = form.component(FIELDS["mode"], elem_id="publish-mode")
            made["branch"] = form.component(FIELDS["branch"], elem_id="publish-branch", visible=False)
            token = gr.Textbox(
                label="Hub token", type="password", max_lines=1, elem_id="publish-token",
                info="Used for this publication only; it is not stored.",
                placeholder=_whose_token(studio),
                html_attributes=gr.InputHTMLAttributes(autocomplete="new-password", spellcheck=False),
            )  # fmt: skip
            with gr.Row(elem_classes="actions"):
                check = gr.Button("Check token and destination", size="sm", elem_id="publish-check", min_width=110)
            account = gr.HTML(elem_id="publish-account")
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
        run, [made[field.name] for field in PLACED], about_base, token, check, account, card, start, keep, stop, again,
        progress, checked, result, earlier,
        gr.State(""), gr.State({}), gr.Timer(POLL_SECONDS, active=False), gr.State(()),
    )  # fmt: skip


def wire(bound: edge.Edge, tab: PublishTab) -> None:
    """Bind what happens inside this tab."""
    of, card, asked = tab.of, tab.card, [tab.run, tab.problems, *tab.placed]
    marked = [*tab.placed, tab.problems]
    written = [tab.run, card.text, card.drafted, *tab.placed]
    bound.on(of["destination"].change, _buttons, [of["destination"]], [tab.start, tab.keep])
    bound.on(of["mode"].change, _of_mode, [of["mode"]], [of["branch"]])
    for event in (of["destination"].blur, of["branch"].blur, of["with_base"].input, of["mode"].input):
        looked = bound.on(event, _check, asked, marked)
        bound.on(looked.then, _draft, written, card.filled)
    based = bound.on(of["artifact"].change, _of_artifact, [tab.run, of["artifact"]], [tab.about_base, of["with_base"]])
    bound.on(based.then, _draft, written, card.filled)
    bound.on(tab.check.click, _check_all, [tab.run, tab.token, *tab.placed], [tab.account, of["destination"]])
    bound.on(card.box.expand, _draft, written, card.filled)
    bound.on(card.anew.click, _anew, written, card.filled)
    bound.on(card.preview_tab.select, card_box.preview, [card.text], [card.preview])
    for button, how in ((tab.start, _publish), (tab.keep, _keep)):
        inputs = [tab.run, tab.token, tab.problems, card.text, card.drafted, *tab.placed]
        _after_start(bound, tab, bound.on(button.click, how, inputs, [tab.number, *marked]))
    _after_start(bound, tab, bound.on(tab.again.click, _again, [tab.run, tab.number, tab.token], [tab.number]))
    changed = bound.on(tab.run.change, _of_run, [tab.run], [of["artifact"], tab.start, tab.number])
    based = bound.on(changed.then, _of_artifact, [tab.run, of["artifact"]], [tab.about_base, of["with_base"]])
    bound.on(based.then, _anew, written, card.filled)
    bound.on(changed.then, _show, [tab.run, tab.number], tab.shown)
    bound.on(bound.on(tab.stop.click, _stop, [tab.run, tab.number]).then, _show, [tab.run, tab.number], tab.shown)
    bound.poll(tab.timer.tick, _poll, [tab.run, tab.number, tab.seen], tab.shown)


def _after_start(bound: edge.Edge, tab: PublishTab, started: Any) -> None:
    # whatever came of it, the token leaves the page
    bound.on(started.then, lambda _: "", outputs=[tab.token])
    bound.on(started.success, _show, [tab.run, tab.number], tab.shown)


def refresh(bound: edge.Edge, event: Any, tab: PublishTab) -> None:
    """On this event, read again which runs have a result, and what became of the chosen one's publications."""
    listed = bound.on(event, chosen, [tab.run], [tab.run])
    bound.on(listed.then, _show, [tab.run, tab.number], tab.shown)


def _buttons(_: Studio, destination: str) -> tuple[Any, Any]:
    named = bool(destination.strip())
    return gr.update(value="Publish" if named else "Write to this machine"), gr.update(visible=named)


def _of_mode(_: Studio, mode: str) -> Any:
    return gr.update(visible=True) if mode == "branch" else gr.update(visible=False, value="")


def _whose_token(studio: Studio) -> str:
    if studio.settings.sign_in:
        return "That of your sign-in is used"
    return "HF_TOKEN of the environment is used" if studio.settings.hub_token else "hf_…"


def _of_artifact(studio: Studio, run: str | None, artifact: str) -> tuple[str, Any]:
    """Say what an adapter of a base that nobody can get is worth, and offer the base beside it."""
    model = studio.run(run).config.model if run else None
    if model is None or artifact != "adapter" or model.on_hub:
        return "", gr.update(visible=False, value=False)
    words = f"The base {model.public_name} is not on the Hub: others could not use the adapter alone."
    return markup.notice("info", words, "Publish the merged model, or put the base beside it."), gr.update(visible=True)


def _config(run: str | None, values: tuple[form.Value, ...], **given: Any) -> PublishConfig:
    named = {field.name: value for field, value in zip(PLACED, values, strict=True)}
    return parse_publish_config({**form.values_to_plain(named, PLACED), "run": run or "", **given})


def _valid(run: str | None, values: tuple[form.Value, ...]) -> PublishConfig | None:
    try:
        return _config(run, values)
    except ConfigError:
        return None


def _check(_: Studio, run: str | None, shown: dict[str, str], *values: form.Value) -> list[Any]:
    problems: dict[str, str] = {}
    try:
        _config(run or "any", values)
    except ConfigError as error:
        problems = error.problems
    return [*form.marks(PLACED, problems, shown), problems]


def _draft(studio: Studio, run: str | None, text: str | None, drafted: str, *values: form.Value) -> list[Any]:
    return card_box.draft(studio, _valid(run, values), text, drafted, anew=False)


def _anew(studio: Studio, run: str | None, text: str | None, drafted: str, *values: form.Value) -> list[Any]:
    return card_box.draft(studio, _valid(run, values), text, drafted, anew=True)


def _check_all(studio: Studio, run: str | None, token: str | None, *values: form.Value) -> tuple[str, Any]:
    """Whose token it is, where it may write, and what a push would do; a name is suggested where none is given."""
    try:
        account = studio.whoami(token)
        if not account.can_write:
            words = f"The token of {account.name} can only read."
            return markup.notice("warning", words, "Make one with write access."), gr.skip()
        whose = markup.notice(
            "success", f"The token belongs to {account.name} and can write.", f"Owners: {', '.join(account.owners)}"
        )
        if not run:
            return whose, gr.skip()
        config = _config(run, values)
        if not config.destination:
            return whose, f"{account.owners[0].split('/')[0]}/{short_name(config)}"
        return whose + markup.notice("info", studio.check_destination(config, token)), gr.skip()
    except FtappError as error:
        return edge.in_place(error), gr.skip()


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
    plain: dict[str, Any] = {"destination": None, "mode": "commit", "branch": None}
    return _start(studio, run, token, shown, values, card=card_box.edited(text, drafted), **plain)


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
        number = studio.publish(_config(run, values, **given), token)
    except ConfigError as error:
        edge.warn("Correct what is marked first." if set(error.problems) - {"card"} else error.message)
        return [gr.skip(), *form.marks(PLACED, error.problems, shown), error.problems]
    return [number, *form.marks(PLACED, {}, shown), {}]


def _stop(studio: Studio, run: str, number: str) -> None:
    """The first time ask it to stop; a large file on its way can take long, so the second time end it."""
    if studio.publication(run, number).status == "stopping":
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
        return (*[gr.skip()] * 6, gr.Timer(active=False), ())
    if _signature(studio.publication(run, number)) == seen:
        return gr.skip()
    return _show(studio, run, number)


def _signature(view: PublicationView) -> tuple[Any, ...]:
    return view.folder, view.status, view.state.count


def _show(studio: Studio, run: str | None, number: str) -> tuple[Any, ...]:
    hidden, off = gr.update(visible=False), gr.Timer(active=False)
    if not run:
        nothing = markup.empty("Nothing to publish yet.", "Train first: go to Configure and press Start.")
        return nothing, "", "", "", hidden, hidden, off, ()
    views = studio.publications(run)
    view = next((one for one in views if one.name == number), None)
    if view is None:
        nothing = markup.empty("Not published yet.", "Choose what and where to, then press the button.")
        return nothing, "", "", "", hidden, hidden, off, ()
    return (
        publication.head(view),
        publication.checked(view),
        publication.result(studio, view),
        publication.earlier([one for one in views if one is not view]),
        gr.update(visible=view.active, value="End now" if view.status == "stopping" else "Stop"),
        gr.update(visible=view.status in AGAIN),
        gr.Timer(active=view.active),
        _signature(view),
    )
