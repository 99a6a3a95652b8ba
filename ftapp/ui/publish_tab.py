"""The Publish tab: merge, describe and push a run's result, or write it to this machine."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import gradio as gr

from ftapp.contract.config import FullConfig, PublishConfig, parse_publish_config
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.contract.events import Finished
from ftapp.studio import Studio
from ftapp.ui import edge, form, markup, status
from ftapp.views import PublicationView

FIELDS = {field.name: field for field in form.fields_of(PublishConfig)}
PLACED = [FIELDS["artifact"], FIELDS["destination"], FIELDS["private"]]
POLL_SECONDS = 0.8


@dataclass(frozen=True)
class PublishTab:
    """The components that other tabs are wired to."""

    run: Any
    artifact: Any
    destination: Any
    private: Any
    token: Any
    check: Any
    account: Any
    start: Any
    stop: Any
    progress: Any
    result: Any
    earlier: Any
    number: Any
    problems: Any
    timer: Any
    seen: Any

    @property
    def shown(self) -> list[Any]:
        """What `_show` updates, in its order."""
        return [self.progress, self.result, self.earlier, self.stop, self.timer, self.seen]


def place(studio: Studio) -> PublishTab:
    """Put the components on the page."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            run = gr.Dropdown(choices=[], label="Run", elem_id="publish-run", interactive=True, filterable=False)
            artifact = form.component(FIELDS["artifact"], elem_id="publish-artifact")
            destination = form.component(FIELDS["destination"], elem_id="publish-destination")
            private = form.component(FIELDS["private"], elem_id="publish-private")
            token = gr.Textbox(
                label="Hub token", type="password", max_lines=1, elem_id="publish-token",
                info="Used for this publication only; it is not stored.",
                placeholder="HF_TOKEN of the environment is used" if studio.settings.hub_token else "hf_…",
                html_attributes=gr.InputHTMLAttributes(autocomplete="new-password", spellcheck=False),
            )  # fmt: skip
            with gr.Row(elem_classes="actions"):
                check = gr.Button("Check token", size="sm", elem_id="publish-check", min_width=110)
            account = gr.HTML(elem_id="publish-account")
            start = gr.Button("Write to this machine", variant="primary", elem_id="publish-start")
        with gr.Column(scale=1, min_width=300):
            progress = gr.HTML(elem_id="publish-progress")
            stop = gr.Button("Stop", size="sm", visible=False, elem_id="publish-stop")
            result = gr.HTML(elem_id="publish-result")
            earlier = gr.HTML(elem_id="publish-earlier")
    return PublishTab(
        run, artifact, destination, private, token, check, account, start, stop, progress, result, earlier,
        gr.State(""), gr.State({}), gr.Timer(POLL_SECONDS, active=False), gr.State(()),
    )  # fmt: skip


def wire(bound: edge.Edge, tab: PublishTab) -> None:
    """Bind what happens inside this tab."""
    placed = [tab.artifact, tab.destination, tab.private]
    marked = [*placed, tab.problems]
    bound.on(tab.destination.change, _button, [tab.destination], [tab.start])
    bound.on(tab.destination.blur, _check, [tab.run, tab.problems, *placed], marked)
    bound.on(tab.check.click, _whoami, [tab.token], [tab.account])
    started = bound.on(tab.start.click, _publish, [tab.run, tab.token, tab.problems, *placed], [tab.number, *marked])
    # whatever came of it, the token leaves the page
    bound.on(started.then, lambda _: "", outputs=[tab.token])
    bound.on(started.success, _show, [tab.run, tab.number], tab.shown)
    changed = bound.on(tab.run.change, _of_run, [tab.run], [tab.artifact, tab.start, tab.number])
    bound.on(changed.then, _show, [tab.run, tab.number], tab.shown)
    bound.on(tab.stop.click, lambda studio, run, number: studio.stop(run, number), [tab.run, tab.number])
    bound.poll(tab.timer.tick, _poll, [tab.run, tab.number, tab.seen], tab.shown)


