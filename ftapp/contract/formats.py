"""Any row → its canonical form: the formats that are recognised, and a mapping for the others; pure."""

import math
import re
from collections.abc import Iterable
from collections.abc import Mapping as Row
from typing import Any, Literal

import orjson

from ftapp.contract.base import Contract
from ftapp.contract.examples import Example, RowProblem
from ftapp.contract.turns import check_turns, name_of, turns

Format = Literal[
    "messages", "sharegpt", "alpaca", "prompt_completion", "question_answer", "text", "preference", "mapped", "unknown"
]

Canonical = dict[str, Any]
"""An Example as plain values, as it is written: {"messages": [...], "tools": [...], "line": 3} or {"text": ...}."""


class Mapping(Contract):
    """Which columns hold what, for rows that no known format describes; a text column excludes the others."""

    prompt: str | None = None
    """What the user says; text, or a list of turns."""
    answer: str | None = None
    """What the assistant answers; text, or a list of turns."""
    system: str | None = None
    """What the conversation stands under."""
    messages: str | None = None
    """A list of turns, instead of prompt and answer."""
    text: str | None = None
    """A plain text, learned whole."""

    @property
    def whole(self) -> bool:
        """Whether it says enough to read a row."""
        pair = bool(self.prompt and self.answer)
        return [pair, bool(self.messages), bool(self.text)].count(True) == 1


