"""Events → curves, as plotly's JSON: dictionaries, since its own objects take a hundred times as long to make."""

import math
from collections.abc import Sequence
from typing import Any

from ftapp.contract.events import Evaluation, Metrics

Figure = dict[str, Any]
"""Its `data` and its `layout`."""

MOST_POINTS = 1000
TRAIN_COLOUR, EVAL_COLOUR, OTHER_COLOUR = "#6366f1", "#f59e0b", "#14b8a6"
COLOURS = ("#6366f1", "#f59e0b", "#14b8a6", "#ec4899", "#84cc16", "#0ea5e9", "#a855f7", "#ef4444")
BELOW = {
    "learning_rate": ("learning rate", ".2~e"),
    "grad_norm": ("gradient norm", ".3~g"),
    "tokens_per_second": ("tokens / s", ".3~s"),
    "memory": ("accelerator memory, bytes", ".3~s"),
}
"""What may stand under the losses: a field of Metrics, its title, and how its values are written."""

Point = tuple[float, float | None]
"""x, y; y is None where there is a gap."""


def downsample(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: of each stretch the lowest and the highest, in order; the first and last points stay."""
    if len(points) <= most:
        return list(points)
    stretches = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for number in range(stretches):
        stretch = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        drawn = [point for point in stretch if point[1] is not None]
        if not drawn:
            kept += stretch[:1]
            continue
        ends = {min(drawn, key=_height), max(drawn, key=_height)}
        kept += sorted(ends, key=lambda point: point[0])
    return [*kept, points[-1]]


def _height(point: Point) -> float:
    return point[1] if point[1] is not None else 0.0


def points(xs: Sequence[float], ys: Sequence[float | None]) -> list[Point]:
    """Pairs in which whatever cannot be drawn, such as NaN, is a gap."""
    return [(x, y if y is not None and math.isfinite(y) else None) for x, y in zip(xs, ys, strict=True)]


def smoothed(drawn: Sequence[Point], weight: float) -> list[Point]:
    """An exponential moving average without the bias of its start; `weight` 0 changes nothing, gaps stay gaps.

    Source: the correction of arXiv:1412.6980, section 3.
    """
    if weight <= 0:
        return list(drawn)
    mean, known, found = 0.0, 0.0, []
    for x, y in drawn:
        if y is not None:
            mean, known = weight * mean + (1 - weight) * y, weight * known + (1 - weight)
        found.append((x, mean / known if y is not None else None))
    return found


def curves(
    metrics: Sequence[Metrics],
    evaluations: Sequence[Evaluation],
    logarithmic: bool = False,
    smoothing: float = 0.0,
    below: str = "learning_rate",
) -> Figure | None:
    """The losses and, under them, one of BELOW over the steps; None without a point."""
    metrics, evaluations = list(metrics), list(evaluations)  # they may grow while we draw
    if not metrics and not evaluations:
        return None
    title, form = BELOW[below]
    steps = [m.step for m in metrics]
    total = metrics[-1].total_steps if metrics else 0
    raw = points(steps, [m.loss for m in metrics])
    held_out = downsample(points([e.step for e in evaluations], [e.loss for e in evaluations]))
    others = downsample(points(steps, [getattr(m, below) for m in metrics]))
    layout = _layout(title, form)
    if logarithmic:
        layout["yaxis"] |= {"type": "log", "dtick": 1, "tickformat": "~g"}
    layout["xaxis"]["range"] = [0, max(total, *steps, *[e.step for e in evaluations], 1)]
    data = [_trace(downsample(smoothed(raw, smoothing)), "training loss", TRAIN_COLOUR, "%{y:.4g}")]
    if smoothing > 0:
        faint = _trace(downsample(raw), "not smoothed", TRAIN_COLOUR, "%{y:.4g}")
        data.append({**faint, "opacity": 0.25, "showlegend": False})
    if held_out:
        dots = _trace(held_out, "held-out loss", EVAL_COLOUR, "%{y:.4g}, perplexity %{customdata:.4g}")
        perplexities = [math.exp(min(y, 700)) if y is not None else None for _, y in held_out]
        data.append({**dots, **_marked(EVAL_COLOUR), "customdata": perplexities})
    lower = _trace(others, title, OTHER_COLOUR, f"%{{y:{form}}}")
    data.append({**lower, "yaxis": "y2", "showlegend": False})
    return {"data": data, "layout": layout}


def comparison(runs: Sequence[tuple[str, Sequence[Point], Sequence[Point]]], logarithmic: bool = False) -> Figure:
    """Several runs' training losses as thin lines and held-out losses as dots, each with the run's name."""
    layout = _layout("", ".0e")
    layout.pop("yaxis2"), layout.pop("annotations")
    layout["xaxis"]["anchor"] = "y"
    layout["yaxis"] |= {"domain": [0.0, 1.0], **({"type": "log", "tickformat": "~g"} if logarithmic else {})}
    data = []
    for number, (name, losses, held_out) in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        drawn = points([x for x, _ in losses], [y for _, y in losses])
        data.append({**_trace(downsample(drawn), name, colour, "%{y:.4g}"), "opacity": 0.5})
        if held_out:
            data.append({**_trace(held_out, f"{name}, held-out", colour, "%{y:.4g}"), **_marked(colour)})
    return {"data": data, "layout": layout}


def as_plotly(figure: Figure) -> Any:
    """The object that Gradio's chart takes."""
    import plotly.graph_objects as go

    return go.Figure(figure).update_layout(template="none")


def _marked(colour: str) -> Figure:
    return {"mode": "lines+markers", "marker": {"size": 7, "color": colour}}


def _trace(drawn: Sequence[Point], name: str, colour: str, hover: str) -> Figure:
    few = len(drawn) < 3
    return {
        "type": "scatter",
        "x": [x for x, _ in drawn],
        "y": [y for _, y in drawn],
        "name": name,
        "mode": "lines+markers" if few else "lines",
        "line": {"color": colour, "width": 2},
        "hovertemplate": hover,
        "connectgaps": False,
    }


def _layout(below: str, form: str) -> dict[str, Any]:
    """No background and the page's own text colour (set in style.css), so that light and dark are both readable."""
    quiet = {"gridcolor": "rgba(128,128,128,0.2)", "zeroline": False, "linecolor": "rgba(128,128,128,0.4)"}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": 400,
        "margin": {"l": 56, "r": 16, "t": 36, "b": 44},
        "hovermode": "x unified",
        "hoverdistance": -1,  # few points are far apart, and each is found from anywhere
        "uirevision": "kept",  # an update leaves the zoom as it is
        "legend": {"orientation": "h", "x": 0, "y": 1.12},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#808694"},
        "xaxis": {**quiet, "title": {"text": "step"}, "anchor": "y2", "tickformat": ",d"},
        "yaxis": {**quiet, "title": {"text": "loss"}, "domain": [0.38, 1.0]},
        "yaxis2": {**quiet, "domain": [0.0, 0.2], "tickformat": form, "nticks": 3, "rangemode": "tozero"},
        "annotations": [
            {"text": below, "x": 0, "y": 0.22, "xref": "paper", "yref": "paper", "showarrow": False}
            | {"xanchor": "left", "yanchor": "bottom"}
        ],
    }
