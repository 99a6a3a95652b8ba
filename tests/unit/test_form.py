"""The form: driven by the declarations alone, loses nothing on the way, and puts each problem beside its field."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftapp.contract.base import Contract
from ftapp.contract.chat import Sampling
from ftapp.contract.config import FullConfig, LoraConfig, RunConfig
from ftapp.contract.errors import ConfigError
from ftapp.contract.publication import PublishConfig
from ftapp.demo.preset import DEMO_PRESET
from ftapp.ui import form

FIELDS = form.fields_of(RunConfig)
BY_NAME = {field.name: field for field in FIELDS}


def config(**parts: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"dataset": "mine"}, **parts})


def values(**changed: form.Value) -> dict[str, form.Value]:
    shown = form.config_to_values(config(), FIELDS)
    return shown | {name.replace("__", "."): value for name, value in changed.items()}


def problems(shown: dict[str, form.Value]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        form.parse(RunConfig, shown, FIELDS)
    return caught.value.problems


def leaves(plain: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in plain.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_has_a_title_a_description_and_a_level(field: form.Field) -> None:
    assert field.title
    assert field.description.endswith(".")
    assert field.level in ("basic", "advanced")


def test_the_form_has_every_value_of_the_config_and_no_other() -> None:
    every = leaves(config().model_dump()) | leaves(config(method={"type": "full"}).model_dump())
    assert {field.name for field in FIELDS} == every


def test_kinds_follow_the_types() -> None:
    assert BY_NAME["optim.learning_rate"].kind == "text"
    assert BY_NAME["evaluation.keep_best"].kind == "switch"
    assert BY_NAME["method.type"].choices == ("lora", "qlora", "full")
    assert BY_NAME["batch.activation_checkpointing"].choices == ("auto", "true", "false")
    assert BY_NAME["method.rank"].only_for == {"lora", "qlora"}
    assert BY_NAME["model.revision"].nullable
    assert BY_NAME["optim.learning_rate"].elem_id == "config-optim-learning_rate"


def test_lists_and_constants_are_no_fields() -> None:
    assert [field.name for field in form.fields_of(Sampling)] == [
        "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed",
    ]  # fmt: skip
    assert {"run", "artifact", "destination", "private"} <= {field.name for field in form.fields_of(PublishConfig)}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        DEMO_PRESET,
        {"method": {"type": "qlora", "rank": 7, "target_modules": "q_proj,v_proj"}},
        {"method": {"type": "full"}, "optim": {"learning_rate": 2e-5}},
        {"batch": {"effective_size": 12, "micro_size": 3, "activation_checkpointing": True}},
        {"batch": {"activation_checkpointing": False}},
        {"model": {"id": "owner/name", "revision": "v1.0"}},
        {"duration": {"epochs": 0.5, "max_steps": 17}, "seed": 2**32 - 1},
        {"evaluation": {"steps": 9, "keep_best": False, "early_stopping_patience": 2}},
    ],
)
def test_config_to_values_and_back_is_the_same_config(parts: dict[str, Any]) -> None:
    before = config(**parts)
    assert form.parse(RunConfig, form.config_to_values(before, FIELDS), FIELDS) == before


@given(st.floats(min_value=1e-12, max_value=1.0))
def test_no_learning_rate_is_lost_in_the_text(rate: float) -> None:
    before = config(optim={"learning_rate": rate})
    assert form.parse(RunConfig, form.config_to_values(before, FIELDS), FIELDS) == before


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-4, "2e-4"),
        (0.001, "0.001"),
        (1.5e-5, "1.5e-5"),
        (32.0, "32"),
        (0.1, "0.1"),
        (0.0, "0"),
        (None, ""),
        (8, "8"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: object, text: str) -> None:
    assert form.to_value(value) == text


def test_what_was_typed_becomes_typed_once() -> None:
    parsed = form.parse(
        RunConfig, values(optim__learning_rate=" 3e-4 ", duration__max_steps="", method__rank="8"), FIELDS
    )
    assert parsed.optim.learning_rate == 3e-4
    assert parsed.duration.max_steps is None
    assert isinstance(parsed.method, LoraConfig)
    assert parsed.method.rank == 8


def test_full_ignores_the_hidden_fields_of_lora() -> None:
    parsed = form.parse(RunConfig, values(method__type="full", method__rank="nonsense"), FIELDS)
    assert isinstance(parsed.method, FullConfig)


def test_errors_land_on_their_fields() -> None:
    told = problems(values(optim__learning_rate="abc", method__rank="0", batch__micro_size="3", duration__epochs=""))
    assert told.keys() == {"optim.learning_rate", "method.rank", "batch.micro_size", "duration.epochs"}
    assert "'abc'" in told["optim.learning_rate"]
    assert told.keys() <= BY_NAME.keys()


def test_a_missing_choice_is_told_at_its_field() -> None:
    assert problems(values(data__dataset=None)) == {"data.dataset": "is missing"}


def test_marks_change_only_what_changed() -> None:
    shown = {"method.rank": "must be at least 1 (got '0')"}
    updates = dict(zip(BY_NAME, form.marks(FIELDS, {"optim.learning_rate": "no [x](y)"}, shown), strict=True))
    marked = updates["optim.learning_rate"]
    assert marked["info"] == "⚠ no [x] (y)"
    assert "invalid" in marked["elem_classes"]
    assert updates["method.rank"]["info"] == BY_NAME["method.rank"].description
    assert "invalid" not in updates["method.rank"]["elem_classes"]
    assert all("info" not in updates[name] for name in BY_NAME.keys() - {"optim.learning_rate", "method.rank"})
    assert not any("value" in update for update in updates.values()), "what was typed stays"


def test_a_new_field_needs_no_word_in_the_page() -> None:
    class Narrow(Contract):
        size: int | None = None
        """How big."""

    assert form.fields_of(Narrow)[0].description == "How big."
    assert form.parse(Narrow, {"size": ""}, form.fields_of(Narrow)) == Narrow()
