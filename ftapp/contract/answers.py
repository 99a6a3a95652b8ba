"""What answers have in common, and when two of them say the same: text only; the evaluation calls it."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from ftapp.contract.base import Contract

COMMON = 0.95
"""Share of the training answers that must agree on a format."""
MOST_LABELS = 30
LONGEST_LABEL = 60
"""Characters."""
FEWEST = 8
"""Answers from which a format can be told."""


class JsonFormat(Contract):
    """An object with these keys, in any order."""

    type: Literal["json"] = "json"
    keys: list[str]


class LabelFormat(Contract):
    """One of a few texts."""

    type: Literal["labels"] = "labels"
    labels: list[str]


class ShapeFormat(Contract):
    """Texts that a short regular expression describes: runs of letters and of digits between the same signs."""

    type: Literal["shape"] = "shape"
    pattern: str
    example: str


AnswerFormat = Annotated[JsonFormat | LabelFormat | ShapeFormat, Field(discriminator="type")]


def find_format(answers: Sequence[str]) -> JsonFormat | LabelFormat | ShapeFormat | None:
    """What nearly all of the answers have in common, if anything."""
    if len(answers) < FEWEST:
        return None
    return _json(answers) or _labels(answers) or _shape(answers)


def in_format(answer: str, wanted: JsonFormat | LabelFormat | ShapeFormat) -> bool:
    """Whether an answer is of that format."""
    match wanted:
        case JsonFormat(keys=keys):
            value = _object(answer)
            return value is not None and sorted(value) == sorted(keys)
        case LabelFormat(labels=labels):
            return _plain(answer) in {_plain(label) for label in labels}
        case ShapeFormat(pattern=pattern):
            return re.fullmatch(pattern, _plain(answer)) is not None


def in_words(wanted: JsonFormat | LabelFormat | ShapeFormat) -> str:
    """A format as a person reads it."""
    match wanted:
        case JsonFormat(keys=keys):
            return f"a JSON object with the keys {', '.join(keys)}"
        case LabelFormat(labels=labels):
            more = f" and {len(labels) - 6} more" if len(labels) > 6 else ""
            return f"one of {len(labels)} labels: {', '.join(labels[:6])}{more}"
        case ShapeFormat(example=example):
            return f"a text shaped like “{example}”"


def same(answer: str, reference: str) -> bool:
    """Whether an answer says what the reference says.

    Where both are JSON objects or lists their values are compared; else the text, in one Unicode form (NFC) and with
    each stretch of white space as one space. Case counts.
    """
    expected = _container(reference)
    if expected is not None:
        return _canonical(_container(answer)) == _canonical(expected)
    return _plain(answer) == _plain(reference)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _no_constant(_: str) -> Any:
    raise ValueError("JSON has no such number")


def _container(text: str) -> Any:
    """A JSON object or list; None if the text is neither, or names a key twice."""
    if text.strip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def _canonical(value: Any) -> str:
    return unicodedata.normalize("NFC", json.dumps(value, sort_keys=True, ensure_ascii=False))


def _object(text: str) -> dict[str, Any] | None:
    value = _container(text)
    return value if isinstance(value, dict) else None


def _json(answers: Sequence[str]) -> JsonFormat | None:
    counts: Counter[tuple[str, ...]] = Counter()
    order: dict[tuple[str, ...], list[str]] = {}
    for answer in answers:
        if value := _object(answer):
            keys = tuple(sorted(value))
            counts[keys] += 1
            order.setdefault(keys, list(value))
    for keys, count in counts.most_common(1):
        if count >= COMMON * len(answers):
            return JsonFormat(keys=order[keys])
    return None


def _labels(answers: Sequence[str]) -> LabelFormat | None:
    counts = Counter(map(_plain, answers))
    usual = [(label, count) for label, count in counts.most_common(MOST_LABELS + 1) if count > 1]
    covered = sum(count for _, count in usual)
    # each label is seen several times on average: else it is free text with repetitions
    few = len(usual) <= MOST_LABELS and len(usual) * 4 <= len(answers)
    short = all(0 < len(label) <= LONGEST_LABEL for label, _ in usual)
    if usual and few and short and covered >= COMMON * len(answers):
        return LabelFormat(labels=[label for label, _ in usual])
    return None


_PIECE = re.compile(r"(?P<digits>\d+)|(?P<word>[^\W\d_]+)|(?P<space>\s+)|(?P<sign>.)", re.DOTALL)
MOST_PIECES = 40


def _pieces(text: str) -> list[tuple[str, str]]:
    """What a text is made of: digits, words, spaces and signs, in order."""
    return [(str(found.lastgroup), found[0]) for found in _PIECE.finditer(text)]


def _shape(answers: Sequence[str]) -> ShapeFormat | None:
    """The same pieces in the same order, such as a date, a code or “Answer: 7”; free words alone are no shape."""
    taken = [_pieces(_plain(answer)) for answer in answers]
    kinds = Counter(tuple(text if kind == "sign" else kind for kind, text in pieces) for pieces in taken)
    wanted, count = kinds.most_common(1)[0]
    if count < COMMON * len(answers) or not 1 < len(wanted) <= MOST_PIECES:
        return None
    members = [pieces for pieces in taken if tuple(text if kind == "sign" else kind for kind, text in pieces) == wanted]
    columns = list(zip(*members, strict=True))
    pattern = "".join(_column(column) for column in columns)
    fixed = [len({text for _, text in column}) == 1 for column in columns if column[0][0] in ("word", "sign")]
    if not any(fixed) or (all(kind in ("word", "space") for kind, _ in members[0]) and sum(fixed) < 2):
        return None
    return ShapeFormat(pattern=pattern, example="".join(text for _, text in members[0])[:80])


def _column(column: Sequence[tuple[str, str]]) -> str:
    texts = {text for _, text in column}
    if len(texts) == 1:
        return re.escape(next(iter(texts)))
    if column[0][0] == "digits":
        lengths = {len(text) for text in texts}
        return rf"\d{{{lengths.pop()}}}" if len(lengths) == 1 else r"\d+"
    return r"[^\W\d_]+" if column[0][0] == "word" else r"\s+"
