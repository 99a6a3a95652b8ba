"""A second click before something that cannot be taken back; any tab may call it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.studio import Studio
from ftapp.ui.edge import Edge


@dataclass(frozen=True)
class Confirmation:
    """The question, hidden until the first click."""

    box: Any
    yes: Any
    no: Any


def confirmation(question: str, yes: str, elem_id: str) -> Confirmation:
    """Place the hidden question with its two buttons."""
    with gr.Column(visible=False, elem_id=elem_id, elem_classes="confirm") as box:
        gr.Markdown(question, elem_classes="confirm-question")
        with gr.Row():
            sure = gr.Button(yes, variant="stop", size="sm", elem_id=f"{elem_id}-yes")
            cancel = gr.Button("Cancel", size="sm", elem_id=f"{elem_id}-no")
    return Confirmation(box, sure, cancel)


def bind(edge: Edge, button: Any, asked: Confirmation, handler: Callable[..., Any], inputs: list[Any]) -> Any:
    """First click asks; yes calls the handler, which returns nothing; either answer hides the question again."""

    def ask(_: Studio) -> Any:
        return gr.update(visible=True)

    def hide(_: Studio) -> Any:
        return gr.update(visible=False)

    def do(studio: Studio, *values: Any) -> Any:
        handler(studio, *values)

    edge.on(button.click, ask, outputs=[asked.box])
    edge.on(asked.no.click, hide, outputs=[asked.box])
    edge.on(asked.yes.click, hide, outputs=[asked.box])
    return edge.on(asked.yes.click, do, inputs)
