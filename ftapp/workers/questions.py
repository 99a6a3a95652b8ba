"""The rows of an evaluation: drawn, put as tokens to each contestant, with examples as far as they fit the context."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ftapp.contract.config import RunConfig
from ftapp.contract.errors import DatasetError, ModelError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.examples import Example, Message, RowProblem
from ftapp.store.datasets import DatasetStore
from ftapp.store.splits import group_of
from ftapp.workers.asking import Prompt
from ftapp.workers.similar import Similar, with_examples
from ftapp.workers.tokens import IGNORED, Encoder, TokenRow

POOL = 20_000
"""Training rows, drawn from all, among which examples and the format are looked for."""
AUTO_ANSWER, AUTO_THOUGHTS = 512, 4096
"""Tokens; the most that `auto` allows an answer, and one that is thought about first."""

T = TypeVar("T")


@dataclass(frozen=True)
class Drawn:
    """The rows that take part."""

    rows: list[Example]
    available: int
    """Rows there were to draw from."""
    seen: int
    """Rows of another dataset that are not among these since their prompt was trained on."""
    pool: list[Example]
    """Training rows."""


def draw_rows(store: DatasetStore, config: EvaluateConfig, run: RunConfig) -> Drawn:
    """Rows to measure on and training rows, by the config's seed; raises DatasetError if there is none to measure."""
    training, measuring, _ = store.sides(run.data, run.seed)
    if config.dataset is None:
        rows, available = draw(measuring, config.rows, config.seed)
        if not rows:
            raise DatasetError("The run held no rows out.", "Choose a dataset of its own to measure on.")
        return Drawn(rows, available, 0, draw(training, POOL, config.seed)[0])
    trained_on: set[int] = set()

    def noted() -> Iterator[Example]:
        for row in training:
            trained_on.add(group_of(row))
            yield row

    pool, _ = draw(noted(), POOL, config.seed)
    total = store.get(config.dataset).report.valid
    unseen = (row for row in store.examples(config.dataset) if group_of(row) not in trained_on)
    rows, available = draw(unseen, config.rows, config.seed)
    if not rows:
        raise DatasetError(
            f"Every row of '{config.dataset}' has a prompt that the run was trained on.",
            "Choose a dataset with other questions.",
        )
    return Drawn(rows, available, total - available, pool)


def draw(items: Iterable[T], count: int, seed: int) -> tuple[list[T], int]:
    """`count` of the items, or all if there are fewer, in their order, each as likely; and how many there were.

    One pass (Vitter's algorithm R, ACM TOMS 11, 1985).
    """
    chance, kept, seen = random.Random(seed), list[tuple[int, T]](), 0
    for number, item in enumerate(items):
        seen += 1
        if len(kept) < count:
            kept.append((number, item))
        elif (place := chance.randrange(seen)) < count:
            kept[place] = (number, item)
    return [item for _, item in sorted(kept, key=lambda one: one[0])], seen


@dataclass
class Question:
    """One row as the contestants get it."""

    example: Example
    learned: list[TokenRow]
    """With the right answer, as in training; more than one row for some templates."""
    prompt: Prompt | None = None
    """The tuned model's; None for a plain text."""
    prompt_base: Prompt | None = None
    """The same; without thinking, where no row thinks and the template knows that switch."""
    shown: int = 0
    """Examples in front of it."""
    learned_with: list[TokenRow] = field(default_factory=list)
    """The same right answer after the examples."""
    prompt_with: Prompt | None = None

    @property
    def turns(self) -> list[Message]:
        """What was said before the answer."""
        return self.example.messages[:-1]


def longest_answer(encoder: Encoder, config: EvaluateConfig, rows: Sequence[Example]) -> int:
    """Tokens that an answer may have, its thoughts included."""
    if config.max_new_tokens != "auto":
        return config.max_new_tokens
    answers = [(row.messages[-1].reasoning_content or "") + reference(encoder, row) for row in rows if row.messages]
    lengths = [len(encoder.tokenizer(answer)["input_ids"]) for answer in answers]
    most = AUTO_THOUGHTS if think(rows) else AUTO_ANSWER
    return min(most, math.ceil(1.25 * max(lengths, default=0)) + 8)


def think(rows: Iterable[Example]) -> bool:
    """Whether answers in the rows are thought about before they are given."""
    lasts = [row.messages[-1] for row in rows if row.messages]
    return any(last.reasoning_content or "</think>" in last.content for last in lasts)


def questions(
    encoder: Encoder, rows: Sequence[Example], room: int, context: int, of_base: dict[str, Any]
) -> list[Question]:
    """The rows that fit the context, as tokens, for the base with these options of the chat template.

    Raises DatasetError if none fits, or one is refused.
    """
    found = []
    for example in rows:
        try:
            learned = encoder.encode(example)
        except RowProblem as problem:
            raise DatasetError(
                f"A row cannot be used with {encoder.model_name} (line {example.line}): {problem}.",
                "Correct or remove that row, or measure on another dataset.",
            ) from None
        if max(len(row.input_ids) for row in learned) > context or not any(map(_predicted, learned)):
            continue
        one = Question(example, learned)
        if example.messages:
            ids = encoder.prompt(one.turns, tools=example.tools)
            one.prompt = Prompt(ids, min(room, context - len(ids)))
            ids = encoder.prompt(one.turns, tools=example.tools, **of_base)
            one.prompt_base = one.prompt_with = Prompt(ids, min(room, context - len(ids)))
            one.learned_with = learned
        found.append(one)
    if not found:
        raise DatasetError(
            f"None of the {len(rows)} rows fits the model's context of {context} tokens.", "Measure on shorter rows."
        )
    return found


def show_examples(
    encoder: Encoder,
    asked: Sequence[Question],
    pool: Sequence[Example],
    count: int,
    context: int,
    of_base: dict[str, Any],
    told: Callable[[int], None],
) -> float:
    """Put before each question up to `count` training rows most like it, of those that fit; returns the mean number.

    A question keeps its room for an answer, so that the limits stay the same with and without examples.
    """
    similar = Similar(pool)
    for number, one in enumerate(asked):
        told(number)
        assert one.prompt_base is not None
        room = one.prompt_base.room
        shown: list[list[Message]] = []
        for candidate in similar.like(one.turns, count):
            longer = with_examples(one.example.messages, [*shown, candidate])
            try:
                ids = encoder.prompt(longer[:-1], tools=one.example.tools, **of_base)
                learned = encoder.encode(one.example.model_copy(update={"messages": longer}))
            except (RowProblem, ModelError):
                break  # a template for one question alone
            if len(ids) + room <= context and max(len(row.input_ids) for row in learned) <= context:
                shown.append(candidate)
                one.learned_with, one.prompt_with = learned, Prompt(ids, room)
        one.shown = len(shown)
    return sum(one.shown for one in asked) / len(asked)


def reference(encoder: Encoder, example: Example) -> str:
    """The right answer as the model should write it; a plain text itself."""
    if example.text is not None:
        return example.text
    last = example.messages[-1]
    if not last.tool_calls:
        return last.content
    learned = [token for token in encoder.encode(example)[-1].labels if token != IGNORED]
    return str(encoder.tokenizer.decode(learned, skip_special_tokens=True)).strip()


def _predicted(row: TokenRow) -> bool:
    return any(label != IGNORED for label in row.labels[1:])
