"""What to change in a config after a failure; pure, called by worker and Studio."""

from collections.abc import Iterator
from typing import Any

from ftapp.contract import events as ev
from ftapp.contract.changes import changed, to_four_bits, to_rows_at_once
from ftapp.contract.config import QloraConfig, RunConfig
from ftapp.contract.errors import FailureKind

SHORTEST = 128
"""Tokens; rows are not suggested to be cut below."""


def remedy(kind: FailureKind, config: RunConfig, resolved: ev.Resolved | None, loading: bool = False) -> dict[str, Any]:
    """Dotted config name → the value to try next; empty where no change of the config helps.

    `resolved` says what `auto` became, if that was known; `loading`: the model alone was already too much.
    """
    used = resolved.values if resolved else {}
    if kind == "memory":
        return next((one for one in _smaller(config, used, loading) if changed(config, one) is not None), {})
    if kind == "not_finite":
        rate = used.get("optim.learning_rate", config.optim.learning_rate)
        return {} if rate == "auto" else {"optim.learning_rate": float(f"{rate / 10:.3g}")}
    return {}


def _smaller(config: RunConfig, used: dict[str, Any], loading: bool) -> Iterator[dict[str, Any]]:
    """One after the other: half the micro-batch, activation checkpointing, half the length, QLoRA."""
    micro = used.get("batch.micro_size", config.batch.micro_size)
    if not loading and (micro == "auto" or micro > 1):
        size = 1 if micro == "auto" else max(size for size in range(1, micro // 2 + 1) if micro % size == 0)
        yield to_rows_at_once(config, size)
    if not loading and used.get("batch.activation_checkpointing", config.batch.activation_checkpointing) is not True:
        yield {"batch.activation_checkpointing": True}
    length = used.get("data.max_length", config.data.max_length)
    if not loading and length != "auto" and length >= 2 * SHORTEST:
        yield {"data.max_length": length // 2}
    if not isinstance(config.method, QloraConfig):
        yield to_four_bits(config)


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
