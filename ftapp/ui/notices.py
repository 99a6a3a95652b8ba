"""What is to be known of the installation as a whole, under the title: its volume, its sleep."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from ftapp.studio import Studio
from ftapp.ui import markup
from ftapp.ui.edge import Edge


def place() -> Any:
    """The place for it, empty as long as there is nothing."""
    return gr.HTML(elem_id="notices")


def refresh(bound: Edge, event: Callable[..., Any], box: Any) -> None:
    """Look again when the event happens."""
    bound.on(event, shown, outputs=[box])


def shown(studio: Studio) -> str:
    """A line for each notice, for those whose work it is about."""
    return "".join(markup.notice("warning", notice) for notice in studio.notices() if studio.person.may_act)
