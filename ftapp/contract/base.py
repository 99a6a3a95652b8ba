"""The frozen base that every word of the contract stands on."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """Immutable, strict about unknown fields, documented by its attribute docstrings."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
        protected_namespaces=(),
    )
