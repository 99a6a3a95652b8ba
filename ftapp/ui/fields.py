"""The fields of a run's config, in the order in which the Configure tab holds their components."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ftapp.contract.config import RunConfig
from ftapp.ui import form

FIELDS = form.fields_of(RunConfig)
NAMES = [field.name for field in FIELDS]


def named(values: Sequence[form.Value]) -> dict[str, form.Value]:
    """What the components hold, by field name."""
    return dict(zip(NAMES, values, strict=True))


def valid(values: Sequence[form.Value]) -> RunConfig | None:
    """The config that the components hold; None if a value is wrong, which is told beside its field."""
    try:
        return RunConfig.model_validate(form.values_to_plain(named(values), FIELDS))
    except ValueError:
        return None


def updates(values: Mapping[str, Any]) -> list[Any]:
    """Updates that set some fields, by dotted name, and leave the others."""
    kinds = {field.name: field.kind for field in FIELDS}
    return [
        gr.update(value=form.to_value(values[name], kinds[name])) if name in values else gr.skip() for name in NAMES
    ]
