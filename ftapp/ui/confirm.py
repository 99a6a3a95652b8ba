"""A second click before something that cannot be taken back; any tab may call it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.studio import Studio
from ftapp.ui.edge import Edge


@dataclass(frozen=True)
class Confirmation:
    """The question, hidden until the first click."""

    box: Any
    question: Any
    yes: Any
    no: Any
    about: Any
    """What is asked about: it may not be what is chosen any more when the answer comes."""


def confirmation(yes: str, elem_id: str) -> Confirmation:
    """Place the hidden question with its two buttons."""
    with gr.Column(visible=False, elem_id=elem_id, elem_classes="confirm") as box:
        question = gr.Markdown(elem_classes="confirm-question")
        with gr.Row():
            sure = gr.Button(yes, variant="stop", size="sm", elem_id=f"{elem_id}-yes")
            cancel = gr.Button("Cancel", size="sm", elem_id=f"{elem_id}-no")
    return Confirmation(box, question, sure, cancel, gr.State(None))


def bind(
    edge: Edge,
    button: Any,
    asked: Confirmation,
    words: Callable[[Any], str],
    handler: Callable[..., Any],
    about: Any,
    inputs: Sequence[Any] = (),
) -> Any:
    """First click asks about the value of `about`, in these words; yes calls the handler with that value and `inputs`.

    The handler returns nothing; either answer hides the question again. Without words nothing is asked.
    """

    def ask(_: Studio, value: Any) -> tuple[Any, str, Any]:
        question = words(value)
        return gr.update(visible=bool(question)), question, value

    def hide(_: Studio) -> Any:
        return gr.update(visible=False)

    def do(studio: Studio, value: Any, *values: Any) -> Any:
        handler(studio, value, *values)

    edge.on(button.click, ask, [about], [asked.box, asked.question, asked.about])
    edge.on(asked.no.click, hide, outputs=[asked.box])
    edge.on(asked.yes.click, hide, outputs=[asked.box])
    return edge.on(asked.yes.click, do, [asked.about, *inputs])
