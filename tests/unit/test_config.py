"""The config: what is valid, and what a person reads about what is not."""

import math
from typing import Any

import pytest

from ftapp.contract.config import FullConfig, QloraConfig, RunConfig, parse_run_config
from ftapp.contract.errors import ConfigError
from ftapp.contract.publication import parse_publish_config


def config(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"data": {"dataset": "mine"}}
    for dotted, part in changes.items():
        section, _, name = dotted.partition("__")
        value = {**value, section: {**value.get(section, {}), name: part} if name else part}
    return value


def problems(value: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_run_config(value)
    return caught.value.problems


def test_only_the_dataset_has_to_be_said() -> None:
    assert parse_run_config(config()).optim.learning_rate == "auto"
    assert problems({}) == {"data": "is missing"}
    assert problems({"data": {}}) == {"data.dataset": "is missing"}


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_config_survives_json(method: str) -> None:
    made = parse_run_config(config(method__type=method, optim__learning_rate=3e-4, duration__max_steps=7))
    assert RunConfig.model_validate_json(made.model_dump_json()) == made


def test_auto_may_be_said_wherever_it_is_the_default() -> None:
    dumped = parse_run_config(config()).model_dump(mode="json")
    assert [dumped["data"]["max_length"], dumped["batch"]["micro_size"], dumped["evaluation"]["steps"]] == ["auto"] * 3
    assert parse_run_config(dumped) == parse_run_config(config())


def test_the_method_follows_its_type() -> None:
    assert isinstance(parse_run_config(config(method__type="qlora")).method, QloraConfig)
    assert isinstance(parse_run_config(config(method__type="full")).method, FullConfig)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"data__max_length": 5}, "data.max_length", "must be at least 16 (got 5), or auto"),
        ({"data__max_length": "long"}, "data.max_length", "must be a whole number (got 'long'), or auto"),
        ({"data__max_length": 20.5}, "data.max_length", "must be a whole number (got 20.5), or auto"),
        ({"data__max_length": 2**40}, "data.max_length", f"must be at most 1048576 (got {2**40}), or auto"),
        ({"data__eval_fraction": 0.9}, "data.eval_fraction", "must be at most 0.5 (got 0.9)"),
        ({"data__over_length": "cut"}, "data.over_length", "must be 'drop' or 'truncate' (got 'cut')"),
        ({"data__dataset": ""}, "data.dataset", "must not be empty"),
        ({"data": None}, "data", "must be an object like {...} (got None)"),
        ({"model__id": " demo"}, "model.id", "has spaces around it or control characters inside"),
        ({"model__id": "x" * 501}, "model.id", "is longer than 500 characters"),
        ({"model__id": 3}, "model.id", "must be text (got 3)"),
        ({"method__rank": 8}, "method", "needs a type: 'lora', 'qlora' or 'full'"),
        ({"method": {"type": "dora"}}, "method", "needs a type: 'lora', 'qlora' or 'full'"),
        ({"method": {"type": "lora", "rank": 0}}, "method.rank", "must be at least 1 (got 0)"),
        ({"method": {"type": "full", "rank": 8}}, "method.rank", "is not a field of the config"),
        ({"method": "lora"}, "method", "must be an object like {...} (got 'lora')"),
        ({"optim__learning_rate": 0}, "optim.learning_rate", "must be greater than 0 (got 0), or auto"),
        ({"optim__learning_rate": "fast"}, "optim.learning_rate", "must be a number (got 'fast'), or auto"),
        ({"optim__learning_rate": math.nan}, "optim.learning_rate", "must be a finite number (got nan), or auto"),
        ({"optim__lr": 1e-4}, "optim.lr", "is not a field of the config"),
        ({"duration__epochs": math.nan}, "duration.epochs", "must be a finite number (got nan)"),
        ({"duration__max_steps": "many"}, "duration.max_steps", "must be a whole number (got 'many')"),
        ({"evaluation__keep_best": "perhaps"}, "evaluation.keep_best", "must be true or false (got 'perhaps')"),
        ({"seed": -1}, "seed", "must be at least 0 (got -1)"),
    ],
)
def test_a_wrong_value_is_told_at_its_field(changes: dict[str, Any], field: str, message: str) -> None:
    assert problems(config(**changes)) == {field: message}


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(problems(config(optim__learning_rate="9" * 5000 + "x"))["optim.learning_rate"]) < 200


def test_a_problem_between_two_fields_is_told_at_the_one_to_change() -> None:
    assert problems(config(batch={"effective_size": 8, "micro_size": 3})) == {
        "batch.micro_size": "3 does not divide the batch size 8 without a rest"
    }
    told = problems(config(batch={"packing": True, "micro_size": 1}))
    assert list(told) == ["batch.packing"]
    told = problems(config(data__eval_fraction=0, evaluation__early_stopping_patience=2))
    assert list(told) == ["evaluation.early_stopping_patience"]


@pytest.mark.parametrize(
    ("method", "adapter", "field", "words"),
    [
        ({"type": "lora", "init": "pissa", "dora": True}, None, "method.init", "cannot be used with DoRA"),
        ({"type": "qlora", "init": "olora"}, None, "method.init", "keeps in 4 bit"),
        ({"type": "lora", "init": "gaussian"}, "run-1", "method.init", "starts a new adapter"),
        ({"type": "full"}, "run-1", "model.adapter", "no adapter to go on from"),
    ],
)
def test_kinds_of_adapters_that_exclude_each_other(
    method: dict[str, Any], adapter: str | None, field: str, words: str
) -> None:
    told = problems(config(method=method, model__adapter=adapter))
    assert list(told) == [field]
    assert words in told[field]


def test_the_message_names_the_first_problem_and_counts_the_rest() -> None:
    with pytest.raises(ConfigError, match=r"optim\.learning_rate: must be at most 1 .*\(and 1 more\)"):
        parse_run_config(config(optim__learning_rate=5, seed="x"))


@pytest.mark.parametrize("value", [None, [], 3, "x"])
def test_what_is_no_object_is_no_config(value: Any) -> None:
    with pytest.raises(ConfigError, match="it must be an object"):
        parse_run_config(value)


@pytest.mark.parametrize("name", ["me/model", "my-org/a.b_c-1"])
def test_a_destination_is_owner_and_name(name: str) -> None:
    assert parse_publish_config({"run": "r", "destination": name}).destination == name


@pytest.mark.parametrize(
    "name", ["", "model", "a/b/c", "a/..", "../b", "a/b.git", "a/b--c", "a b/c", "a/" + "b" * 300, "-a/b"]
)
def test_other_destinations_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="destination"):
        parse_publish_config({"run": "r", "destination": name})


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_run_config(config()).seed = 7  # type: ignore[misc]
