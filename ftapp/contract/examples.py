"""A canonical row: a conversation whose answers are learned, or a plain text; what every format becomes."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from ftapp.contract.base import Contract

Role = Literal["system", "user", "assistant", "tool"]


class Message(Contract):
    """One turn of a conversation; what a turn does not have is not written either."""

    role: Role
    content: str
    """Empty only on a turn that calls tools."""
    tool_calls: list[dict[str, Any]] | None = None
    """What the assistant calls, in OpenAI's form; `arguments` is an object."""
    tool_call_id: str | None = None
    """On a tool's turn: the call that it answers."""
    name: str | None = None
    """Of the tool, or of who speaks."""
    reasoning_content: str | None = None
    """What the assistant thought before it answered."""
    weight: Literal[0, 1] | None = None
    """0: this answer of the assistant is read but not learned."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # chat templates ask whether a key is there, and render null as text
        return {key: value for key, value in dump(self).items() if value is not None}


class Example(Contract):
    """A canonical row: a conversation whose answers are learned, or a plain text that is learned whole."""

    messages: list[Message] = Field(default_factory=list)
    """The turns, the last one from the assistant; empty for a plain text."""
    text: str | None = None
    """A plain text, learned whole."""
    tools: list[dict[str, Any]] | None = None
    """The tools that the assistant may call, in OpenAI's form."""
    line: int = 0
    """Line in the file that the row began on, from 1; 0 if the format has no lines."""


ProblemKind = Literal[
    "encoding",
    "not_json",
    "not_object",
    "too_long",
    "cells",
    "unknown_format",
    "other_format",
    "preference",
    "marked_bad",
    "field",
    "role",
    "no_answer",
    "assistant_not_last",
    "no_user",
    "empty_turn",
    "not_text",
    "tool_call",
]

ADVICE: dict[ProblemKind, str] = {
    "encoding": "Save the file as UTF-8, or read it as cp1252 if the excerpt looks right then.",
    "not_json": "Correct the JSON on that line.",
    "not_object": "Write the row as an object like {...}.",
    "too_long": "Split the row, or take it out.",
    "cells": "Check the separators and quotes of that line.",
    "unknown_format": "Say which columns hold the prompt and the answer.",
    "other_format": "Put rows of another kind into a dataset of their own.",
    "preference": "Choose `chosen` as the answer.",
    "marked_bad": "Leave the row out, or choose the columns if the label says something else.",
    "field": "Correct that field.",
    "role": "Use the roles system, user, assistant or tool.",
    "no_answer": "Add the answer.",
    "assistant_not_last": "Add the answer, or drop the turns after the last one.",
    "no_user": "Add what the user said.",
    "empty_turn": "Fill the turn in, or take the row out.",
    "not_text": "Take out what is not text.",
    "tool_call": 'Write the call as {"function": {"name": ..., "arguments": {...}}}.',
}
"""What to do about a row that cannot be used."""


class RowProblem(ValueError):
    """Why one row cannot be used, in words that name the field."""

    def __init__(self, message: str, kind: ProblemKind = "field") -> None:
        super().__init__(message)
        self.kind: ProblemKind = kind
