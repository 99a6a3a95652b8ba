"""A dataset as the trainer reads it: token rows on disk, split, and the over-long ones dealt with and counted."""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig
from ftapp.contract.errors import DatasetError, ModelError
from ftapp.contract.examples import Example, RowProblem
from ftapp.store.datasets import DatasetStore
from ftapp.store.jobs import Job
from ftapp.workers.continuing import RowsHash
from ftapp.workers.tokens import IGNORED, Encoder, TokenRow

SHOWN_ROWS = 3
"""Held-out prompts that are answered at each evaluation."""
SHOWN_TOKENS = 64
"""How long the answers to them may get."""
WRITTEN_ROWS = 100
"""So many rows are in memory before they are written."""

Say = Callable[[ev.Event], None]


@dataclass(frozen=True)
class Shown:
    """A held-out prompt that is answered at each evaluation."""

    ids: list[int]
    room: int
    """Tokens that the answer may have."""
    prompt: str
    reference: str


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
        self._context = context
        self.longest_row = self._seen = self.left_out = 0
        self._cut = self._answers_cut = self._ending = 0
        self._refused = False
        self._done, self._total = 0, overlap.train_rows + overlap.eval_rows
        self.shown: list[Shown] = []
        digest = RowsHash()
        # each process of a run on several devices writes its own
        folder = job.folder / "tokens" / os.environ.get("RANK", "0")
        self.train, self.lengths = token_table(digest.passing(self._encode(training)), folder / "train.arrow")
        ending = self._ending
        measured, held_lengths = token_table(
            digest.passing(self._encode(measuring, showing=True)), folder / "held_out.arrow"
        )
        self.held_out = measured if held_lengths else None
        self.max_length = min(self.longest_row, context) if config.data.max_length == "auto" else self._limit
        self.longest = min(self.longest_row, self.max_length)
        self.train_tokens = sum(self.lengths)
        if self.left_out:
            say(
                ev.Note(
                    level="warning",
                    message=f"{self.left_out} of {self._seen} rows are longer than {self.max_length} tokens "
                    "and left out.",
                )
            )
        if self._cut:
            say(
                ev.Note(
                    level="warning",
                    message=f"{self._cut} of {self._seen} rows are cut at {self._limit} tokens; {self._answers_cut} of "
                    "them lose the end of an answer, and with it the token at which the model learns to stop.",
                )
            )
        if not self.lengths:
            raise DatasetError(
                f"No training row fits into {self.max_length} tokens; the longest has {self.longest_row}.",
                "Raise the maximum length, or let rows be truncated.",
            )
        if not ending:
            raise DatasetError(
                f"No training row still has {encoder.stop_token}, which ends an answer: the model would never learn to "
                "stop.",
                f"Raise the maximum length, {self._limit} now, or leave rows out that are too long."
                if self._answers_cut
                else "Give the last answer of some rows a weight of 1.",
            )
        self.hash = digest.hexdigest()

    def _show(self, example: Example) -> None:
        """Take the example's prompt among those that are answered on the way, if there is room for an answer."""
        asked, answer = example.messages[:-1], example.messages[-1]
        try:
            ids = self._encoder.prompt(asked, tools=example.tools)
        except ModelError as error:
            if not self._refused:
                self._say(ev.Note(message=f"{error.message} Such rows are not answered while training."))
            self._refused = True
            return
        room = min(SHOWN_TOKENS, self._context - len(ids))
        if len(ids) <= self._limit and room > 0:
            self.shown.append(Shown(ids, room, asked[-1].content, answer.content))

    def _encode(self, examples: Iterable[Example], showing: bool = False) -> Iterator[TokenRow]:
        """The rows that fit, one after the other; what does not is cut or counted."""
        for example in examples:
            try:
                rows = self._encoder.encode(example)
            except RowProblem as problem:
                raise DatasetError(
                    f"A row cannot be used with {self._encoder.model_name} (line {example.line}): {problem}.",
                    "Correct or remove that row, or choose another model.",
                ) from None
            if showing and example.messages and len(self.shown) < SHOWN_ROWS:
                self._show(example)
            for row in rows:
                self._seen += 1
                self.longest_row = max(self.longest_row, len(row.input_ids))
                if self._truncate and len(row.input_ids) > self._limit:
                    self._cut += 1
                    self._answers_cut += any(label != IGNORED for label in row.labels[self._limit :])
                    row = TokenRow(row.input_ids[: self._limit], row.labels[: self._limit])
                # the first label is never predicted, so a row needs a learned token after it
                if len(row.input_ids) <= self._limit and any(label != IGNORED for label in row.labels[1:]):
                    self._ending += example.text is not None or self._encoder.stop_id in row.labels
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
    with ArrowWriter(path=str(path), features=features, writer_batch_size=WRITTEN_ROWS) as writer:
        for row in rows:
            writer.write({"input_ids": row.input_ids, "labels": row.labels})
            lengths.append(len(row.input_ids))
        writer.finalize()
    return Dataset.from_file(str(path)), lengths
