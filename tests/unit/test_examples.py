"""Rows of every format become messages, or a sentence about why not."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftapp.contract.examples import Example, Message, RowProblem
from ftapp.contract.formats import detect_format, to_example

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
PAIR = [Message(role="user", content="q"), Message(role="assistant", content="a")]
SYSTEM = Message(role="system", content="s")


def read(row: dict[str, Any]) -> Example:
    return to_example(row, detect_format(row))


def problem(row: dict[str, Any]) -> str:
    with pytest.raises(RowProblem) as caught:
        read(row)
    return str(caught.value)


@pytest.mark.parametrize(
    ("format", "row", "messages"),
    [
        ("messages", {"messages": [USER, ANSWER]}, PAIR),
        ("messages", {"messages": [{"role": "system", "content": "s"}, USER, ANSWER]}, [SYSTEM, *PAIR]),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]}, PAIR),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, PAIR),
        ("sharegpt", {"conversation": [USER, ANSWER]}, PAIR),
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}, PAIR),
        ("alpaca", {"instruction": "q", "output": "a", "system": "s"}, [SYSTEM, *PAIR]),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q", "a"]]}, [*PAIR, *PAIR]),
        ("prompt_completion", {"prompt": "q", "completion": "a"}, PAIR),
        ("prompt_completion", {"prompt": [USER], "completion": [ANSWER]}, PAIR),
        ("prompt_completion", {"prompt": "q", "completion": "a", "label": True}, PAIR),
        ("question_answer", {"question": "q", "answer": "a"}, PAIR),
        ("question_answer", {"input": "q", "output": "a"}, PAIR),
        ("question_answer", {"prompt": "q", "response": "a", "id": 7}, PAIR),
    ],
)
def test_every_format_is_read(format: str, row: dict[str, Any], messages: list[Message]) -> None:
    assert detect_format(row) == format
    assert read(row).messages == messages


def test_tools_of_the_older_form_are_kept() -> None:
    function = {"name": "weather", "parameters": {}}
    row = {"messages": [USER, {**ANSWER, "function_call": {"name": "weather", "arguments": "{}"}}]}
    read_row = read({**row, "functions": [function]})
    assert read_row.tools == [{"type": "function", "function": function}]
    assert read_row.messages[1].tool_calls


def test_an_alpaca_input_follows_its_instruction() -> None:
    assert read({"instruction": "Add", "input": "1 2", "output": "3"}).messages[0].content == "Add\n\n1 2"


def test_a_text_is_learned_whole() -> None:
    assert read({"text": " as it is "}) == Example(text=" as it is ")


def test_numbers_are_text_too() -> None:
    assert [m.content for m in read({"question": 1, "answer": 2.5}).messages] == ["1", "2.5"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": []}, "no turns"),
        ({"messages": [USER]}, "no turn is from the assistant"),
        ({"messages": [ANSWER]}, "no turn is from the user"),
        ({"messages": [USER, ANSWER, USER]}, "the last turn is from the user"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "turn 2 (assistant) is empty"),
        ({"messages": [USER, {"role": "robot", "content": "a"}]}, "turn 2 has the unknown role 'robot'"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "turn 2: 'content' must be text, it is missing"),
        ({"messages": ["hi", ANSWER]}, "turn 1 must be an object, it is text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, "turn 1 has a part that is not"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{}]}]}, "turn 2 calls a tool"),
        ({"question": None, "answer": "a"}, "'question' must be text, it is missing"),
        ({"question": float("nan"), "answer": "a"}, "'question' must be text, it is missing"),
        ({"question": ["q"], "answer": "a"}, "'question' must be text, it is a list"),
        ({"question": True, "answer": "a"}, "'question' must be text, it is true or false"),
        ({"question": "\ud800", "answer": "a"}, "half of a surrogate pair"),
        ({"instruction": "q", "output": "a", "history": "h"}, "'history' must be a list of pairs, it is text"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, "pair 1 of 'history'"),
        ({"text": "\n"}, "the text is empty"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference pair"),
        ({"prompt": "q", "completion": "a", "label": "False"}, "marked as a bad one"),
        ({"prompt": "q", "completion": "a", "label": False}, "'label' is false: the completion is marked as a bad one"),
        ({"foo": 1, "bar": 2}, "no known format has the columns foo, bar"),
        ({}, "(none)"),
    ],
)
def test_what_cannot_be_used_is_told_in_words(row: dict[str, Any], words: str) -> None:
    assert words in problem(row)


KEYS = st.sampled_from(
    [
        "messages",
        "conversations",
        "role",
        "from",
        "content",
        "value",
        "user",
        "assistant",
        "prompt",
        "completion",
        "question",
        "answer",
        "instruction",
        "input",
        "output",
        "history",
        "system",
        "text",
        "chosen",
        "rejected",
        "tool_calls",
        "type",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("aé \n\0\ud800😀", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(KEYS, JSON | st.sampled_from(["user", "gpt", "text"]), max_size=5))
def test_no_row_breaks_it(row: dict[str, Any]) -> None:
    try:
        example = read(row)
    except RowProblem:
        return
    assert Example.model_validate_json(example.model_dump_json()) == example
    assert example.text or example.messages[-1].role == "assistant"