PAIRS = [
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("prompt", "response"),
    ("question", "response"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("prompt", "answer"),
    ("prompt", "output"),
    ("question", "output"),
    ("query", "answer"),
    ("problem", "solution"),
    ("input", "target"),
    ("source", "target"),
    ("input", "response"),
    ("user", "assistant"),
    ("human", "assistant"),
]
PROMPTS = re.compile(r"prompt|question|query|instruction|input|user|human|source|problem|frage|request|context", re.I)
ANSWERS = re.compile(
    r"answer|response|output|completion|assistant|reply|target|solution|antwort|summary|label|bot", re.I
)


def detect_format(row: Row[str, Any]) -> Format:
    """The format that one row's keys and types speak for."""
    if _is_turns(row.get("messages")):
        return "messages"
    if _is_turns(row.get("conversations")) or _is_turns(row.get("conversation")):
        return "sharegpt"
    if "chosen" in row and "rejected" in row:
        return "preference"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if "prompt" in row and "completion" in row:
        return "prompt_completion"
    if any(q in row and a in row for q, a in PAIRS):
        return "question_answer"
    if isinstance(row.get("text"), str):
        return "text"
    return "unknown"


def _is_turns(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def recognise(row: dict[str, Any]) -> tuple[Format, dict[str, Any]]:
    """The row's format; if its column names say it only in small letters, the row with such names."""
    format = detect_format(row)
    if format == "unknown":
        small = {str(key).strip().lower(): value for key, value in row.items()}
        if (format := detect_format(small)) != "unknown":
            return format, small
    return format, row


def to_example(row: Row[str, Any], format: Format, line: int = 0, mapping: Mapping | None = None) -> Example:
    """The canonical form of one row, checked; raises RowProblem in words for people."""
    canonical = {**to_canonical(row, format, mapping), "line": line}
    check_turns(canonical)
    written(canonical)
    return Example.model_validate(canonical)


def written(canonical: Canonical) -> bytes:
    """The row as its JSON line, with the line's end; raises RowProblem for values that JSON cannot hold."""
    try:
        return orjson.dumps(canonical, option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, ValueError, RecursionError):
        raise RowProblem("the row holds a value that cannot be written as JSON") from None


def to_canonical(row: Row[str, Any], format: Format, mapping: Mapping | None = None) -> Canonical:
    """The canonical form of one row, its turns not checked yet; raises RowProblem in words for people."""
    match format:
        case "messages":
            found = turns(row.get("messages"), "messages", "role", "content")
        case "sharegpt":
            key = "conversations" if "conversations" in row else "conversation"
            found = turns(row.get(key), key, "from", "value")
            if row.get("system") and found and found[0]["role"] != "system":
                found = [*_system(text_of(row, "system")), *found]
        case "alpaca":
            found = _alpaca(row)
        case "prompt_completion":
            if row.get("label") is False or row.get("label") in ("false", "False"):  # as unpaired preferences have it
                raise RowProblem("'label' is false: the completion is marked as a bad one", "marked_bad")
            found = [*_side(row, "prompt", "user"), *_side(row, "completion", "assistant")]
        case "question_answer":
            question, answer = next((q, a) for q, a in PAIRS if q in row and a in row)
            system = _system(text_of(row, "system", "")) if "system" in (row.keys() - {question, answer}) else []
            found = [*system, *_pair(text_of(row, question), text_of(row, answer))]
        case "text":
            return {"text": text_of(row, "text")}
        case "mapped" if mapping is not None:
            if mapping.text:
                return {"text": text_of(row, mapping.text)}
            found = _mapped(row, mapping)
        case "preference":
            raise RowProblem(
                "a preference pair (chosen, rejected) is not a row for fine-tuning on answers", "preference"
            )
        case _:
            for name in ("messages", "conversations", "conversation"):
                if name in row:
                    raise RowProblem(f"{name} is not a list of turns", "field")
            columns = ", ".join(map(str, row)) or "(none)"
            raise RowProblem(f"no known format has the columns {columns}", "unknown_format")
    tools = row.get("tools") or _functions(row.get("functions"))
    return {"messages": found, "tools": _tools(tools)} if tools else {"messages": found}


def _mapped(row: Row[str, Any], mapping: Mapping) -> list[dict[str, Any]]:
    system = _system(text_of(row, mapping.system, "")) if mapping.system else []
    if mapping.messages:
        found = turns(row.get(mapping.messages), mapping.messages, "role", "content")
    elif mapping.prompt and mapping.answer:
        answer = row.get(mapping.answer)
        if isinstance(answer, list) and not isinstance(row.get(mapping.prompt), list):
            found = turns(answer, mapping.answer, "role", "content")
            if found and found[0]["role"] in ("user", "system"):  # it repeats the prompt
                return [*system, *found] if found[0]["role"] == "user" else found
        found = [*_side(row, mapping.prompt, "user"), *_side(row, mapping.answer, "assistant")]
    else:
        raise RowProblem(
            "the mapping names neither a prompt with its answer, nor messages, nor a text", "unknown_format"
        )
    return [*system, *found] if found and found[0]["role"] != "system" else found


def _side(row: Row[str, Any], key: str, role: str) -> list[dict[str, Any]]:
    if isinstance(row.get(key), list):
        return turns(row[key], key, "role", "content")
    return [{"role": role, "content": text_of(row, key)}]


def text_of(row: Row[str, Any], key: str, default: str | None = None) -> str:
    """The text in a column; a number counts as text, and what tables write for nothing as missing."""
    value = row.get(key, default)
    if type(value) is str:
        return value
    if isinstance(value, float) and math.isnan(value):
        value = None
    if value is None and default is not None:
        return default
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise RowProblem(f"'{key}' must be text, it is {name_of(value)}")


def _system(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": text}] if text.strip() else []


def _pair(prompt: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _alpaca(row: Row[str, Any]) -> list[dict[str, Any]]:
    instruction, extra = text_of(row, "instruction"), text_of(row, "input", "")
    history = row.get("history") or []
    earlier: list[dict[str, Any]] = []
    if not isinstance(history, list):
        raise RowProblem(f"'history' must be a list of pairs, it is {name_of(history)}")
    for number, turn in enumerate(history, 1):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(t, str) for t in turn)):
            raise RowProblem(f"pair {number} of 'history' must be [question, answer]")
        earlier += _pair(*turn)
    prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return [*_system(text_of(row, "system", "")), *earlier, *_pair(prompt, text_of(row, "output"))]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) or str(value).strip().replace(".", "", 1).isdigit()


def _functions(value: object) -> list[dict[str, Any]]:
    """OpenAI's older way to name tools, in its newer one."""
    if not isinstance(value, list):
        return []
    return [{"type": "function", "function": function} for function in value if isinstance(function, dict)]


def _tools(value: object) -> list[dict[str, Any]]:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except ValueError:
            raise RowProblem("'tools' is text that is not JSON", "tool_call") from None
    if not (isinstance(value, list) and all(isinstance(tool, dict) for tool in value)):
        raise RowProblem(f"'tools' must be a list of objects, it is {name_of(value)}", "tool_call")
    return value


def suggest_mapping(rows: Iterable[Row[str, Any]]) -> Mapping | None:
    """A first guess at what the columns of unrecognised rows hold; None if nothing speaks for any."""
    seen = list(rows)
    if not seen:
        return None
    columns = [str(key) for key in seen[0]]
    if all("chosen" in row and "rejected" in row for row in seen):
        if isinstance(seen[0]["chosen"], list) and not seen[0].get("prompt"):
            return Mapping(messages="chosen")
        prompt = next((c for c in columns if c not in ("chosen", "rejected") and PROMPTS.search(c)), None)
        return Mapping(prompt=prompt, answer="chosen") if prompt else Mapping(text="chosen")
    for column in columns:
        value = seen[0][column]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return Mapping(messages=column)
    texts = [c for c in columns if all(isinstance(row.get(c), (str, int, float)) for row in seen)]
    system = next((c for c in texts if "system" in c.lower()), None)
    prompt = next((c for c in texts if c != system and PROMPTS.search(c)), None)
    answer = next((c for c in texts if c not in (system, prompt) and ANSWERS.search(c)), None)
    rest = [c for c in texts if c not in (system, prompt, answer)]
    rest.sort(key=lambda column: all(_is_number(row[column]) for row in seen))  # the row's number comes last
    if len(texts) == 1:
        return Mapping(text=texts[0])
    prompt = prompt or (rest.pop(0) if rest else None)
    answer = answer or (rest.pop(0) if rest else None)
    return Mapping(prompt=prompt, answer=answer, system=system) if prompt and answer else None
