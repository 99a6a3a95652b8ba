"""What the Publish tab asks for: which artifact, where to, as whose; its fields, read into a config and checked."""

from typing import Any

import gradio as gr

from ftapp.contract.elsewhere import short_name
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.contract.publication import PublishConfig, parse_publish_config
from ftapp.studio import Studio
from ftapp.ui import edge, form, markup

FIELDS = {field.name: field for field in form.fields_of(PublishConfig)}
PLACED = [FIELDS[name] for name in ("artifact", "gguf_type", "with_base", "destination", "private", "mode", "branch")]
HERE: dict[str, Any] = {"destination": None, "mode": "commit", "branch": None}
"""Of what stays on this machine."""
OF_ARTIFACT = ("gguf_type", "with_base", "destination", "private", "mode")
"""Fields that `of_artifact` shows or hides, after what it says."""
SUGGEST = "(name, suggestion) => (name || '').trim() ? name : suggestion"
"""In the browser: a name that was typed while one was looked for stays."""


def place() -> tuple[dict[str, Any], Any]:
    """Put the fields on the page: each by its name, and the box for what there is to say of the artifact."""
    made = {"artifact": form.component(FIELDS["artifact"], elem_id="publish-artifact")}
    about = gr.HTML(elem_id="publish-about-base")
    made["gguf_type"] = form.component(FIELDS["gguf_type"], elem_id="publish-gguf-type", visible=False)
    made["with_base"] = form.component(FIELDS["with_base"], elem_id="publish-with-base", visible=False)
    made["destination"] = form.component(FIELDS["destination"], elem_id="publish-destination", placeholder="owner/name")
    made["private"] = form.component(FIELDS["private"], elem_id="publish-private")
    made["mode"] = form.component(FIELDS["mode"], elem_id="publish-mode")
    made["branch"] = form.component(FIELDS["branch"], elem_id="publish-branch", visible=False)
    return made, about


def of_mode(_: Studio, mode: str) -> Any:
    """A branch is named only where one is pushed to."""
    return gr.update(visible=True) if mode == "branch" else gr.update(visible=False, value="")


def of_artifact(studio: Studio, run: str | None, artifact: str) -> tuple[Any, ...]:
    """Say what keeps an artifact from being of use, and show what is for it: fields, check and card."""
    gguf = artifact == "gguf"
    pushed = [gr.update(visible=not gguf)] * 5
    words, beside = "", gr.update(visible=False, value=False)
    if gguf and not studio.settings.llama_cpp:
        words = markup.notice(
            "warning",
            "GGUF files are made by llama.cpp, and FTAPP_LLAMA_CPP names none.",
            "Set it to a llama.cpp's folder and start the app again; or choose merged: it shows the commands.",
        )
    elif run and artifact == "adapter" and not (model := studio.run(run).config.model).on_hub:
        words = markup.notice(
            "info",
            f"The base {model.public_name} is not on the Hub: others could not use the adapter alone.",
            "Publish the merged model, or put the base beside it.",
        )
        beside = gr.update(visible=True)
    return (words, gr.update(visible=gguf), beside, *pushed)


def config(run: str | None, values: tuple[form.Value, ...], **given: Any) -> PublishConfig:
    """What is asked for; raises ConfigError."""
    named = {field.name: value for field, value in zip(PLACED, values, strict=True)}
    plain = form.values_to_plain(named, PLACED)
    if plain["artifact"] == "gguf":  # its other fields are hidden
        given |= {**HERE, "card": None}
    return parse_publish_config({**plain, "run": run or "", **given})


def valid(run: str | None, values: tuple[form.Value, ...]) -> PublishConfig | None:
    """The same; None where it is not valid."""
    try:
        return config(run, values)
    except ConfigError:
        return None


def check(_: Studio, run: str | None, shown: dict[str, str], *values: form.Value) -> list[Any]:
    """Mark the fields that are not valid."""
    problems: dict[str, str] = {}
    try:
        config(run or "any", values)
    except ConfigError as error:
        problems = error.problems
    return [*form.marks(PLACED, problems, shown), problems]


def check_all(studio: Studio, run: str | None, token: str | None, *values: form.Value) -> tuple[str, str]:
    """Whose token it is, where it may write, and what a push would do; a name to suggest where none is given."""
    try:
        account = studio.whoami(token)
        if not account.can_write:
            words = f"The token of {account.name} can only read."
            return markup.notice("warning", words, "Make one with write access."), ""
        whose = markup.notice(
            "success", f"The token belongs to {account.name} and can write.", f"Owners: {', '.join(account.owners)}"
        )
        if not run:
            return whose, ""
        asked = config(run, values)
        if not asked.destination:
            return whose, f"{account.owners[0].split('/')[0]}/{short_name(asked)}"
        return whose + markup.notice("info", studio.check_destination(asked, token)), ""
    except FtappError as error:
        return edge.in_place(error), ""
