"""Whether an answer of the demo is right, read from its text alone."""

import json
from collections.abc import Iterable

ANSWER_KEYS = ["answer", "topic"]


def json_answer_right(output: str, expected: str) -> bool:
    """True if `output` is the demo's JSON object and its answer is `expected`."""
    answer = json_answer(output)
    return answer is not None and answer == expected


def json_answer(output: str) -> str | None:
    """The answer in `output` if it is an object of exactly the strings answer and topic, in that order."""
    try:
        pairs = json.loads(output, object_pairs_hook=list)
    except ValueError:
        return None
    if not output.lstrip().startswith("{") or [key for key, _ in pairs] != ANSWER_KEYS:
        return None
    values = [value for _, value in pairs]
    return values[0] if all(isinstance(value, str) for value in values) else None


def is_json_object(output: str) -> bool:
    """True if `output` as a whole parses as any JSON object."""
    try:
        return isinstance(json.loads(output), dict)
    except ValueError:
        return False


def sentence_right(output: str, sentences: Iterable[str]) -> bool:
    """True if `output` is one of the right `sentences`; case and the final stop do not count."""
    return _plain(output) in {_plain(sentence) for sentence in sentences}


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()
