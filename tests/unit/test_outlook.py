"""What the Configure tab says before a start: of rows that were measured, of memory, of values without effect."""

from typing import Any

import pytest

from ftapp.contract.config import RunConfig
from ftapp.contract.events import Resolved
from ftapp.settings import read_settings
from ftapp.studio import Studio
from ftapp.ui import fields, form, outlook


@pytest.fixture
def studio(home: Any) -> Studio:
    return Studio(read_settings())


def told(studio: Studio, config: RunConfig, measured: outlook.Measured) -> str:
    values = form.config_to_values(config, fields.FIELDS)
    return " ".join(map(str, outlook.estimate(studio, measured, *(values[name] for name in fields.NAMES))))


def within(config: RunConfig, **data: Any) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


def test_two_steps_within_a_limit_do_not_speak_for_longer_rows(studio: Studio) -> None:
    config = within(studio.demo_config(), max_length=64)
    said = Resolved(
        values={"data.max_length": 64}, train_rows=9, eval_rows=1, left_out_rows=8, longest_row=900, train_tokens=500
    )
    measured = outlook.measured_by(said, config)
    assert "Estimated for rows of 64 tokens." in told(studio, config, measured)
    assert "Estimated for rows of 900 tokens." in told(studio, within(config, max_length=2048), measured)
    assert "Estimated for rows of 128 tokens." in told(studio, within(config, max_length=128), measured)
    assert "the longest allowed" in told(studio, within(config, dataset="other"), measured)


def test_the_tokens_within_one_limit_are_no_measure_for_another(studio: Studio) -> None:
    config = studio.demo_config()
    said = Resolved(values={}, train_rows=9, eval_rows=1, longest_row=40, train_tokens=500)
    measured = outlook.measured_by(said, config)
    assert "No past run on this machine" in told(studio, config, measured)
    for other in (within(config, max_length=64), within(config, over_length="truncate")):
        assert "Measure the rows to estimate it" in told(studio, other, measured)


def test_a_warm_up_that_the_schedule_leaves_out_is_told(studio: Studio) -> None:
    config = studio.demo_config()

    def with_schedule(schedule: str, warmup: float) -> str:
        optim = {"lr_scheduler_type": schedule, "warmup_fraction": warmup}
        return told(studio, config.model_copy(update={"optim": config.optim.model_copy(update=optim)}), {})

    assert "the warm-up share of 0.1 is not used" in with_schedule("constant", 0.1)
    for schedule, warmup in (("constant", 0.0), ("constant_with_warmup", 0.1), ("linear", 0.1)):
        assert "warm-up" not in with_schedule(schedule, warmup)
