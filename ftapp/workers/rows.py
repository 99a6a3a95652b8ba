"""A dataset as the trainer reads it: token rows on disk, split, and the over-long ones dealt with and counted."""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig
from ftapp.contract.errors import DatasetError
from ftapp.contract.examples import Example, RowProblem
from ftapp.store.datasets import DatasetStore
from ftapp.store.jobs import Job
from ftapp.workers.continuing import RowsHash
from ftapp.workers.tokens import IGNORED, Encoder, TokenRow

SHOWN_ROWS = 3
"""Held-out prompts that are answered at each evaluation."""

Say = Callable[[ev.Event], None]


class TokenRows:
    """The dataset as tokens, on disk: training rows and held-out rows, the over-long ones dealt with and counted."""

    def __init__(self, job: Job, config: RunConfig, encoder: Encoder, context: int, say: Say) -> None:
        store = DatasetStore(job.folder.parents[1] / "datasets")
        training, measuring, overlap = store.sides(config.data, config.seed)
        if overlap.shared_rows:
            say(ev.Note(message=f"{overlap.shared_rows} training rows whose prompt is also measured are left out."))
        self._encoder, self._say = encoder, say
        self._limit = context if config.data.max_length == "auto" else config.data.max_length
        self._truncate = config.data.over_length == "truncate"
        self._longest = self._seen = self.left_out = 0
        self._done, self._total = 0, overlap.train_rows + overlap.eval_rows
        self.shown: list[Example] = []
        digest = RowsHash()
        # each process of a run on several devices writes its own
        folder = job.folder / "tokens" / os.environ.get("RANK", "0")
        self.train, self.lengths = token_table(digest.passing(self._encode(training)), folder / "train.arrow")
        showing = self._encode(self._showing(measuring))
        measured, held_lengths = token_table(digest.passing(showing), folder / "held_out.arrow")
        self.held_out = measured if held_lengths else None
        self.max_length = min(self._longest, context) if config.data.max_length == "auto" else self._limit
        self.longest = min(self._longest, self.max_length)
        self.train_tokens = sum(self.lengths)
        if self.left_out:
            say(
                ev.Note(
                    level="warning",
                    message=f"{self.left_out} of {self._seen} rows are longer than {self.max_length} tokens "
                    "and left out.",
                )
            )
        if not self.lengths:
            raise DatasetError(
                f"No training row fits into {self.max_length} tokens; the longest has {self._longest}.",
                "Raise the maximum length, or let rows be truncated.",
            )
        self.hash = digest.hexdigest()

    def _showing(self, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            if example.messages and len(self.shown) < SHOWN_ROWS:
                self.shown.append(example)
            yield example

    def _encode(self, examples: Iterable[Example]) -> Iterator[TokenRow]:
        """The rows that fit, one after the other; what does not is cut or counted."""
        for example in examples:
            try:
                rows = self._encoder.encode(example)
            except RowProblem as problem:
                raise DatasetError(
                    f"A row cannot be used with {self._encoder.model_name} (line {example.line}): {problem}.",
                    "Correct or remove that row, or choose another model.",
                ) from None
            for row in rows:
                self._seen += 1
                self._longest = max(self._longest, len(row.input_ids))
                if self._truncate:
                    row = TokenRow(row.input_ids[: self._limit], row.labels[: self._limit])
                # the first label is never predicted, so a row needs a learned token after it
                if len(row.input_ids) <= self._limit and any(label != IGNORED for label in row.labels[1:]):
                    yield row
                else:
                    self.left_out += 1
            self._done += 1
            if self._done % 2000 == 0:
                self._say(ev.Phase(name="tokenising", done=self._done, total=self._total))


def token_table(rows: Iterable[TokenRow], path: Path) -> tuple[Dataset, "array[int]"]:
    """Rows as the table that the trainer reads, written to a file and mapped from there; and each row's length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = array("i")
    features = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
    with ArrowWriter(path=str(path), features=features) as writer:
        for row in rows:
            writer.write({"input_ids": row.input_ids, "labels": row.labels})
            lengths.append(len(row.input_ids))
        writer.finalize()
    return Dataset.from_file(str(path)), lengths
