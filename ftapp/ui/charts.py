"""Events → curves; plotly is imported when the first curve is drawn. The Train tab alone calls it."""

import math
from collections.abc import Sequence
from typing import Any

from ftapp.contract.events import Evaluation, Metrics

MOST_POINTS = 1000
TRAIN_COLOUR, EVAL_COLOUR, RATE_COLOUR = "#6366f1", "#f59e0b", "#14b8a6"

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


def curves(metrics: Sequence[Metrics], evaluations: Sequence[Evaluation], logarithmic: bool = False) -> Any:
    """The losses and, under them, the learning rate over the steps: a plotly figure, or None without a point."""
    metrics, evaluations = list(metrics), list(evaluations)  # they may grow while we draw
    if not metrics and not evaluations:
        return None
    import plotly.graph_objects as go

    steps = [m.step for m in metrics]
    total = metrics[-1].total_steps if metrics else 0
    losses = downsample(points(steps, [m.loss for m in metrics]))
    held_out = downsample(points([e.step for e in evaluations], [e.loss for e in evaluations]))
    rates = downsample(points(steps, [m.learning_rate for m in metrics]))
    figure = go.Figure(layout=_layout())
    if logarithmic:
        figure.update_layout(yaxis={"type": "log", "dtick": 1, "tickformat": "~g"})
    figure.update_xaxes(range=[0, max(total, *steps, *[e.step for e in evaluations], 1)])
    figure.add_trace(_trace(go, losses, "training loss", TRAIN_COLOUR, "%{y:.4g}"))
    if held_out:
        dots = _trace(go, held_out, "held-out loss", EVAL_COLOUR, "%{y:.4g}")
        figure.add_trace(dots.update(mode="lines+markers", marker={"size": 7, "color": EVAL_COLOUR}))
    figure.add_trace(_trace(go, rates, "learning rate", RATE_COLOUR, "%{y:.3g}").update(yaxis="y2", showlegend=False))
    return figure


def _trace(go: Any, drawn: Sequence[Point], name: str, colour: str, hover: str) -> Any:
    few = len(drawn) < 3
    return go.Scatter(
        x=[x for x, _ in drawn],
        y=[y for _, y in drawn],
        name=name,
        mode="lines+markers" if few else "lines",
        line={"color": colour, "width": 2},
        hovertemplate=hover,
        connectgaps=False,
    )


def _layout() -> dict[str, Any]:
    """No background and the page's own text colour (set in style.css), so that light and dark are both readable."""
    quiet = {"gridcolor": "rgba(128,128,128,0.2)", "zeroline": False, "linecolor": "rgba(128,128,128,0.4)"}
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": 400,
        "margin": {"l": 56, "r": 16, "t": 36, "b": 44},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.12},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#808694"},
        "xaxis": {**quiet, "title": {"text": "step"}, "anchor": "y2", "tickformat": ",d"},
        "yaxis": {**quiet, "title": {"text": "loss"}, "domain": [0.38, 1.0]},
        "yaxis2": {**quiet, "domain": [0.0, 0.2], "tickformat": ".0e", "nticks": 3, "rangemode": "tozero"},
        "annotations": [
            {"text": "learning rate", "x": 0, "y": 0.22, "xref": "paper", "yref": "paper", "showarrow": False}
            | {"xanchor": "left", "yanchor": "bottom"}
        ],
    }
