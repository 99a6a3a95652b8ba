"""What a config asks for and a machine lacks is told at its field, with what to choose instead."""

import sys
from importlib.util import find_spec
from typing import Any

import pytest

from ftapp.contract.config import RunConfig
from ftapp.contract.errors import ConfigError
from ftapp.processes.gpus import Gpu
from ftapp.processes.machine import lacking
from ftapp.studio import Studio

T4 = Gpu(0, "Tesla T4", 16 * 2**30, 16 * 2**30, (7, 5))
A100 = Gpu(0, "A100", 80 * 2**30, 80 * 2**30, (8, 0))
FLASH = find_spec("flash_attn") is not None
TRACKERS = ("tensorboard", "trackio", "wandb")


def config(**parts: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"dataset": "demo"}, **parts})


@pytest.mark.parametrize(
    ("gpus", "words"),
    [([], "this machine has none"), ([A100, T4], "Tesla T4 has 7.5"), ([A100], "" if FLASH else "flash-attn")],
)
def test_packing_says_what_it_needs(gpus: list[Gpu], words: str) -> None:
    told = lacking(config(batch={"packing": True}), gpus)
    assert list(told) == (["batch.packing"] if words else [])
    assert words in told.get("batch.packing", "")
    assert lacking(config(batch={"packing": "auto"}), gpus) == {}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_not_installed_is_named_with_its_command(tracker: str) -> None:
    told = lacking(config(tracking=tracker), [])
    if find_spec(tracker):
        assert told == {}
    else:
        assert f"pip install {tracker}" in told["tracking"]


def test_a_run_that_asks_for_it_is_refused_before_it_exists(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftapp.settings import read_settings

    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    studio = Studio(read_settings())
    with pytest.raises(ConfigError) as caught:
        studio.start_training(config(tracking="wandb"))
    assert list(caught.value.problems) == ["tracking"]
    assert studio.runs() == []
