"""The curves: few points, no peak lost, and a loss that is no number is a gap."""

import json
import math
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from ftapp.contract.events import Evaluation, Metrics
from ftapp.ui import charts


def metrics(losses: list[float]) -> list[Metrics]:
    return [
        Metrics(step=step, total_steps=len(losses), epoch=0.0, loss=loss, learning_rate=1e-4)
        for step, loss in enumerate(losses, 1)
    ]


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=300), st.integers(4, 50))
def test_downsampling_keeps_the_order_the_ends_and_the_extremes(ys: list[float | None], most: int) -> None:
    points = [(float(x), y) for x, y in enumerate(ys)]
    kept = charts.downsample(points, most)
    assert len(kept) <= max(most, len(points) if len(points) <= most else 0)
    assert kept == sorted(kept, key=lambda point: point[0])
    assert set(kept) <= set(points)
    assert (not points) or (kept[0], kept[-1]) == (points[0], points[-1])
    drawn = [y for _, y in points if y is not None]
    if drawn:
        still = [y for _, y in kept if y is not None]
        assert (min(drawn), max(drawn)) == (min(still), max(still))


def test_a_long_run_is_drawn_with_a_thousand_points() -> None:
    figure = charts.curves(metrics([1 / step for step in range(1, 50_001)]), [])
    assert 900 <= len(figure["data"][0]["x"]) <= charts.MOST_POINTS
    assert len(json.dumps(figure)) < 150_000


def test_a_loss_that_is_no_number_is_a_gap() -> None:
    figure = charts.curves(metrics([3.0, math.nan, math.inf, 1.0]), [])
    assert list(figure["data"][0]["y"]) == [3.0, None, None, 1.0]
    assert "NaN" not in json.dumps(figure)


def test_held_out_losses_stand_beside_the_training_loss() -> None:
    figure = charts.curves(metrics([2.0, 1.0]), [Evaluation(step=2, loss=1.5, perplexity=4.5, tokens=10)])
    assert [trace["name"] for trace in figure["data"]] == ["training loss", "held-out loss", "learning rate"]
    assert list(figure["layout"]["xaxis"]["range"]) == [0, 2]


def test_nothing_to_draw_is_no_figure() -> None:
    assert charts.curves([], []) is None


def test_plotly_is_imported_when_the_first_curve_is_drawn() -> None:
    code = "import sys, ftapp.ui.charts; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
