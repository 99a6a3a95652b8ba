"""Writes docs/config.md from the schema of the training config; a test compares the two. Run it with `make docs`."""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "config.md"
HEAD = """# The training config

Written by `make docs` from the schema in `ftapp/contract/config.py`; do not edit it here. The page's Configure tab
shows the same values, and `python -m ftapp schema` prints them as a JSON Schema. Only `data.dataset` has no default.
"""


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT))
    from ftapp.contract.config import RunConfig

    schema = RunConfig.model_json_schema()
    definitions = schema["$defs"]
    parts = [HEAD]
    loose: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        if "discriminator" in field:
            for kind, reference in field["discriminator"]["mapping"].items():
                parts.append(_section(f"{name}, type `{kind}`", name, _resolve(definitions, reference)))
        elif "$ref" in field:
            parts.append(_section(name, name, _resolve(definitions, field["$ref"])))
        else:
            loose[name] = field
    parts.append(_section("the rest", "", {"description": "Values of the run as a whole.", "properties": loose}))
    return "\n".join(parts)


def _resolve(definitions: dict[str, Any], reference: str) -> dict[str, Any]:
    definition: dict[str, Any] = definitions[reference.rsplit("/", 1)[-1]]
    return definition


def _section(title: str, prefix: str, model: dict[str, Any]) -> str:
    required = model.get("required", [])
    rows = [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        for cells in (
            [
                f"`{prefix}.{name}`" if prefix else f"`{name}`",
                field["title"],
                _values(field),
                "required" if name in required else _code(field["default"]),
                field["description"],
            ]
            for name, field in model["properties"].items()
        )
    ]
    head = ["| name | on the page | values | default | meaning |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([f"## {title}", "", model["description"], "", *head, *rows, ""])


def _values(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_values(choice) for choice in field["anyOf"])
    if "const" in field:
        return _code(field["const"])
    if "enum" in field:
        return ", ".join(map(_code, field["enum"]))
    match field["type"]:
        case "integer" | "number" as kind:
            words = {"integer": "whole number", "number": "number"}[kind]
            return f"{words} {_bounds(field)}".strip()
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
        case _:
            return "text"


def _bounds(field: dict[str, Any]) -> str:
    above = "exclusiveMinimum" in field
    words = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "up to" if above else "to",
        "exclusiveMaximum": "below" if above else "to below",
    }
    return " ".join(f"{word} {_number(field[key])}" for key, word in words.items() if key in field)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _code(value: Any) -> str:
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
