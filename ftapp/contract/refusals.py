"""What is wrong with a config, in plain words, one problem for each field."""

import math
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from ftapp.contract.errors import ConfigError


def of_field(field: str, message: str) -> PydanticCustomError:
    """An error found by looking at several fields, told at the one to change."""
    return PydanticCustomError("of_field", "{message}", {"field": field, "message": message})


_UNION_TAGS = {"lora", "qlora", "full"}
_BRANCHES = re.compile(r"(int|float|bool|str|literal\[.*\]|none|function-.*|constrained-.*)")


def config_error(error: ValidationError) -> ConfigError:
    """Pydantic's errors in plain words; the alternatives of a union are told as one problem."""
    problems: dict[str, str] = {}
    for item in error.errors(include_url=False):
        location = [str(part) for part in item["loc"]]
        if len(location) > 1 and location[0] == "method" and location[1] in _UNION_TAGS:
            location.pop(1)
        if location and _BRANCHES.fullmatch(location[-1]):
            location.pop()
        if item["type"] == "of_field":
            location.append(item["ctx"]["field"])
        field = ".".join(location)
        message = _plain(item)
        if field in problems:
            if item["type"] != "literal_error":
                problems[field] = f"{message}, or auto" if "auto" in problems[field] else message
            elif "'auto'" in str(item.get("ctx", {}).get("expected", "")):
                problems[field] += ", or auto"
        else:
            problems[field] = message
    return refusal(problems)


def refusal(problems: dict[str, str]) -> ConfigError:
    """The error for these problems, each told at its dotted field name."""
    first = next(iter(problems), "")
    value = f"{first}: {problems[first]}" if first else f"it {problems.get('', 'is empty')}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(f"The config is not valid: {value}{more}.", "Correct the value and start again.", problems)


def _plain(item: Any) -> str:
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    shown = repr(value)
    got = "" if isinstance(value, dict) else f" (got {shown if len(shown) <= 80 else shown[:80] + '…'})"
    if isinstance(value, float) and math.isnan(value):
        return f"must be a finite number{got}"
    match kind:
        case "greater_than":
            return f"must be greater than {_bound(context['gt'])}{got}"
        case "greater_than_equal":
            return f"must be at least {_bound(context['ge'])}{got}"
        case "less_than":
            return f"must be less than {_bound(context['lt'])}{got}"
        case "less_than_equal":
            return f"must be at most {_bound(context['le'])}{got}"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return f"must be a whole number{got}"
        case "float_parsing" | "float_type":
            return f"must be a number{got}"
        case "finite_number":
            return f"must be a finite number{got}"
        case "bool_parsing" | "bool_type":
            return f"must be true or false{got}"
        case "string_type":
            return f"must be text{got}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long" | "too_long":
            return f"is longer than {context['max_length']} characters"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be an object like {{...}}{got}"
        case "literal_error":
            return f"must be {context['expected']}{got}"
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a field of the config"
        case "union_tag_invalid" | "union_tag_not_found":
            return "needs a type: 'lora', 'qlora' or 'full'"
        case "json_invalid":
            return "is not JSON"
        case "of_field":
            return str(context["message"])
        case "value_error":
            return str(context["error"])
        case _:
            return f"{item['msg'][:1].lower()}{item['msg'][1:]}{got}"


def _bound(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
