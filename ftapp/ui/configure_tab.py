"""The Configure tab: places the fields of the config, says what will be trained, and starts the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.config import RunConfig
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.studio import Studio
from ftapp.ui import edge, form, markup

FIELDS = form.fields_of(RunConfig)
NAMES = [field.name for field in FIELDS]
ROWS = (("model", "data"), ("method",), ("optim", "batch", "duration", "evaluation", ""))
"""Sections whose fields stand together."""
DATASET = NAMES.index("data.dataset")
METHOD = NAMES.index("method.type")

DEMO_WORDS = (
    "The demo trains a tiny model to answer in **a new output format** (strict JSON). It shows a change of form, "
    "not new knowledge: the model already knew the answers. It takes about a minute on two processor cores."
)


@dataclass(frozen=True)
class ConfigureTab:
    """The components that other tabs are wired to."""

    components: list[Any]
    """One for each of FIELDS, in that order."""
    advanced: Any
    problems: Any
    counted: Any
    preset: Any
    parameters: Any
    machine: Any
    start: Any

    @property
    def dataset(self) -> Any:
        """The list of datasets."""
        return self.components[DATASET]


def place(studio: Studio) -> ConfigureTab:
    """Put the components on the page, filled with the demo's preset."""
    values = form.config_to_values(studio.demo_config(), FIELDS)
    made: dict[str, Any] = {}

    def put(fields: Sequence[form.Field]) -> None:
        with gr.Row(elem_classes="fields"):
            for field in fields:
                value = values[field.name]
                known: dict[str, Any] = {"choices": [value]} if field.name == "data.dataset" else {}
                made[field.name] = form.component(field, value=value, min_width=200, **known)

    with gr.Row(elem_classes="configure"):
        with gr.Column(scale=3, min_width=300):
            for sections in ROWS:
                put([field for field in FIELDS if field.level == "basic" and field.section in sections])
            with gr.Accordion("Advanced", open=False, elem_id="config-advanced") as advanced:
                for sections in ROWS:
                    put([field for field in FIELDS if field.level != "basic" and field.section in sections])
        with gr.Column(scale=1, min_width=280, elem_classes="summary"):
            parameters = gr.HTML(elem_id="config-parameters")
            machine = gr.HTML(elem_id="config-machine")
            start = gr.Button("Start training", variant="primary", elem_id="config-start")
            preset = gr.Button("Demo preset", elem_id="config-preset")
            gr.Markdown(DEMO_WORDS, elem_classes="ft-small")
    components = [made[name] for name in NAMES]
    return ConfigureTab(components, advanced, gr.State({}), gr.State(()), preset, parameters, machine, start)


def wire(bound: edge.Edge, tab: ConfigureTab) -> None:
    """Bind what happens inside this tab."""
    fields, marked = tab.components, [*tab.components, tab.problems]
    for one in fields:
        checked = bound.on(form.edited(one), _check, [tab.problems, *fields], marked, trigger_mode="always_last")
        bound.on(checked.then, _count, [tab.counted, *fields], [tab.parameters, tab.counted])
    method = tab.components[METHOD]
    dependent = [one for one, field in zip(fields, FIELDS, strict=True) if field.only_for]
    bound.on(method.change, _of_method, [method], dependent)
    preset = bound.on(tab.preset.click, _demo, outputs=fields)
    after_values_changed(bound, preset, tab)


def refresh(bound: edge.Edge, event: Any, tab: ConfigureTab) -> None:
    """On this event, look at the machine and count the parameters again."""
    bound.on(event, machine, outputs=[tab.machine])
    bound.on(event, _count, [tab.counted, *tab.components], [tab.parameters, tab.counted])


def after_values_changed(bound: edge.Edge, event: Any, tab: ConfigureTab) -> None:
    """Check and count again once an event has put other values into the form."""
    checked = bound.on(event.then, _check, [tab.problems, *tab.components], [*tab.components, tab.problems])
    bound.on(checked.then, _count, [tab.counted, *tab.components], [tab.parameters, tab.counted])


def _values(values: Sequence[form.Value]) -> dict[str, form.Value]:
    return dict(zip(NAMES, values, strict=True))


def _check(_: Studio, shown: dict[str, str], *values: form.Value) -> list[Any]:
    problems: dict[str, str] = {}
    try:
        form.parse(RunConfig, _values(values), FIELDS)
    except ConfigError as error:
        problems = error.problems
    return mark(problems, shown)


def mark(problems: dict[str, str], shown: dict[str, str]) -> list[Any]:
    """Updates for all components and the memory of what is marked."""
    return [*form.marks(FIELDS, problems, shown), problems if problems != shown else gr.skip()]


def _of_method(_: Studio, method: str) -> list[Any]:
    return [gr.update(visible=method in field.only_for) for field in FIELDS if field.only_for]


def _demo(studio: Studio) -> list[Any]:
    return filled(studio, studio.demo_config())


def filled(studio: Studio, config: RunConfig) -> list[Any]:
    """Updates that put a config into the form."""
    values = form.config_to_values(config, FIELDS)
    updates: list[Any] = [gr.update(value=values[name]) for name in NAMES]
    ids = [info.id for info in studio.datasets()]
    if values["data.dataset"] not in ids:
        updates[DATASET] = gr.update(value=None)
    return updates


def _count(studio: Studio, counted: Any, *values: form.Value) -> tuple[Any, Any]:
    """How much is trained; asked again only when the model or the method changed."""
    named = _values(values)
    plain = form.values_to_plain(named, FIELDS)
    wanted = {"model": plain.get("model"), "method": plain.get("method"), "data": {"dataset": "any"}}
    if wanted == counted:
        return gr.skip(), gr.skip()
    try:
        config = RunConfig.model_validate(wanted)
        count = studio.parameters(config.model, config.method)
    except ValueError:
        return _parameters("–", "Correct the model and the method first."), wanted
    except FtappError as error:
        return edge.in_place(error), ()
    share = count.trainable / count.total if count.total else 0
    figure = f"{markup.quantity(count.trainable)} of {markup.quantity(count.total)} trained"
    return _parameters(figure, f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"), wanted


def _parameters(figure: str, more: str) -> str:
    return (
        f"<div class='ft-figure'><span class='name'>Parameters</span><strong>{markup.text(figure)}</strong>"
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
