"""Before a run: how often it will measure, and the two steps that are tried first."""

from typing import Any

import pytest

from ftapp.contract.config import parse_run_config
from ftapp.contract.duration import evaluations_of, idle, probe_of, tokens_per_epoch, tokens_to_train
from ftapp.contract.events import Resolved

PATIENCE = "evaluation.early_stopping_patience"


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({}, 5),
        ({"evaluation": {"steps": 10}}, 4),
        ({"evaluation": {"steps": 1000}}, 1),
        ({"duration": {"max_steps": 3}}, 3),
        ({"duration": {"max_steps": 6}}, 3),
        ({"data": {"dataset": "x", "eval_fraction": 0}}, 0),
        ({"data": {"dataset": "x", "eval_fraction": 0, "eval_dataset": "y"}, "evaluation": {"steps": 10}}, 4),
    ],
)
def test_the_measurements_of_a_run_are_counted(changes: dict[str, Any], times: int) -> None:
    """200 rows, 180 of them in 12 steps an epoch."""
    config = parse_run_config({"data": {"dataset": "x"}, "duration": {"epochs": 3}} | changes)
    assert evaluations_of(config, 200) == times


def test_early_stopping_that_could_never_stop_is_told() -> None:
    measured = {"data": {"dataset": "x"}, "evaluation": {"steps": 20, "early_stopping_patience": 2}}
    assert "measures only 2 times, so 2 measurements" in idle(parse_run_config(measured), 200)[PATIENCE]
    assert idle(parse_run_config(measured | {"duration": {"epochs": 4}}), 200) == {}
    assert idle(parse_run_config({"data": {"dataset": "x"}}), 200) == {}


def test_two_steps_are_the_first_of_the_run() -> None:
    config = parse_run_config(
        {"data": {"dataset": "x"}, "evaluation": {"early_stopping_patience": 2}, "tracking": "wandb"}
    )
    tried = probe_of(config)
    assert (tried.duration.max_steps, tried.tracking, tried.evaluation.early_stopping_patience) == (2, "none", None)
    assert (tried.batch, tried.method, tried.optim, tried.seed) == (
        config.batch,
        config.method,
        config.optim,
        config.seed,
    )
    assert evaluations_of(tried, 200) == 1


def test_the_tokens_of_two_steps_are_those_of_the_run() -> None:
    share, own = (parse_run_config({"data": {"dataset": "x", "eval_dataset": it}}) for it in (None, "y"))
    told = Resolved(values={}, train_rows=90, eval_rows=10, train_tokens=900)
    assert tokens_per_epoch(told, share) == 1000
    assert tokens_per_epoch(told, own) == 900
    for config in (share, own):
        assert tokens_to_train(config, tokens_per_epoch(told, config), 100) == 3 * 900
