"""Config field ↔ component, driven wholly by the contract's declarations; the tabs place what is made here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import gradio as gr
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ftapp.contract.base import Contract
from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.refusals import config_error

C = TypeVar("C", bound=Contract)
Value = str | bool | None
"""What a component holds: text as it was typed, a choice, or a tick."""

CHOICE_LABELS = {
    "lora": "LoRA",
    "qlora": "QLoRA",
    "full": "Full",
    "gguf": "GGUF",
    "q8_0": "q8_0",
    "true": "on",
    "false": "off",
}
MOST_RADIOS = 3


@dataclass(frozen=True)
class Field:
    """One value of a config, as a form needs it."""

    name: str
    """Dotted, such as `optim.learning_rate`."""
    title: str
    description: str
    kind: Literal["text", "choice", "switch"]
    default: Value
    choices: tuple[str, ...] = ()
    level: str = "basic"
    nullable: bool = False
    """Empty is a value of its own."""
    only_for: frozenset[str] = frozenset()
    """The `type`s of the union that have this field; empty: always there."""

    @property
    def section(self) -> str:
        """The part of the config that it stands in; empty at the top."""
        return self.name.rpartition(".")[0]

    @property
    def elem_id(self) -> str:
        """The component's id on the page."""
        return "config-" + self.name.replace(".", "-")


def fields_of(contract: type[Contract], prefix: str = "") -> list[Field]:
    """Every value of a config, in the order of its declaration; lists and constants are no fields."""
    found: list[Field] = []
    for name, info in contract.model_fields.items():
        options = _alternatives(info.annotation)
        parts = [option for option in options if isinstance(option, type) and issubclass(option, Contract)]
        if parts:
            found += _merged(parts, f"{prefix}{name}.")
        elif field := _field(f"{prefix}{name}", info, options):
            found.append(field)
    return [field for field in found if field.kind != "choice" or len(field.choices) > 1 or prefix]


def _merged(parts: list[type[Contract]], prefix: str) -> list[Field]:
    """The fields of a part of the config, or of all branches of a union told apart by `type`."""
    if len(parts) == 1:
        return fields_of(parts[0], prefix)
    merged: dict[str, Field] = {}
    for part in parts:
        tag = part.model_fields["type"].default
        for field in fields_of(part, prefix):
            known = merged.get(field.name)
            if field.name == f"{prefix}type":
                words = f"{known.description} {field.description}" if known else field.description
                merged[field.name] = replace(
                    known or field, description=words, choices=((known.choices if known else ()) + (tag,))
                )
            else:
                merged[field.name] = replace(known or field, only_for=(known or field).only_for | {tag})
    return sorted(merged.values(), key=lambda field: field.name != f"{prefix}type")  # what tells them apart comes first


def _field(name: str, info: FieldInfo, options: list[Any]) -> Field | None:
    literals = tuple(str(value) for option in options if get_origin(option) is Literal for value in get_args(option))
    plain = [option for option in options if get_origin(option) is not Literal and option is not NoneType]
    kind: Literal["text", "choice", "switch"] = "text"
    if not plain:
        kind = "choice"
    elif plain == [bool]:
        kind, literals = ("choice", (*literals, "true", "false")) if literals else ("switch", ())
    elif not set(plain) <= {int, float, str}:
        return None
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return Field(
        name=name,
        title=info.title or "",
        description=" ".join((info.description or "").split()),
        kind=kind,
        default=None if info.is_required() else to_value(info.get_default(), kind),
        choices=literals if kind == "choice" else (),
        level=str(extra.get("level", "basic")),
        nullable=NoneType in options,
    )


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [option for part in get_args(annotation) for option in _alternatives(part)]
    return [annotation]


def to_value(value: object, kind: str = "text") -> Value:
    """A typed value as its component shows it."""
    if isinstance(value, bool):
        return value if kind == "switch" else str(value).lower()
    if isinstance(value, float):
        return _number(value)
    return "" if value is None else str(value)


def _number(value: float) -> str:
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if 0 < abs(value) < 0.001:
        mantissa, exponent = f"{value:.15e}".split("e")
        short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        if float(short) == value:
            return short
    return repr(value)


def config_to_values(config: Contract, fields: Sequence[Field]) -> dict[str, Value]:
    """A typed config as the components show it; a field that its method lacks keeps its default."""
    return {field.name: to_value(_at(config, field), field.kind) for field in fields}


def _at(config: Contract, field: Field) -> object:
    value: Any = config
    for part in field.name.split("."):
        if not hasattr(value, part):
            return field.default
        value = getattr(value, part)
    return value


def values_to_plain(values: Mapping[str, Value], fields: Sequence[Field]) -> dict[str, Any]:
    """What the components hold, nested as the config is; nothing is typed or checked yet."""
    plain: dict[str, Any] = {}
    for field in fields:
        value = values.get(field.name)
        if isinstance(value, str):
            value = value.strip()
        if field.only_for and values.get(f"{field.section}.type") not in field.only_for:
            continue
        if value in ("", None):
            if not field.nullable and field.default is None:
                continue  # required: its absence is told
            value = None if field.nullable else ""
        at = plain
        *sections, last = field.name.split(".")
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = value
    return plain


def parse(contract: type[C], values: Mapping[str, Value], fields: Sequence[Field], **given: Any) -> C:
    """Text → typed config, once; raises ConfigError with a problem for each field."""
    plain = {**values_to_plain(values, fields), **given}
    if contract is RunConfig:
        return parse_run_config(plain)  # type: ignore[return-value]
    try:
        return contract.model_validate(plain)
    except ValidationError as error:
        raise config_error(error) from None


def component(field: Field, choices: Sequence[Any] | None = None, elem_id: str = "", **options: Any) -> Any:
    """The component of a field; `choices` for one whose values are only known while the app runs."""
    common: dict[str, Any] = {
        "label": field.title,
        "info": field.description,
        "elem_id": elem_id or field.elem_id,
        "elem_classes": ["field"],
        "interactive": True,
        "value": field.default,
        **options,
    }
    if choices is not None:
        return gr.Dropdown(choices=list(choices), **common)
    if field.kind == "switch":
        return gr.Checkbox(**common)
    if field.kind == "choice":
        labelled = [(CHOICE_LABELS.get(choice, choice.replace("_", " ")), choice) for choice in field.choices]
        if len(labelled) <= MOST_RADIOS:
            return gr.Radio(choices=labelled, **common)
        return gr.Dropdown(choices=labelled, filterable=False, **common)
    return gr.Textbox(max_lines=1, **common)


def edited(one: Any) -> Any:
    """The event after which a component's value is worth checking."""
    return one.blur if isinstance(one, gr.Textbox) else one.input


def marks(fields: Iterable[Field], problems: Mapping[str, str], shown: Mapping[str, str]) -> list[Any]:
    """Updates that put each problem beside its field and take those away that were corrected."""
    updates = []
    for field in fields:
        problem = problems.get(field.name, "")
        if problem == shown.get(field.name, ""):
            updates.append(gr.skip())
        elif problem:
            words = problem.replace("](", "] (")  # Gradio escapes an info, but makes links in it
            updates.append(gr.update(info=f"⚠ {words}", elem_classes=["field", "invalid"]))
        else:
            updates.append(gr.update(info=field.description, elem_classes=["field"]))
    return updates
