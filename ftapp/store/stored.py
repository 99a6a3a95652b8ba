"""Stored datasets as they are read: which there are, their rows, both sides of a split, exports."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from ftapp.contract.config import DataConfig
from ftapp.contract.errors import DatasetError
from ftapp.contract.examples import Example
from ftapp.contract.report import DatasetInfo, Overlap
from ftapp.store.exports import Kind, export, export_examples
from ftapp.store.splits import held_out

Files = Sequence[tuple[Path, str]]
"""Where each file is, and what the person calls it."""


class StoredDatasets:
    """The datasets in a folder, a folder each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def originals(self, id: str) -> Files:
        """The files as they came."""
        info = self.get(id)
        names = info.files or [info.filename]
        paths = sorted((self.folder / id).glob("original*"))
        return list(zip(paths, names, strict=True))

    def all(self) -> list[DatasetInfo]:
        """Every dataset, newest first."""
        try:
            names = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        found = [info for name in names if (info := self._find(name))]
        return sorted(found, key=lambda info: info.added, reverse=True)

    def get(self, id: str) -> DatasetInfo:
        """The dataset of that id; raises DatasetError if there is none."""
        info = self._find(id)
        if info is None:
            raise DatasetError(f"There is no dataset called '{id[:100]}'.", "Upload it, or choose one from the list.")
        return info

    def _find(self, id: str) -> DatasetInfo | None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", id):
            return None
        try:
            return DatasetInfo.model_validate_json((self.folder / id / "report.json").read_bytes())
        except (OSError, ValueError):
            return None

    def examples(self, id: str, start: int = 0, count: int | None = None) -> Iterator[Example]:
        """The canonical rows from number `start` on."""
        self.get(id)
        places = self._array(id, "places")
        for number, line in enumerate(islice(self._lines(id, start), count), start):
            yield _example(line, places[number])

    def search(self, id: str, words: str, start: int = 0, count: int = 10) -> list[tuple[int, Example]]:
        """Rows from number `start` on whose text has these words as they stand, each with its number."""
        numbers = islice(self.matching(id, words, start), count)
        return [(number, next(self.examples(id, number, 1))) for number in numbers]

    def matching(self, id: str, words: str, start: int = 0) -> Iterator[int]:
        """Numbers of the rows, from `start` on, that have these words as they stand, whatever their case."""
        self.get(id)
        wanted = words.strip().lower()
        written = orjson.dumps(wanted).decode()[1:-1]
        for number, line in enumerate(self._lines(id, start), start):
            # the line has the names of fields too
            if written in line.decode().lower() and wanted in _said(orjson.loads(line)).lower():
                yield number

    def canonical(self, id: str) -> Iterator[dict[str, Any]]:
        """The canonical rows as plain values, for which `examples` would be too slow."""
        self.get(id)
        for line, place in zip(self._lines(id), self._array(id, "places").tolist(), strict=True):
            yield {**orjson.loads(line), "line": place}

    def _lines(self, id: str, start: int = 0) -> Iterator[bytes]:
        offsets = self._array(id, "offsets")
        if start < len(offsets):
            with (self.folder / id / "rows.jsonl").open("rb") as file:
                file.seek(int(offsets[start]))
                yield from file

    def sides(self, data: DataConfig, seed: int) -> tuple[Iterator[Example], Iterator[Example], Overlap]:
        """The rows to train on and those to measure on, streamed; no prompt is on both sides.

        With an evaluation dataset of its own, training rows that share a prompt with it are left out.
        """
        import numpy

        groups = self._groups(data.dataset)
        if data.eval_dataset is None:
            held = held_out(groups, data.eval_fraction, seed)
            overlap = Overlap(train_rows=int((~held).sum()), eval_rows=int(held.sum()), shared_rows=0)
            return self._where(data.dataset, ~held), self._where(data.dataset, held), overlap
        other = self._groups(data.eval_dataset)
        shared = numpy.isin(groups, other)
        overlap = Overlap(train_rows=int((~shared).sum()), eval_rows=len(other), shared_rows=int(shared.sum()))
        return self._where(data.dataset, ~shared), self.examples(data.eval_dataset), overlap

    def measured(self, data: DataConfig, seed: int) -> tuple[str, Sequence[int]]:
        """The dataset whose rows a run measures on, and the numbers of those rows."""
        if data.eval_dataset:
            return data.eval_dataset, range(len(self._groups(data.eval_dataset)))
        return data.dataset, held_out(self._groups(data.dataset), data.eval_fraction, seed).nonzero()[0].tolist()

    def overlap(self, data: DataConfig, seed: int) -> Overlap:
        """How many rows each side has, and how many would be on both."""
        return self.sides(data, seed)[2]

    def trained_before(self, data: DataConfig, seed: int, earlier: Sequence[tuple[DataConfig, int]]) -> int:
        """How many rows that would be measured on have a prompt on which one of these earlier runs trained."""
        import numpy

        measured = self._groups_of_sides(data, seed)[1]
        seen = numpy.zeros(len(measured), bool)
        for one in earlier:
            try:
                seen |= numpy.isin(measured, self._groups_of_sides(*one)[0])
            except DatasetError:  # it was deleted: nobody can tell any more
                continue
        return int(seen.sum())

    def _groups_of_sides(self, data: DataConfig, seed: int) -> tuple[Any, Any]:
        import numpy

        groups = self._groups(data.dataset)
        if data.eval_dataset is None:
            held = held_out(groups, data.eval_fraction, seed)
            return groups[~held], groups[held]
        other = self._groups(data.eval_dataset)
        return groups[~numpy.isin(groups, other)], other

    def _where(self, id: str, mask: Any) -> Iterator[Example]:
        for example, wanted in zip(self.examples(id), mask.tolist(), strict=True):
            if wanted:
                yield example

    def _groups(self, id: str) -> Any:
        self.get(id)
        return self._array(id, "groups")

    def _array(self, id: str, name: str) -> Any:
        """A number for each usable row."""
        import numpy

        return numpy.load(self.folder / id / f"{name}.npy", mmap_mode="r")

    def export(self, id: str, kind: Kind, target: Path) -> Path:
        """Write the canonical rows as OpenAI chat JSONL or as Parquet; raises StorageError."""
        self.get(id)
        return export(self.folder / id / "rows.jsonl", target, kind)

    def export_sides(self, data: DataConfig, seed: int, folder: Path) -> list[Path]:
        """Write both sides of a split as OpenAI chat JSONL, without a file for an empty side; raises StorageError."""
        training, measuring, overlap = self.sides(data, seed)
        written = [export_examples(training, folder / "train.jsonl")]
        held_out = folder / "held_out.jsonl"
        held_out.unlink(missing_ok=True)
        return [*written, export_examples(measuring, held_out)] if overlap.eval_rows else written

    def problems_csv(self, id: str) -> Path | None:
        """Every row that cannot be used, as CSV; None if there is none."""
        path = self.folder / self.get(id).id / "problems.csv"
        return path if path.is_file() else None


def _example(line: bytes, place: Any) -> Example:
    example = Example.model_validate_json(line)
    return example.model_copy(update={"line": int(place)})


def _said(row: dict[str, Any]) -> str:
    """All that is said in a canonical row."""
    texts = [row.get("text", "")]
    for turn in row.get("messages", []):
        texts += turn["content"], turn.get("reasoning_content", "")
        if "tool_calls" in turn:
            texts.append(orjson.dumps(turn["tool_calls"]).decode())
    return "\n".join(texts)
