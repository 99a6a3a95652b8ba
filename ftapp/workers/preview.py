"""The worker's end of the preview pipe: a dataset as a base model's tokens, by the function that training calls."""

import os
import random
import time
from array import array
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ftapp.contract.chat import Error, Loading, Ready
from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import FtappError, ModelError
from ftapp.contract.examples import Example, RowProblem
from ftapp.contract.memory import AUTO_LENGTH_LIMIT
from ftapp.contract.preview import Examine, Lengths, Measure, Page, Refusal, Reply, Row, Rows, asks
from ftapp.store.datasets import DatasetStore
from ftapp.workers import sources
from ftapp.workers.examine import examine
from ftapp.workers.tokens import IGNORED, Encoder, TokenRow, context_of, load_tokenizer

SAMPLE = 20_000
"""Rows that are measured of a larger dataset, drawn with a fixed seed; of the others one of each shape is rendered."""
SECONDS = 0.5
"""Between two words on how far it is."""
BINS = 30
REFUSALS_SHOWN = 100

Say = Callable[[Reply], None]


class Preview:
    """One dataset and one tokenizer; the sample is encoded once and measured again for each maximum length."""

    def __init__(self, dataset: Path, model: ModelConfig) -> None:
        self._store, self._id = DatasetStore(dataset.parent), dataset.name
        folder, _ = sources.find_files(model, os.environ.get("HF_TOKEN"), lambda _: None, weights=False)
        self._encoder = Encoder(load_tokenizer(folder), model.public_name)
        self._context = context_of(folder, model.public_name) or AUTO_LENGTH_LIMIT
        self._of_rows = 0
        self._rows: list[TokenRow] | None = None
        self._refusals: list[Refusal] = []
        self._refused = 0
        self._searched: tuple[str, Sequence[int]] = ("", ())
        """The words that were last searched for, and the rows that have them: for the next page."""

    def measure(self, request: Measure, say: Say) -> Lengths:
        """The lengths of all rows, or of a sample of many; says how far it is, since the first time is slow."""
        rows = self._encoded(say)
        if not rows:
            first = self._refusals[0].message if self._refusals else "there are none"
            raise ModelError(f"{self._encoder.model_name} can use no row of this dataset: {first}.")
        lengths = sorted(len(row.input_ids) for row in rows)
        suggested = self._suggest(lengths)
        limit = request.max_length or suggested
        answers = [sum(label != IGNORED for label in row.labels) for row in rows]
        kept = [sum(label != IGNORED for label in row.labels[:limit]) for row in rows]
        step = max(1, -(-lengths[-1] // BINS))
        edges = list(range(0, lengths[-1] + step, step))
        fitting = sum(length for length in lengths if length <= limit)
        return Lengths(
            rows=len(rows),
            of_rows=self._of_rows,
            edges=edges,
            counts=[sum(low < n <= low + step for n in lengths) for low in edges[:-1]],
            p50=_percentile(lengths, 50),
            p95=_percentile(lengths, 95),
            p99=_percentile(lengths, 99),
            longest=lengths[-1],
            context=self._context,
            suggested=suggested,
            max_length=limit,
            longer=sum(length > limit for length in lengths),
            answers_cut=sum(part < whole for part, whole in zip(kept, answers, strict=True)),
            answer_tokens_lost=1 - sum(kept) / max(1, sum(answers)),
            tokens_per_epoch=round(fitting * self._of_rows / max(1, min(self._of_rows, SAMPLE))),
            refusals=self._refusals,
            refused=self._refused,
        )

    def page(self, request: Page) -> Rows:
        """Rows as tokens; a row that the template refuses is shown with its reason."""
        found: Sequence[int] = range(self._store.get(self._id).report.valid)
        if words := request.search.strip():
            if self._searched[0] != words:
                self._searched = words, array("i", self._store.matching(self._id, words))
            found = self._searched[1]
        rows = [
            self._row(number + 1, next(self._store.examples(self._id, number, 1)))
            for number in found[request.start : request.start + request.count]
        ]
        return Rows(rows=rows, found=len(found))

    def _row(self, number: int, example: Example) -> Row:
        try:
            rows = self._encoder.encode(example)
        except RowProblem as problem:
            return Row(row=number, line=example.line, pieces=[], tokens=0, trained=0, problem=str(problem))
        labels = [label for row in rows for label in row.labels]
        return Row(
            row=number,
            line=example.line,
            pieces=[piece for row in rows for piece in self._encoder.pieces(row)],
            tokens=len(labels),
            trained=sum(label != IGNORED for label in labels),
        )

    def _encoded(self, say: Say) -> list[TokenRow]:
        if self._rows is not None:
            return self._rows
        self._of_rows = self._store.get(self._id).report.valid
        chosen: Container[int] = range(self._of_rows)
        if self._of_rows > SAMPLE:
            chosen = set(random.Random(0).sample(range(self._of_rows), SAMPLE))
        rows: list[TokenRow] = []
        accepted, said = set[tuple[str, ...]](), 0.0
        for number, row in enumerate(self._store.canonical(self._id)):
            if time.monotonic() - said > SECONDS:
                said = time.monotonic()
                say(Loading(name=f"measuring: at row {number:,} of {self._of_rows:,}"))
            shape = _shape(row)
            if shape in accepted and number not in chosen:
                continue
            example = Example.model_validate(row)
            try:
                found = self._encoder.encode(example)
            except RowProblem as problem:
                self._refused += 1
                if len(self._refusals) < REFUSALS_SHOWN:
                    self._refusals.append(Refusal(row=number + 1, line=example.line, message=str(problem)))
                continue
            accepted.add(shape)
            if number in chosen:
                rows += found
        self._rows = rows
        return rows

    def _suggest(self, lengths: list[int]) -> int:
        p99, longest = _percentile(lengths, 99), lengths[-1]
        wanted = longest if longest <= 1.5 * p99 else -(-p99 // 16) * 16
        return max(16, min(wanted, self._context))


def _shape(row: dict[str, Any]) -> tuple[str, ...]:
    """What a chat template may refuse a row for: who speaks in which order, and what else the turns have."""
    turns = row.get("messages", [])
    return tuple(turn["role"] if len(turn) == 2 else f"{turn['role']} {sorted(turn)}" for turn in turns)


def _percentile(ordered: list[int], percent: int) -> int:
    """The smallest value that so many percent of the values do not exceed (nearest rank)."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def preview(arguments: list[str], requests_in: IO[bytes], replies_out: IO[bytes]) -> int:
    """Serve the pipe until its other end closes; returns the exit code."""

    def say(reply: Reply) -> None:
        replies_out.write(reply.model_dump_json().encode() + b"\n")
        replies_out.flush()

    try:
        served = None
        if arguments:  # else models are looked at, one after the other
            say(Loading(name="loading the tokenizer"))
            served = Preview(Path(arguments[0]), ModelConfig.model_validate_json(arguments[1]))
        say(Ready(device="CPU"))
        for reply in _answers(served, requests_in, say):
            say(reply)
    except FtappError as error:
        say(Error(message=error.message, hint=error.hint, fatal=True))
        return 1
    except BrokenPipeError:
        pass
    return 0


def _answers(served: Preview | None, requests_in: IO[bytes], say: Say) -> Iterator[Reply]:
    for line in requests_in:
        request = asks.validate_json(line)
        try:
            match request:
                case Examine():
                    yield examine(request.model)
                case Measure() if served:
                    yield served.measure(request, say)
                case Page() if served:
                    yield served.page(request)
                case _:
                    yield Error(message="There is no dataset here to look at.")
        except FtappError as error:
            yield Error(message=error.message, hint=error.hint)
