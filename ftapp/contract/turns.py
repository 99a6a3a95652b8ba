"""The turns of a conversation: read from what files call them, checked, and repaired where somebody asked for it."""

from typing import Any, Literal

import orjson

from ftapp.contract.examples import RowProblem

Turn = dict[str, Any]
"""A Message as plain values."""

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
PLAIN = {"role", "content"}


def turns(value: object, key: str, role_key: str, content_key: str) -> list[Turn]:
    """The turns of a list, their roles and contents under these keys or the usual ones; raises RowProblem."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except ValueError:
            raise RowProblem(f"'{key}' is text that is not JSON") from None
    if not isinstance(value, list):
        raise RowProblem(f"'{key}' must be a list of turns, it is {name_of(value)}")
    found: list[Turn] = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            raise RowProblem(f"turn {number} must be an object, it is {name_of(turn)}")
        if turn.keys() == PLAIN:
            role, content = turn["role"], turn["content"]
            if type(content) is str and role in ("user", "assistant", "system"):
                found.append(turn)
                continue
        found.append(_turn(turn, number, role_key, content_key))
    return found


def _turn(turn: Turn, number: int, role_key: str, content_key: str) -> Turn:
    role_name = role_key if role_key in turn else "role" if "role" in turn else "from"
    text_name = content_key if content_key in turn else "content" if "content" in turn else "value"
    said, content = turn.get(role_name), turn.get(text_name)
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        shown = repr(said)[:60]
        raise RowProblem(f"turn {number} has the unknown role {shown}; known are system, user, assistant, tool", "role")
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if isinstance(calls, str):
        calls = _loaded(calls)
    if said == "function_call":
        calls, content = [content], None
    if isinstance(content, list):
        content = _parts(content, number)
    if content is None and calls:
        content = ""
    if role == "tool" and isinstance(content, dict):
        content = _json(content, number)
    if not isinstance(content, str):
        raise RowProblem(f"turn {number}: '{text_name}' must be text, it is {name_of(content)}")
    out: Turn = {"role": role, "content": content}
    if calls:
        if role != "assistant":
            raise RowProblem(f"turn {number} calls a tool, but it is the {role}'s turn", "tool_call")
        out["tool_calls"] = _calls(calls, number)
    for name in ("tool_call_id", "name", "reasoning_content"):
        if turn.get(name) is not None:
            if not isinstance(turn[name], str):
                raise RowProblem(f"turn {number}: '{name}' must be text, it is {name_of(turn[name])}")
            out[name] = turn[name]
    if (weight := turn.get("weight")) is not None:
        if isinstance(weight, bool) or weight not in (0, 1):
            raise RowProblem(f"turn {number}: 'weight' must be 0 or 1, it is {repr(weight)[:40]}")
        if role == "assistant":
            out["weight"] = int(weight)
    return out


def _parts(parts: list[Any], number: int) -> str:
    texts = []
    for part in parts:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise RowProblem(f"turn {number} has a part that is not text; only text can be trained on", "not_text")
        texts.append(part["text"])
    return "".join(texts)


def _json(value: object, number: int) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError):
        raise RowProblem(f"turn {number} holds a value that is not JSON") from None


def _calls(value: object, number: int) -> list[dict[str, Any]]:
    """Calls in OpenAI's form, their arguments as objects, which chat templates expect."""
    if not isinstance(value, list):
        raise RowProblem(f"turn {number}: 'tool_calls' must be a list, it is {name_of(value)}", "tool_call")
    found = []
    for call in value:
        if isinstance(call, str):
            call = _loaded(call)
        inner = call.get("function", call) if isinstance(call, dict) else None
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or not isinstance(name, str) or not name:
            raise RowProblem(f"turn {number} calls a tool without a name", "tool_call")
        arguments = inner.get("arguments")
        if isinstance(arguments, str):
            arguments = _loaded(arguments) if arguments.strip() else {}
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise RowProblem(f"turn {number}: the arguments of {name[:60]!r} must be a JSON object", "tool_call")
        known = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        found.append({**known, "type": "function", "function": {"name": name, "arguments": arguments}})
    return found


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def name_of(value: object) -> str:
    """What a value is, for people."""
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


def check_turns(canonical: dict[str, Any]) -> None:
    """Raise RowProblem unless there is something to learn from this row."""
    if "text" in canonical:
        text: str = canonical["text"]
        if not text or text.isspace():
            raise RowProblem("the text is empty", "empty_turn")
        return _whole_characters(text, "'text'")
    found: list[Turn] = canonical["messages"]
    if not found:
        raise RowProblem("the conversation has no turns", "no_answer")
    asked = answered = learned = False
    empty = 0
    for number, turn in enumerate(found, 1):
        role, content = turn["role"], turn["content"]
        if role == "assistant":
            answered = True
            learned = learned or turn.get("weight") != 0
        elif role == "user":
            asked = True
        if not empty and (not content or content.isspace()) and role in ("assistant", "user"):
            empty = 0 if "tool_calls" in turn else number
        if not content.isascii():
            _whole_characters(content, f"turn {number}")
    last = found[-1]["role"]
    if not answered:
        raise RowProblem("no turn is from the assistant, so there is no answer to learn", "no_answer")
    if last != "assistant":
        raise RowProblem(f"the last turn is from the {last}, it must be from the assistant", "assistant_not_last")
    if not asked:
        raise RowProblem("no turn is from the user", "no_user")
    if not learned:
        raise RowProblem("every answer has the weight 0, so there is nothing to learn", "no_answer")
    if empty:
        raise RowProblem(f"turn {empty} ({found[empty - 1]['role']}) is empty", "empty_turn")


def _whole_characters(text: str, where: str) -> None:
    if not is_whole(text):
        raise RowProblem(f"{where} contains half of a surrogate pair, which is no character", "not_text")


def is_whole(text: str) -> bool:
    """Whether the text has no half of a surrogate pair in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Repair = Literal["drop_trailing", "merge_turns", "fold_system"]
"""drop_trailing: turns after the last answer go; merge_turns: turns of one role in a row become one;
fold_system: the system text goes in front of the first user turn, for models that know no system role."""


def repair(found: list[Turn], how: frozenset[str]) -> list[Turn]:
    """The turns with these repairs made; nothing is changed in place."""
    if "drop_trailing" in how:
        last = max((n for n, turn in enumerate(found, 1) if turn["role"] == "assistant"), default=len(found))
        found = found[:last]
    if "merge_turns" in how:
        found = _merged(found)
    if "fold_system" in how:
        found = _folded(found)
    return found


def _merged(found: list[Turn]) -> list[Turn]:
    out: list[Turn] = []
    for turn in found:
        if out and _joinable(out[-1], turn):
            out[-1] = {**out[-1], "content": f"{out[-1]['content']}\n\n{turn['content']}"}
        else:
            out.append(turn)
    return out


def _joinable(first: Turn, second: Turn) -> bool:
    """Whether two turns can be one: tools answer one by one, and a call or a weight holds for its own turn."""
    return first["role"] == second["role"] != "tool" and first.keys() == second.keys() == PLAIN


def _folded(found: list[Turn]) -> list[Turn]:
    system = [turn["content"] for turn in found if turn["role"] == "system"]
    rest = [turn for turn in found if turn["role"] != "system"]
    user = next((n for n, turn in enumerate(rest) if turn["role"] == "user"), None)
    if not system or user is None:
        return found
    text = "\n\n".join([*system, rest[user]["content"]])
    return [*rest[:user], {**rest[user], "content": text}, *rest[user + 1 :]]
