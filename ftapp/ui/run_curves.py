"""A run's curves as the Train tab shows them, drawn once for all who look; charts.py says how they look."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import orjson

from ftapp.store.jobs import Job
from ftapp.ui import charts

SCRIPT = Path(__file__).with_name("curve.js").read_text(encoding="utf-8")


def figure(job: Job, curve: tuple[int, ...], drawing: tuple[Any, ...]) -> Any:
    drawn = _plotted(job, curve, drawing)
    return gr.update(value=drawn, visible=drawn is not None)


@lru_cache(maxsize=32)
def _plotted(job: Job, curve: tuple[int, ...], drawing: tuple[Any, ...]) -> Any:  # noqa: ARG001 - tells when it is another
    drawn = _drawn(job, drawing)
    return charts.as_plotly(drawn) if drawn else None


@lru_cache(maxsize=32)
def growing(job: Job, curve: tuple[int, ...], drawing: tuple[Any, ...]) -> str:  # noqa: ARG001 - tells when it is another
    """The same for a chart that is there already, once for all who look at it; see curve.js."""
    drawn = _drawn(job, drawing)
    return orjson.dumps(drawn).decode() if drawn else ""


def _drawn(job: Job, drawing: tuple[Any, ...]) -> charts.Figure | None:
    drawn = charts.curves(job.state.metrics, job.state.evaluations, *drawing)
    if drawn:
        drawn["layout"]["meta"] = f"{job.name} {drawing}"
    return drawn
