"""A config with other values, and which go together; called for what is offered before a run and after a failure."""

from collections.abc import Mapping
from typing import Any

from ftapp.contract.config import AdapterConfig, FullConfig, RunConfig, parse_run_config
from ftapp.contract.errors import ConfigError


def changed(config: RunConfig, values: Mapping[str, Any]) -> RunConfig | None:
    """The config with the values set by dotted name, or None if it would not be valid.

    A change from full fine-tuning takes the new method's defaults.
    """
    plain = config.model_dump(mode="json")
    if isinstance(config.method, FullConfig) and "method.type" in values:
        plain["method"] = {}
    for name, value in values.items():
        section, _, field = name.rpartition(".")
        (plain[section] if section else plain)[field] = value
    try:
        return parse_run_config(plain)
    except ConfigError:
        return None


def to_four_bits(config: RunConfig) -> dict[str, Any]:
    """QLoRA as the method; it keeps the base as it is, so the adapter starts at no change."""
    keeps = isinstance(config.method, AdapterConfig) and config.method.init in ("default", "gaussian")
    return {"method.type": "qlora"} | ({} if keeps else {"method.init": "default"})


def to_rows_at_once(config: RunConfig, rows: int) -> dict[str, Any]:
    """Another micro-batch; one of a single row has nothing to pack."""
    packs = rows == 1 and config.batch.packing is True
    return {"batch.micro_size": rows} | ({"batch.packing": "auto"} if packs else {})
