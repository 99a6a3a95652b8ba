"""Any row → messages: the formats that are recognised and their one canonical shape; pure, one row at a time."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ftapp.contract.base import Contract

Role = Literal["system", "user", "assistant", "tool"]
Format = Literal[
    "messages", "sharegpt", "alpaca", "prompt_completion", "question_answer", "text", "preference", "unknown"
]


class Message(Contract):
    """One turn of a conversation."""

    role: Role
    content: str


class Example(Contract):
    """A canonical row: a conversation whose answers are learned, or a plain text that is learned whole."""

    messages: list[Message] = Field(default_factory=list)
    """The turns, the last one from the assistant; empty for a plain text."""
    text: str | None = None
    """A plain text, learned whole."""
    line: int = 0
    """Line in the file that the row began on, from 1; 0 if the format has no lines."""


class RowProblem(ValueError):
    """Why one row cannot be used, in words that name the field."""


SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
QUESTION_ANSWER = [
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("prompt", "response"),
    ("question", "response"),
    ("instruction", "response"),
]


def detect_format(row: Mapping[str, Any]) -> Format:
    """The format that one row's keys and types speak for."""
    keys = row.keys()
    if isinstance(row.get("messages"), list):
        return "messages"
    if isinstance(row.get("conversations"), list) or isinstance(row.get("conversation"), list):
        return "sharegpt"
    if "chosen" in keys and "rejected" in keys:
        return "preference"
    if "instruction" in keys and "output" in keys:
        return "alpaca"
    if "prompt" in keys and "completion" in keys:
        return "prompt_completion"
    if any(q in keys and a in keys for q, a in QUESTION_ANSWER):
        return "question_answer"
    if isinstance(row.get("text"), str):
        return "text"
    return "unknown"


def to_example(row: Mapping[str, Any], format: Format, line: int = 0) -> Example:
    """The canonical form of one row; raises RowProblem in words for people."""
    match format:
        case "messages":
            messages = _turns(row.get("messages"), "messages", "role", "content")
        case "sharegpt":
            key = "conversations" if "conversations" in row else "conversation"
            messages = _turns(row.get(key), key, "from", "value")
        case "alpaca":
            messages = _alpaca(row)
        case "prompt_completion":
            messages = _prompt_completion(row)
        case "question_answer":
            question, answer = next((q, a) for q, a in QUESTION_ANSWER if q in row and a in row)
            messages = _pair(_text(row, question), _text(row, answer))
        case "text":
            text = _text(row, "text")
            if not text.strip():
                raise RowProblem("the text is empty")
            return Example(text=text, line=line)
        case "preference":
            raise RowProblem("a preference pair (chosen, rejected) is not a row for fine-tuning on answers")
        case _:
            raise RowProblem(f"no known format has the columns {', '.join(map(str, row)) or '(none)'}")
    _check(messages)
    return Example(messages=messages, line=line)


def _text(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if isinstance(value, float) and math.isnan(value):
        value = None  # how tables say that there is none
    if value is None and default is not None:
        return default
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RowProblem(f"'{key}' must be text, it is {_name(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowProblem(f"'{key}' contains half of a surrogate pair, which is no character") from None
    return value


def _name(value: object) -> str:
    match value:
        case None:
            return "missing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "an object"
        case str():
            return "text"
        case _:
            return type(value).__name__


def _pair(prompt: str, answer: str, system: str = "") -> list[Message]:
    head = [Message(role="system", content=system)] if system.strip() else []
    return [*head, Message(role="user", content=prompt), Message(role="assistant", content=answer)]


def _turns(value: object, key: str, role_key: str, content_key: str) -> list[Message]:
    if not isinstance(value, list):
        raise RowProblem(f"'{key}' must be a list of turns, it is {_name(value)}")
    messages = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            raise RowProblem(f"turn {number} must be an object, it is {_name(turn)}")
        role_name = role_key if role_key in turn else "role" if "role" in turn else "from"
        text_name = content_key if content_key in turn else "content" if "content" in turn else "value"
        said = turn.get(role_name)
        role = SHAREGPT_ROLES.get(said) if isinstance(said, str) else None
        if role is None:
            raise RowProblem(f"turn {number} has the unknown role {said!r}; known are system, user, assistant, tool")
        if turn.get("tool_calls"):
            raise RowProblem(f"turn {number} calls a tool, which is not supported yet")
        content = turn.get(text_name)
        if isinstance(content, list):
            content = _parts(content, number)
        if not isinstance(content, str):
            raise RowProblem(f"turn {number}: '{text_name}' must be text, it is {_name(content)}")
        messages.append(Message(role=role, content=_text({"content": content}, "content")))
    return messages


def _parts(parts: list[Any], number: int) -> str:
    texts = []
    for part in parts:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise RowProblem(f"turn {number} has a part that is not text; only text can be trained on")
        texts.append(part["text"])
    return "".join(texts)


def _alpaca(row: Mapping[str, Any]) -> list[Message]:
    instruction, extra = _text(row, "instruction"), _text(row, "input", "")
    history = row.get("history") or []
    messages = []
    if not isinstance(history, list):
        raise RowProblem(f"'history' must be a list of pairs, it is {_name(history)}")
    for number, turn in enumerate(history, 1):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(t, str) for t in turn)):
            raise RowProblem(f"pair {number} of 'history' must be [question, answer]")
        messages += _pair(*turn)
    prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    system = _text(row, "system", "")
    head = [Message(role="system", content=system)] if system.strip() else []
    return [*head, *messages, *_pair(prompt, _text(row, "output"))]


def _prompt_completion(row: Mapping[str, Any]) -> list[Message]:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) or isinstance(completion, list):
        turns = [
            *(prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]),
            *(completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]),
        ]
        return _turns(turns, "prompt", "role", "content")
    return _pair(_text(row, "prompt"), _text(row, "completion"))


def _check(messages: list[Message]) -> None:
    if not messages:
        raise RowProblem("the conversation has no turns")
    if not any(m.role == "assistant" for m in messages):
        raise RowProblem("no turn is from the assistant, so there is no answer to learn")
    if messages[-1].role != "assistant":
        raise RowProblem(f"the last turn is from the {messages[-1].role}, it must be from the assistant")
    if not any(m.role == "user" for m in messages):
        raise RowProblem("no turn is from the user")
    for number, message in enumerate(messages, 1):
        if message.role in ("assistant", "user") and not message.content.strip():
            raise RowProblem(f"turn {number} ({message.role}) is empty")
