"""Curves sent to an experiment tracker, with a real one."""

from pathlib import Path

import pytest

from ftapp.studio import Studio
from tests.running import config_for, finish


def test_tensorboard_gets_the_losses_that_the_page_shows(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_for(studio, tiny_llama, tmp_path, duration={"max_steps": 3})
    config = config.model_copy(update={"tracking": "tensorboard"})
    view = finish(studio, studio.start_training(config))
    assert view.status == "finished", view.message
    read = EventAccumulator(str(view.folder / "tensorboard"))
    read.Reload()
    told = {metrics.step: metrics.loss for metrics in view.state.metrics}
    assert {point.step: pytest.approx(point.value, rel=1e-5) for point in read.Scalars("train/loss")} == told
    assert [point.step for point in read.Scalars("eval/loss")] == [e.step for e in view.state.evaluations]
