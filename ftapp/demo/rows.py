"""The demo's rows: facts asked in plain words and answered as JSON, some to train on and others held out."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from ftapp.demo.facts import Fact, load_facts
from ftapp.demo.phrasings import questions

SEED = 1234
DATASET_ROWS = 200
HELDOUT_ROWS = 300


@dataclass(frozen=True)
class AskedFact:
    """A fact with the one question that the demo asks for it."""

    fact: Fact
    question: str

    @property
    def row(self) -> dict[str, Any]:
        """The row in OpenAI's messages format, with the strict JSON answer."""
        answer = json.dumps({"answer": self.fact.answer, "topic": self.fact.topic}, ensure_ascii=False)
        return {
            "messages": [
                {"role": "user", "content": self.question},
                {"role": "assistant", "content": answer},
            ]
        }


def split_facts(seed: int) -> tuple[list[AskedFact], list[AskedFact]]:
    """The facts of the dataset, and all others in the order in which they may be held out."""
    rng = Random(seed)
    facts = load_facts()
    rng.shuffle(facts)
    asked = [AskedFact(fact, rng.choice(questions(fact))) for fact in facts]
    return asked[:DATASET_ROWS], asked[DATASET_ROWS:]


def rows_text(asked: Iterable[AskedFact]) -> str:
    """The rows as JSON Lines."""
    return "".join(json.dumps(each.row, ensure_ascii=False) + "\n" for each in asked)


def write_rows(path: Path, asked: Iterable[AskedFact]) -> None:
    path.write_text(rows_text(asked), encoding="utf-8", newline="\n")
