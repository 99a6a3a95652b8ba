"""Curves sent to an experiment tracker, with real ones."""

import json
import sqlite3
from pathlib import Path

import pytest

from ftapp.studio import Studio
from ftapp.views import RunView
from tests.running import config_for, finish


def tracked(studio: Studio, base: Path, folder: Path, tracker: str) -> RunView:
    config = config_for(studio, base, folder, duration={"max_steps": 3})
    view = finish(studio, studio.start_training(config.model_copy(update={"tracking": tracker})))
    assert view.status == "finished", view.message
    return view


def losses(view: RunView) -> dict[int, object]:
    return {metrics.step: pytest.approx(metrics.loss, rel=1e-5) for metrics in view.state.metrics}


def test_tensorboard_gets_the_losses_that_the_page_shows(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    view = tracked(studio, tiny_llama, tmp_path, "tensorboard")
    read = EventAccumulator(str(view.folder / "tensorboard"))
    read.Reload()
    assert {point.step: point.value for point in read.Scalars("train/loss")} == losses(view)
    assert [point.step for point in read.Scalars("eval/loss")] == [e.step for e in view.state.evaluations]


def test_trackio_keeps_them_on_this_machine(
    studio: Studio, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    view = tracked(studio, tiny_llama, tmp_path, "trackio")
    [database] = (tmp_path / "trackio").rglob("ftapp*.db")
    rows = sqlite3.connect(database).execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {view.name}
    told = [json.loads(metrics) for _, metrics in rows]
    assert {one["train/global_step"]: one["train/loss"] for one in told if "train/loss" in one} == losses(view)
