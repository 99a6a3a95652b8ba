"""What an evaluation is asked and what it says: three contestants, the same held-out rows; workers write, all read."""

import random
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ftapp.contract.answers import AnswerFormat
from ftapp.contract.base import ADVANCED, BASIC, Auto, Contract, Line
from ftapp.contract.examples import Message
from ftapp.contract.figures import Difference, Figure
from ftapp.contract.refusals import config_error

Contestant = Literal["base", "examples", "tuned"]
NAMES: dict[Contestant, str] = {
    "base": "Base as it is",
    "examples": "Base with examples",
    "tuned": "Tuned",
}
Measure = Literal["loss", "exact", "overlap", "format", "stopped", "length"]
MEASURES: dict[Measure, str] = {
    "exact": "Exactly right",
    "format": "In the format",
    "overlap": "Overlap (chrF)",
    "stopped": "Stopped by itself",
    "length": "Length, tokens",
    "loss": "Answer loss",
}
HIGHER_IS_BETTER: tuple[Measure, ...] = ("exact", "format", "overlap", "stopped")


class EvaluateConfig(Contract):
    """One evaluation: a run's model, its base, and its base with examples, on rows that it was not trained on."""

    run: str = Field(min_length=1, title="Run")
    """The run that is evaluated."""

    rows: int = Field(200, ge=1, le=10_000, title="Rows", json_schema_extra=BASIC)
    """Held-out rows to measure on, drawn by the seed; all if there are fewer. More rows make narrower intervals."""

    examples: int = Field(4, ge=1, le=32, title="Examples in the prompt", json_schema_extra=BASIC)
    """Training rows most like the question (BM25) that the base is shown; fewer where they do not fit its context."""

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] | Auto = Field(
        "auto", title="Longest answer (tokens)", json_schema_extra=ADVANCED
    )
    """Answers are cut here; `auto`: a quarter more than the longest right answer, at most 512 (4096 with thoughts)."""

    dataset: Line | None = Field(None, min_length=1, max_length=1000, title="Measure on", json_schema_extra=BASIC)
    """Another dataset to measure on, less the rows with a prompt of the training; empty: what the run held out."""

    seed: int = Field(0, ge=0, le=2**32 - 1, title="Seed", json_schema_extra=ADVANCED)
    """Draws the rows."""


class Answer(Contract):
    """What one contestant made of one row."""

    loss: float
    """Summed over the tokens of the right answer, nats."""
    tokens: int
    """Of the right answer."""
    text: str | None = None
    """What it answered; None where a row is a plain text."""
    exact: bool = False
    overlap: float = 0.0
    """chrF of the sentence, 0 to 100."""
    in_format: bool = False
    stopped: bool = False
    """It ended by itself, before the limit."""
    length: int = 0
    """Tokens written."""
    examples: int = 0
    """That it was shown."""


class AnsweredRow(Contract):
    """One held-out row, what is right, and the answers."""

    row: int
    """Its number in the evaluation, from 1."""
    line: int = 0
    """In the dataset's file, from 1; 0 if it has no lines."""
    turns: list[Message]
    """What was asked, up to the answer; empty for a plain text."""
    reference: str
    answers: dict[Contestant, Answer]

    @property
    def question(self) -> str:
        """The last thing that was said before the answer."""
        return self.turns[-1].content if self.turns else ""


class Scores(Contract):
    """One contestant's figures; those of answers are None where the rows are plain texts."""

    contestant: Contestant
    loss: Figure
    """Mean over the tokens of the right answers, nats."""
    perplexity: Figure
    tokens: int
    """Of the right answers."""
    exact: Figure | None = None
    """Share of answers that say what the row says: see `contract.answers.same`."""
    overlap: Figure | None = None
    """Mean of the sentences' chrF, 0 to 100."""
    format: Figure | None = None
    """Share of answers in the format of the training answers; None if these share none."""
    stopped: Figure | None = None
    length: Figure | None = None


class Comparison(Contract):
    """One measure of two contestants: the first less the second."""

    measure: Measure
    first: Contestant
    second: Contestant
    difference: Difference

    @property
    def better(self) -> Contestant | None:
        """Who is better, if the difference is real."""
        if not self.difference.real or self.measure == "length":
            return None
        ahead = self.difference.value > 0 if self.measure in HIGHER_IS_BETTER else self.difference.value < 0
        return self.first if ahead else self.second


class Unrelated(Contract):
    """The loss on a fixed text that has nothing to do with the rows, nats a token: what was forgotten."""

    base: Figure
    tuned: Figure
    difference: Difference
    """Tuned less base, paired by passage."""
    tokens: int


VerdictKind = Literal["helped", "prompting", "no_difference", "worse", "not_needed", "too_few"]


class Verdict(Contract):
    """What the figures add up to."""

    kind: VerdictKind
    sentence: str
    remarks: list[str] = Field(default_factory=list)
    """What else a person should know: what was forgotten, what would be next."""


class EvaluationReport(Contract):
    """A finished evaluation."""

    run: str
    dataset: str
    """What was measured on."""
    held_out_by_run: bool
    """Whether these are rows that the run itself held out."""
    rows: int
    """Measured: n of every figure."""
    available: int
    """Rows there were to measure on."""
    too_long: int = 0
    """Rows drawn that do not fit the context with an answer, left out."""
    seen_in_training: int = 0
    """Rows of another dataset whose prompt was trained on, left out."""
    examples: float
    """Shown to the base with examples, mean over the rows."""
    max_new_tokens: int
    base_unthinking: bool = False
    """Whether the base was asked not to think before it answers, since no row does."""
    format: AnswerFormat | None
    """What the training answers have in common."""
    scores: list[Scores]
    comparisons: list[Comparison]
    unrelated: Unrelated
    verdict: Verdict
    seconds: float
    device: str

    def of(self, contestant: Contestant) -> Scores | None:
        """One contestant's figures, if it took part."""
        return next((scores for scores in self.scores if scores.contestant == contestant), None)

    def compared(self, measure: Measure, first: Contestant, second: Contestant) -> Comparison | None:
        """One comparison, if it was made."""
        wanted = (measure, first, second)
        return next((one for one in self.comparisons if (one.measure, one.first, one.second) == wanted), None)


class Vote(Contract):
    """Who gave the best answer to a row, as a person said it who did not know who was who."""

    row: int
    best: list[Contestant]
    """All who gave that answer; empty: no answer was better than the others."""


def tally(votes: list[Vote]) -> dict[Contestant | Literal["none"], int]:
    """Votes for each contestant, and for none; the last vote on a row counts."""
    counts: dict[Contestant | Literal["none"], int] = {"base": 0, "examples": 0, "tuned": 0, "none": 0}
    for vote in {vote.row: vote for vote in votes}.values():
        for name in vote.best:
            counts[name] += 1
        counts["none"] += not vote.best
    return counts


def ballot(row: AnsweredRow, seed: str) -> list[tuple[str, list[Contestant]]]:
    """The different answers to a row, shuffled by the seed, each with all who gave it."""
    who: dict[str, list[Contestant]] = {}
    for name, answer in row.answers.items():
        if answer.text is not None:
            who.setdefault(answer.text.strip(), []).append(name)
    answers = list(who.items())
    random.Random(f"{seed}/{row.row}").shuffle(answers)
    return answers


def parse_evaluate_config(value: Any) -> EvaluateConfig:
    """An EvaluateConfig from plain JSON values; raises ConfigError."""
    try:
        return EvaluateConfig.model_validate(value)
    except ValidationError as error:
        raise config_error(error) from None
