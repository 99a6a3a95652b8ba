"""Finding a base model: the Hub searched as one types, and what is known of the model that was chosen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import FtappError
from ftapp.contract.models import ModelFacts, ModelHit
from ftapp.studio import DEMO, Studio
from ftapp.ui import edge, form, markup
from ftapp.ui.edge import Edge

MODEL_FIELDS = form.fields_of(ModelConfig)


@dataclass(frozen=True)
class ModelPicker:
    """The components for finding a model."""

    search: Any
    hits: Any
    said: Any
    facts: Any


def place() -> ModelPicker:
    """Put the search and the facts on the page."""
    facts = gr.HTML(elem_id="config-model-facts")
    with gr.Accordion("Find a base model on the Hub", open=False, elem_id="config-find"):
        search = gr.Textbox(
            label="Words of its name", placeholder="such as qwen3 0.6b", max_lines=1, elem_id="config-model-search"
        )
        said = gr.HTML(elem_id="config-model-said")
        hits = gr.Radio(
            choices=[], label="Models", visible=False, elem_id="config-model-hits", elem_classes="tall-list"
        )
    return ModelPicker(search, hits, said, facts)


def wire(bound: Edge, picker: ModelPicker, model: Any, revision: Any) -> Any:
    """Bind the search; gives the event after which another model is in the form."""
    found = [picker.hits, picker.said]
    # change, since input is silent when words are pasted
    for event in (picker.search.change, picker.search.submit):
        bound.on(event, _search, [picker.search], found, trigger_mode="always_last")
    chosen = bound.on(picker.hits.input, lambda _, id: (id, ""), [picker.hits], [model, revision])
    for event in (chosen.then, model.blur, model.submit, revision.blur):
        bound.on(event, _facts, [model, revision], [picker.facts], trigger_mode="always_last")
    return chosen


def _search(studio: Studio, words: str) -> tuple[Any, str]:
    if len(words.strip()) < 2:
        return gr.update(choices=[], visible=False), ""
    try:
        found, told = studio.search_models(words), ""
    except FtappError as error:
        found, told = studio.recent_models(words), edge.in_place(error)
    if not found and not told:
        told = markup.notice("info", f"No model with safetensors weights has the words “{words.strip()}”.")
    return gr.update(choices=[(_label(hit), hit.id) for hit in found], value=None, visible=bool(found)), told


def _label(hit: ModelHit) -> str:
    parts = [
        hit.id,
        f"{markup.quantity(hit.parameters)} parameters" if hit.parameters else "",
        hit.licence or "",
        f"{markup.quantity(hit.downloads)} downloads a month" if hit.downloads is not None else "",
        "gated" if hit.gated else "",
        "used before" if hit.used else "",
    ]
    return " · ".join(part for part in parts if part)


def _facts(studio: Studio, id: str, revision: str) -> Iterator[str]:
    """What is known of the chosen model; the demo's is known without looking."""
    if not (id or "").strip() or id.strip() == DEMO:
        yield ""
        return
    yield "<div class='ft-stats waiting'>Looking at the model …</div>"
    try:
        model = form.parse(ModelConfig, {"id": id, "revision": revision}, MODEL_FIELDS)
        yield draw(studio.model_facts(model))
    except FtappError as error:
        yield edge.in_place(error)


def draw(facts: ModelFacts) -> str:
    """A model in a few figures and sentences."""
    if facts.refusal:
        return markup.notice("error", facts.refusal, facts.hint)
    pairs: list[tuple[str, object]] = [
        ("Architecture", facts.architecture or "not stated"),
        ("Parameters", markup.quantity(facts.parameters) if facts.parameters else "not stated"),
        ("Weights", markup.size(facts.weight_bytes)),
        ("Licence", facts.licence or "not stated"),
        ("Context", f"{facts.context:,} tokens" if facts.context else "not stated"),
        ("Ends a turn", ", ".join(facts.stop_tokens) or "not known"),
    ]
    if facts.gated:
        pairs.append(("Access", "gated, granted"))
    notes = "".join(markup.notice("info", note) for note in facts.notes)
    return f"{markup.facts(pairs)}<p class='ft-small'>{markup.text(facts.template_words)}</p>{notes}"
