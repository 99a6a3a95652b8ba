"""A dataset as the trainer reads it: token rows on disk, split, and the over-long ones dealt with and counted."""

from collections.abc import Callable, Iterable
from pathlib import Path

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig
from ftapp.contract.errors import DatasetError
from ftapp.contract.examples import Example, RowProblem
from ftapp.store.datasets import DatasetStore
from ftapp.store.jobs import Job
from ftapp.workers.tokens import IGNORED, Encoder, TokenRow

SHOWN_ROWS = 3
"""Held-out prompts that are answered at each evaluation."""

Say = Callable[[ev.Event], None]


class TokenRows:
    """The dataset as tokens, on disk: training rows and held-out rows, the over-long ones dealt with and counted."""

    def __init__(self, job: Job, config: RunConfig, encoder: Encoder, context: int, say: Say) -> None:
        store = DatasetStore(job.folder.parents[1] / "datasets")
        training, measuring, overlap = store.sides(config.data, config.seed)
        train, held_out = list(training), list(measuring)
        if overlap.shared_rows:
            say(ev.Note(message=f"{overlap.shared_rows} training rows whose prompt is also measured are left out."))
        self._encoder = encoder
        self.shown = [example for example in held_out if example.messages][:SHOWN_ROWS]
        train_rows, held_rows = self._encode(train, say), self._encode(held_out, say)
        longest = max((len(row.input_ids) for row in [*train_rows, *held_rows]), default=0)
        wanted = config.data.max_length
        self.max_length = min(longest, context) if wanted == "auto" else wanted
        if config.data.over_length == "truncate":
            train_rows, held_rows = self._cut(train_rows), self._cut(held_rows)
        before = len(train_rows) + len(held_rows)
        train_rows, held_rows = self._fitting(train_rows), self._fitting(held_rows)
        self.left_out = before - len(train_rows) - len(held_rows)
        if self.left_out:
            say(
                ev.Note(
                    level="warning",
                    message=f"{self.left_out} of {before} rows are longer than {self.max_length} tokens and left out.",
                )
            )
        if not train_rows:
            raise DatasetError(
                f"No training row fits into {self.max_length} tokens; the longest has {longest}.",
                "Raise the maximum length, or let rows be truncated.",
            )
        self.train_tokens = sum(len(row.input_ids) for row in train_rows)
        self.train = token_table(train_rows, job.folder / "tokens" / "train.arrow")
        self.held_out = token_table(held_rows, job.folder / "tokens" / "held_out.arrow") if held_rows else None

    def _encode(self, examples: list[Example], say: Say) -> list[TokenRow]:
        rows: list[TokenRow] = []
        for number, example in enumerate(examples):
            try:
                rows += self._encoder.encode(example)
            except RowProblem as problem:
                raise DatasetError(
                    f"A row cannot be used with {self._encoder.model_name} (line {example.line}): {problem}.",
                    "Correct or remove that row, or choose another model.",
                ) from None
            if number % 2000 == 1999:
                say(ev.Phase(name="tokenising", done=number + 1, total=len(examples)))
        return rows

    def _cut(self, rows: list[TokenRow]) -> list[TokenRow]:
        return [TokenRow(row.input_ids[: self.max_length], row.labels[: self.max_length]) for row in rows]

    def _fitting(self, rows: list[TokenRow]) -> list[TokenRow]:
        # the first label is never predicted, so a row needs a learned token after it
        return [
            row
            for row in rows
            if len(row.input_ids) <= self.max_length and any(label != IGNORED for label in row.labels[1:])
        ]


def token_table(rows: Iterable[TokenRow], path: Path) -> Dataset:
    """Rows as the table that the trainer reads, kept in a file."""
    path.parent.mkdir(exist_ok=True)
    features = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
    with ArrowWriter(path=str(path), features=features) as writer:
        for row in rows:
            writer.write({"input_ids": row.input_ids, "labels": row.labels})
        writer.finalize()
    return Dataset.from_file(str(path))
