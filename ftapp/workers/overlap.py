"""How much of an answer is in the right one: chrF, by sacrebleu; the evaluation calls it."""

import re

from sacrebleu.metrics.chrf import CHRF

THOUGHT = re.compile(r"^.*?</think>", re.DOTALL)

_CHRF = CHRF()


def overlap(answer: str, reference: str) -> float:
    """chrF2 of one text, 0 to 100: character n-grams up to 6 (Popović, WMT 2015); it needs no words or language."""
    return float(_CHRF.sentence_score(answer, [reference]).score)


def spoken(text: str) -> str:
    """An answer without the thinking before it."""
    return THOUGHT.sub("", text).strip()
