"""The training rows most like a question, found by BM25, and a row with such rows as turns before its question."""

import re
from collections.abc import Sequence

import bm25s

from ftapp.contract.examples import Example, Message

WORD = re.compile(r"[^\W_]+")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters: written without spaces between words."""


def words(text: str) -> list[str]:
    """What BM25 counts: words without their case; single characters where a script has no spaces."""
    return UNSPACED.sub(lambda found: f" {found[0]} ", text.casefold()).translate(_SPLIT).split()


class _Split(dict[int, str]):
    def __missing__(self, code: int) -> str:
        found = chr(code) if WORD.match(chr(code)) else " "
        self[code] = found
        return found


_SPLIT = _Split()


class Similar:
    """Training rows to show as examples: plain conversations of a user and an assistant."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self._shown = [turns for row in rows if (turns := _turns(row))]
        corpus = [_asked(turns) for turns in self._shown]
        self._index: bm25s.BM25 | None = None
        if any(corpus):
            self._index = bm25s.BM25()
            self._index.index(corpus, show_progress=False)

    def like(self, turns: Sequence[Message], count: int) -> list[list[Message]]:
        """The turns of up to `count` rows, those most like the question first; answers in them are not learned."""
        query = _asked(turns)
        if self._index is None or not query:
            return self._shown[:count]
        found, _ = self._index.retrieve([query], k=min(count, len(self._shown)), show_progress=False)
        return [self._shown[int(number)] for number in found[0]]


def with_examples(turns: Sequence[Message], shown: Sequence[list[Message]]) -> list[Message]:
    """A conversation with examples before it, the most like one next to its question; a system text stays in front."""
    start = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
    before = [turn for example in reversed(shown) for turn in example]
    return [*turns[:start], *before, *turns[start:]]


def _turns(row: Example) -> list[Message]:
    """A row as an example to show; empty if it cannot be one."""
    turns = [turn for turn in row.messages if turn.role != "system"]
    roles = [turn.role for turn in turns]
    if row.tools or len(turns) % 2 or roles != ["user", "assistant"] * (len(turns) // 2):
        return []
    if not all(turn.content for turn in turns) or any(turn.tool_calls for turn in turns):
        return []
    return [
        Message(role=turn.role, content=turn.content, weight=0 if turn.role == "assistant" else None) for turn in turns
    ]


def _asked(turns: Sequence[Message]) -> list[str]:
    return [word for turn in turns if turn.role == "user" for word in words(turn.content)]
