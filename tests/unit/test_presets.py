"""The presets: values that the config knows, for every method."""

from typing import Any

import pytest

from ftapp.contract.config import parse_run_config
from ftapp.contract.presets import PRESETS, Preset, values_of


def nested(values: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for dotted, value in values.items():
        section, name = dotted.split(".")
        made.setdefault(section, {})[name] = value
    return made


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_is_valid_with_every_method(preset: Preset, method: str) -> None:
    for fraction in (0.1, 0.0):
        made = nested(values_of(preset, method, measured=fraction > 0))
        made.setdefault("method", {})["type"] = method
        made.setdefault("data", {}).update(dataset="mine", eval_fraction=fraction)
        dumped = parse_run_config(made).model_dump(mode="json")
        for section, values in made.items():
            assert {name: dumped[section][name] for name in values} == values


def test_one_preset_takes_back_all_that_another_one_set() -> None:
    assert len({frozenset(preset.values) for preset in PRESETS}) == 1
    assert len({tuple(preset.values.values()) for preset in PRESETS}) == len(PRESETS) == 4
    assert not any(name.startswith(("model.", "method.type", "data.dataset")) for name in PRESETS[0].values)


def test_balanced_is_what_the_config_says_anyway() -> None:
    balanced = next(preset for preset in PRESETS if preset.name == "balanced")
    plain = parse_run_config({"data": {"dataset": "mine"}})
    assert parse_run_config(nested(balanced.values | {"method.type": "lora", "data.dataset": "mine"})) == plain
