"""Gradio imported without its type stubs, in half the time; app.py imports this before anything else of the page."""

import inspect
from typing import Any


def _no_source(object: Any) -> str:
    raise OSError(f"the source of {object} is not needed")


# Gradio looks for the source of each of its classes, parses it and renders a stub from it; without one it goes on
_getfile = inspect.getfile
inspect.getfile = _no_source
try:
    import gradio  # noqa: F401
finally:
    inspect.getfile = _getfile