def refresh(bound: edge.Edge, event: Any, tab: PublishTab) -> None:
    """On this event, read again which runs have a result, and what became of the chosen one's publications."""
    listed = bound.on(event, chosen, [tab.run], [tab.run])
    bound.on(listed.then, _show, [tab.run, tab.number], tab.shown)


def _button(_: Studio, destination: str) -> Any:
    return gr.update(value="Publish" if destination.strip() else "Write to this machine")


def _config(run: str | None, values: tuple[form.Value, ...]) -> PublishConfig:
    named = {field.name: value for field, value in zip(PLACED, values, strict=True)}
    return parse_publish_config({**form.values_to_plain(named, PLACED), "run": run or ""})


def _check(_: Studio, run: str | None, shown: dict[str, str], *values: form.Value) -> list[Any]:
    problems: dict[str, str] = {}
    try:
        _config(run or "any", values)
    except ConfigError as error:
        problems = error.problems
    return [*form.marks(PLACED, problems, shown), problems]


def _whoami(studio: Studio, token: str) -> str:
    try:
        account = studio.whoami(token.strip() or None)
    except FtappError as error:
        return edge.in_place(error)
    places = ", ".join([account.name, *account.organisations])
    if not account.can_write:
        return markup.notice("warning", f"The token of {account.name} can only read.", "Make one with write access.")
    return markup.notice("success", f"The token belongs to {account.name} and can write.", f"Owners: {places}")


def _publish(studio: Studio, run: str | None, token: str, shown: dict[str, str], *values: form.Value) -> list[Any]:
    if not run:
        edge.warn("There is no trained run to publish yet. Start one in the Configure tab.")
        return [gr.skip()] * (len(PLACED) + 2)
    try:
        config = _config(run, values)
    except ConfigError as error:
        edge.warn("Correct what is marked first.")
        return [gr.skip(), *form.marks(PLACED, error.problems, shown), error.problems]
    number = studio.publish(config, token.strip() or None)
    return [number, *form.marks(PLACED, {}, shown), {}]


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
        return (*[gr.skip()] * 4, gr.Timer(active=False), ())
    if _signature(studio.publication(run, number)) == seen:
        return gr.skip()
    return _show(studio, run, number)


def _signature(view: PublicationView) -> tuple[Any, ...]:
    return view.folder, view.status, view.state.count


def _show(studio: Studio, run: str | None, number: str) -> tuple[Any, ...]:
    hidden, off = gr.update(visible=False), gr.Timer(active=False)
    if not run:
        nothing = markup.empty("Nothing to publish yet.", "Train first: go to Configure and press Start.")
        return nothing, "", "", hidden, off, ()
    views = studio.publications(run)
    view = next((one for one in views if one.name == number), None)
    if view is None:
        nothing = markup.empty("Not published yet.", "Choose what and where to, then press the button.")
        return nothing, "", "", hidden, off, ()
    return (
        status.headline(view, told=not isinstance(view.state.end, Finished)) + status.phase_bar(view),
        _result(view),
        _earlier([one for one in views if one is not view]),
        gr.update(visible=view.active),
        gr.Timer(active=view.active),
        _signature(view),
    )


def _what(view: PublicationView) -> str:
    return f"{view.config.artifact} → {view.config.destination or 'this machine'}"


def _result(view: PublicationView) -> str:
    end = view.state.end
    if not isinstance(end, Finished):
        return f"<p class='ft-small'>{markup.text(_what(view))}</p>"
    place = f"<p>On this machine: <code>{markup.text(view.folder / end.artifact)}</code></p>"
    return f"<p>On the Hub: {markup.link(end.url)}</p>{place}" if end.url else place


def _earlier(views: list[PublicationView]) -> str:
    if not views:
        return ""
    rows = [
        (f"{datetime.fromtimestamp(view.created):%Y-%m-%d %H:%M}", _what(view), status.WORDS[view.status], _where(view))
        for view in views
    ]
    return "<h4>Earlier publications</h4>" + markup.table(("When", "What", "Status", "Where"), rows, "Publications")


def _where(view: PublicationView) -> str:
    end = view.state.end
    return (end.url or str(view.folder / end.artifact)) if isinstance(end, Finished) else view.message
