"""What every word of the contract stands on: its frozen base, and the kinds of values that a config has."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict


class Contract(BaseModel):
    """Immutable, strict about unknown fields, documented by its attribute docstrings."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
        protected_namespaces=(),
    )


Auto = Literal["auto"]

BASIC: dict[str, Any] = {"level": "basic"}
ADVANCED: dict[str, Any] = {"level": "advanced"}


def _no_surrounding_space(text: str) -> str:
    if text != text.strip() or any(ord(c) < 32 for c in text):
        raise ValueError("has spaces around it or control characters inside")
    return text


Line = Annotated[str, AfterValidator(_no_surrounding_space)]
