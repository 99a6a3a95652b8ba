"""What to change after a failure: one step at a time, down to nothing, and the config stays valid."""

from typing import Any

import pytest

from ftapp.contract import events as ev
from ftapp.contract.changes import changed
from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.remedies import in_words, remedy


def config(**sections: Any) -> RunConfig:
    return parse_run_config({"data": {"dataset": "mine"}, **sections})


def resolved(**values: Any) -> ev.Resolved:
    return ev.Resolved(
        values={name.replace("__", "."): value for name, value in values.items()}, train_rows=1, eval_rows=0
    )


def with_values(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    found = changed(config, values)
    assert found is not None
    return found


def test_a_lack_of_memory_is_answered_step_by_step_until_nothing_is_left() -> None:
    now, steps = config(batch={"effective_size": 12, "micro_size": 12}, data={"dataset": "mine", "max_length": 512}), []
    while changes := remedy("memory", now, None):
        assert len(changes) == 1
        assert in_words(changes) != in_words({})
        steps.append(changes)
        now = with_values(now, changes)
        assert now.batch.effective_size == 12
    assert steps == [
        {"batch.micro_size": 6},
        {"batch.micro_size": 3},
        {"batch.micro_size": 1},
        {"batch.activation_checkpointing": True},
        {"data.max_length": 256},
        {"data.max_length": 128},
        {"method.type": "qlora"},
    ]
    assert "smaller model" in in_words({})


def test_what_auto_became_is_what_is_made_smaller() -> None:
    said = resolved(batch__micro_size=1, batch__activation_checkpointing=True, data__max_length=3000)
    assert remedy("memory", config(), said) == {"data.max_length": 1500}
    assert remedy("memory", config(), None) == {"batch.micro_size": 1}
    assert remedy("not_finite", config(), resolved(optim__learning_rate=2e-4)) == {"optim.learning_rate": 2e-5}
    assert remedy("not_finite", config(), None) == {}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_model_that_does_not_even_load_needs_four_bits(method: str) -> None:
    tight = config(method={"type": method}, batch={"micro_size": 8})
    changes = remedy("memory", tight, None, loading=True)
    assert changes["method.type"] == "qlora"
    quantised = with_values(tight, changes)
    assert quantised.method.type == "qlora"
    assert remedy("memory", quantised, None, loading=True) == {}


def test_the_adapter_stays_as_it_was_in_four_bits() -> None:
    lora = config(method={"type": "lora", "rank": 5, "target_modules": "q_proj"})
    qlora = with_values(lora, {"method.type": "qlora"}).method
    assert qlora.model_dump(exclude={"type"}) == lora.method.model_dump(exclude={"type"})


@pytest.mark.parametrize("init", ["default", "pissa", "olora"])
@pytest.mark.parametrize("packing", ["auto", True, False])
def test_what_is_suggested_is_a_valid_config(init: str, packing: Any) -> None:
    now = config(method={"type": "lora", "init": init}, batch={"micro_size": 8, "packing": packing})
    while changes := remedy("memory", now, None):
        now = with_values(now, changes)
    assert (now.method.type, now.batch.micro_size, now.batch.activation_checkpointing) == ("qlora", 1, True)


@pytest.mark.parametrize("kind", ["disk", "no_gradient", "accelerator", "data", "model", "hub", "process", "other"])
def test_what_no_config_helps_with_suggests_none(kind: Any) -> None:
    assert remedy(kind, config(), resolved(batch__micro_size=8)) == {}
