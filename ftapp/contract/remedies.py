"""What to change in a config after a failure, and the config with that change; pure, called by worker and Studio."""

from typing import Any

from ftapp.contract import events as ev
from ftapp.contract.config import QloraConfig, RunConfig, parse_run_config
from ftapp.contract.errors import FailureKind

SHORTEST = 128
"""Tokens; rows are not suggested to be cut below."""


def remedy(kind: FailureKind, config: RunConfig, resolved: ev.Resolved | None, loading: bool = False) -> dict[str, Any]:
    """Dotted config name → the value to try next; empty where no change of the config helps.

    `resolved` says what `auto` became, if that was known; `loading`: the model alone was already too much.
    """
    used = resolved.values if resolved else {}
    if kind == "memory":
        return _smaller(config, used, loading)
    if kind == "not_finite":
        rate = used.get("optim.learning_rate", config.optim.learning_rate)
        return {} if rate == "auto" else {"optim.learning_rate": float(f"{rate / 10:.3g}")}
    return {}


def _smaller(config: RunConfig, used: dict[str, Any], loading: bool) -> dict[str, Any]:
    """The next of: half the micro-batch, activation checkpointing, half the length, QLoRA."""
    quantised = {} if isinstance(config.method, QloraConfig) else {"method.type": "qlora"}
    if loading:
        return quantised
    micro = used.get("batch.micro_size", config.batch.micro_size)
    if micro == "auto" or micro > 1:
        size = 1 if micro == "auto" else max(size for size in range(1, micro // 2 + 1) if micro % size == 0)
        return {"batch.micro_size": size}
    if used.get("batch.activation_checkpointing", config.batch.activation_checkpointing) is not True:
        return {"batch.activation_checkpointing": True}
    length = used.get("data.max_length", config.data.max_length)
    if length != "auto" and length >= 2 * SHORTEST:
        return {"data.max_length": length // 2}
    return quantised


def changed(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """The config with other values; fields that a new method does not know go back to its defaults."""
    values = config.model_dump(mode="json")
    for name, value in changes.items():
        *sections, field = name.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[field] = value
    if values["method"]["type"] != config.method.type and values["method"].get("rank") is None:
        values["method"] = {"type": values["method"]["type"]}
    return parse_run_config(values)


def in_words(changes: dict[str, Any]) -> str:
    """What to do about a lack of memory, in the imperative."""
    match changes:
        case {"batch.micro_size": size}:
            return f"Set the micro-batch size to {size}; the batch size stays as it is."
        case {"batch.activation_checkpointing": True}:
            return "Turn activation checkpointing on."
        case {"data.max_length": length}:
            return f"Set the maximum length to {length}."
        case {"method.type": "qlora"}:
            return "Use QLoRA, which keeps the base in 4 bit."
        case _:
            return "Choose a smaller model."
