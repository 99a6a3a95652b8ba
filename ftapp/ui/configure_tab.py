"""The Configure tab: places the fields of the config, says what will be trained, and starts the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from ftapp.contract.config import AdapterConfig, RunConfig
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.contract.parameters import ALL_LINEAR
from ftapp.contract.presets import PRESETS, values_of
from ftapp.studio import Studio
from ftapp.ui import code_view, edge, fields, form, model_picker, outlook
from ftapp.ui.code_view import CodeView
from ftapp.ui.edge import LAST
from ftapp.ui.fields import FIELDS, NAMES
from ftapp.ui.model_picker import ModelPicker
from ftapp.ui.outlook import Outlook

ROWS = (("model", "data"), ("method",), ("optim", "batch", "duration", "evaluation", ""))
"""Sections whose fields stand together."""
DATASET, HELD_OUT, ADAPTER = (NAMES.index(name) for name in ("data.dataset", "data.eval_dataset", "model.adapter"))
MODEL, REVISION = NAMES.index("model.id"), NAMES.index("model.revision")
METHOD = NAMES.index("method.type")
LISTS = ("data.dataset", "data.eval_dataset", "model.adapter")
"""Fields whose values are only known while the app runs."""

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
    picker: ModelPicker
    outlook: Outlook
    code: CodeView
    presets: list[Any]
    demo: Any
    start: Any

    @property
    def dataset(self) -> Any:
        """The list of datasets."""
        return self.components[DATASET]

    @property
    def held_out(self) -> Any:
        """The list of datasets to measure on."""
        return self.components[HELD_OUT]


def place(studio: Studio) -> ConfigureTab:
    """Put the components on the page, filled with the demo's preset."""
    values = form.config_to_values(studio.demo_config(), FIELDS)
    made: dict[str, Any] = {}

    def put(fields: Sequence[form.Field]) -> None:
        with gr.Row(elem_classes="fields"):
            for field in fields:
                value = values[field.name]
                known: dict[str, Any] = {"choices": [value]} if field.name in LISTS else {}
                made[field.name] = form.component(field, value=value, min_width=200, **known)

    with gr.Row(elem_classes="configure"):
        with gr.Column(scale=3, min_width=300):
            with gr.Row(elem_classes="actions", elem_id="config-presets"):
                presets = [
                    gr.Button(preset.title, size="sm", elem_id=f"config-preset-{preset.name}", min_width=100)
                    for preset in PRESETS
                ]
                demo = gr.Button("Demo", size="sm", elem_id="config-preset", min_width=80)
            for sections in ROWS:
                put([field for field in FIELDS if field.level == "basic" and field.section in sections])
                if "model" in sections:
                    picker = model_picker.place()
            with gr.Accordion("Advanced", open=False, elem_id="config-advanced") as advanced:
                for sections in ROWS:
                    put([field for field in FIELDS if field.level != "basic" and field.section in sections])
            code = code_view.place()
        with gr.Column(scale=1, min_width=300, elem_classes="summary"):
            start = gr.Button("Start training", variant="primary", elem_id="config-start")
            seen = outlook.place()
            gr.Markdown(DEMO_WORDS, elem_classes="ft-small")
    components = [made[name] for name in NAMES]
    return ConfigureTab(components, advanced, gr.State({}), picker, seen, code, presets, demo, start)


def wire(bound: edge.Edge, tab: ConfigureTab) -> None:
    """Bind what happens inside this tab."""
    components, seen = tab.components, tab.outlook
    edited = partial(gr.on, [form.edited(one) for one in components])
    checked = bound.on(edited, check, [tab.problems, *components], [*components, tab.problems], **LAST)
    _look_again(bound, checked, tab)
    bound.on(tab.dataset.change, outlook.estimate, [seen.measured, *components], seen.estimated, **LAST)
    method = components[METHOD]
    dependent = [one for one, field in zip(components, FIELDS, strict=True) if field.only_for]
    bound.on(method.change, _of_method, [method], dependent)
    code_view.wire(bound, tab.code, components)
    changed = [*outlook.wire(bound, seen, components), bound.on(tab.demo.click, _demo, outputs=components)]
    changed.append(model_picker.wire(bound, tab.picker, components[MODEL], components[REVISION]))
    for button, preset in zip(tab.presets, PRESETS, strict=True):

        def take(_: Studio, *values: form.Value, preset: Any = preset) -> list[Any]:
            named = fields.named(values)
            measured = bool(named["data.eval_dataset"]) or named["data.eval_fraction"] not in ("0", "0.0", "")
            return fields.updates(values_of(preset, str(named["method.type"]), measured))

        changed.append(bound.on(button.click, take, components, components))
    for event in changed:
        after_values_changed(bound, event, tab)


def refresh(bound: edge.Edge, event: Any, tab: ConfigureTab) -> None:
    """On this event, look at the machine and at the runs to go on from, and count and estimate again."""
    seen = tab.outlook
    bound.on(event, outlook.machine, outputs=[seen.machine])
    bound.on(event, _adapters, outputs=[tab.components[ADAPTER]])
    bound.on(event, outlook.count, [seen.counted, *tab.components], [seen.parameters, seen.counted])
    bound.on(event, outlook.estimate, [seen.measured, *tab.components], seen.estimated)


def after_values_changed(bound: edge.Edge, event: Any, tab: ConfigureTab) -> None:
    """Check, count and estimate again once an event has put other values into the form."""
    checked = bound.on(event.then, check, [tab.problems, *tab.components], [*tab.components, tab.problems], **LAST)
    _look_again(bound, checked, tab)


def _look_again(bound: edge.Edge, event: Any, tab: ConfigureTab) -> None:
    seen = tab.outlook
    bound.on(event.then, outlook.count, [seen.counted, *tab.components], [seen.parameters, seen.counted], **LAST)
    bound.on(event.then, outlook.estimate, [seen.measured, *tab.components], seen.estimated, **LAST)


def _adapters(studio: Studio) -> Any:
    """The runs whose adapter another run may go on from."""
    ended = [row for row in studio.history() if row.status in ("finished", "stopped")]
    names = [row.name for row in ended if row.method in ("lora", "qlora")]
    return gr.update(choices=[("a new adapter", ""), *names])


def check(studio: Studio, shown: dict[str, str], *values: form.Value) -> list[Any]:
    """Updates that mark what is wrong with the values, by themselves and for the chosen model."""
    problems: dict[str, str] = {}
    try:
        config = form.parse(RunConfig, fields.named(values), FIELDS)
        if isinstance(config.method, AdapterConfig) and config.method.target_modules != ALL_LINEAR:
            problems = studio.misfits(config)
    except ConfigError as error:
        problems = error.problems
    except FtappError:
        pass  # of the model: told with the parameters
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
