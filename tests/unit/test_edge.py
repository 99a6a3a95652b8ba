"""Where the page meets the studio: what a handler is given."""

from types import SimpleNamespace
from typing import Any

import gradio as gr

from ftapp.people import LOCAL
from ftapp.settings import read_settings
from ftapp.studio import Studio
from ftapp.studios import Studios
from ftapp.ui.edge import Edge
from ftapp.ui.gate import ASKER
from ftapp.ui.sign_in import Asker


def test_a_box_that_was_never_opened_holds_no_text_and_other_values_come_as_they_are() -> None:
    given: list[Any] = []

    def handler(_: Studio, *values: Any) -> None:
        given.extend(values)

    with gr.Blocks():
        inputs = [gr.Textbox(), gr.Dropdown(), gr.Textbox()]
    bound = Edge(Studios(read_settings())).on(lambda function, *_, **__: function, handler, inputs)
    request = SimpleNamespace(request=SimpleNamespace(scope={ASKER: Asker(LOCAL)}))
    bound(request, None, None, "typed")
    assert given == ["", None, "typed"]
