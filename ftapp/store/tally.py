"""Batches → one dataset: its rows on disk, its problems as CSV, and per row what the findings are made from."""

import csv
import os
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ftapp.contract.examples import ProblemKind
from ftapp.contract.formats import Format, suggest_mapping
from ftapp.contract.report import Edit, Problem
from ftapp.store.checking import PERMUTATIONS, Batch

PROBLEMS_KEPT, KEPT_OF_A_KIND = 1000, 20
"""In the report, the first ones; past them the first of each kind, so that no kind is named without a row."""
COLUMNS_KEPT = 200
NEAR_LIMIT = 50_000
"""Rows that are compared for near-duplicates: the first ones of larger data."""
PROBLEM_COLUMNS = ("file", "row", "line", "kind", "problem", "what to do", "excerpt")
KEYS = ("numbers", "places", "sizes", "lengths", "flags", "prompts", "answers", "groups")
DTYPES = {"i": "<i4", "B": "u1", "Q": "<u8", "I": "<u4"}


class Tally:
    """Takes batches in the order of the rows; memory grows by about 41 bytes a row."""

    def __init__(self, rows: BinaryIO | None, problems: Path | None = None) -> None:
        self._file = rows
        self._problem_path, self._problem_file = problems, None
        self._writer: Any = None
        self.rows = 0
        self.problems: list[Problem] = []
        self._kept: Counter[ProblemKind] = Counter()
        self.problem_kinds: Counter[ProblemKind] = Counter()
        self.formats: Counter[Format] = Counter()
        self.columns: dict[str, None] = {}
        self.unknown: list[dict[str, Any]] = []
        self.left_out: Counter[Edit] = Counter()
        self.arrays = {name: getattr(Batch(), name) for name in KEYS}
        self.signatures = array("I")
        self._signing = True
        """Until a row has no signature: those that have one are the first rows."""

    def take(self, batch: Batch, offset: int, lines: int, file: str = "") -> None:
        """Add a batch; before its task there are `offset` rows, and `lines` lines in the file named `file`."""
        for problem in batch.problems:
            line = problem.line + lines if problem.line else 0
            moved = problem.model_copy(update={"row": problem.row + offset, "line": line, "file": file})
            if len(self.problems) < PROBLEMS_KEPT or self._kept[problem.kind] < KEPT_OF_A_KIND:
                self.problems.append(moved)
                self._kept[problem.kind] += 1
            self._write_problem(moved)
        self.problem_kinds += batch.problem_kinds
        self.formats += batch.formats
        self.left_out += batch.left_out
        if len(self.columns) < COLUMNS_KEPT:
            self.columns.update(batch.columns)
        self.unknown += batch.unknown[: 5 - len(self.unknown)]
        batch.numbers, batch.places = _moved(batch.numbers, offset), _moved(batch.places, lines)
        for name in KEYS:
            self.arrays[name].extend(getattr(batch, name))
        if self._signing:
            self.signatures.extend(batch.signatures)
            self._signing = len(batch.signatures) == PERMUTATIONS * len(batch.numbers)
        if self._file:
            self._file.write(batch.lines)
            if batch.part:
                _append(Path(batch.part), self._file)
        self.rows += batch.rows

    @property
    def signed(self) -> int:
        """Rows, the first ones, that near-duplicates are looked for among."""
        return min(NEAR_LIMIT, len(self.signatures) // PERMUTATIONS)

    @property
    def problem_count(self) -> int:
        """Rows that cannot be used."""
        return sum(self.problem_kinds.values())

    @property
    def format(self) -> Format:
        """Of most rows that were recognised."""
        known = Counter({name: count for name, count in self.formats.items() if name != "unknown"})
        return known.most_common(1)[0][0] if known else "unknown"

    @property
    def mixed(self) -> bool:
        """Whether there are both plain texts and conversations."""
        return 0 < self.formats["text"] < sum(self.formats.values()) - self.formats["unknown"]

    def suggestion(self) -> Any:
        """A mapping for the rows that were not recognised, or None."""
        return suggest_mapping(self.unknown)

    def column(self, name: str) -> Any:
        """One of the arrays as numpy sees it."""
        import numpy

        values = self.arrays[name]
        dtype = DTYPES[values.typecode]
        return numpy.frombuffer(values, dtype) if len(values) else numpy.empty(0, dtype)

    def sketches(self) -> Any:
        """The MinHashes, a row each, of the first rows."""
        import numpy

        if not len(self.signatures):
            return numpy.empty((0, PERMUTATIONS), "<u4")
        return numpy.frombuffer(self.signatures, dtype="<u4").reshape(-1, PERMUTATIONS)[:NEAR_LIMIT]

    def keep(self, mask: Any) -> None:
        """Forget the rows where the mask is false."""
        for name in KEYS:
            kept = array(self.arrays[name].typecode)
            kept.frombytes(self.column(name)[mask].tobytes())
            self.arrays[name] = kept
        sketches = self.sketches()
        kept = array("I")
        kept.frombytes(sketches[mask[: len(sketches)]].tobytes())
        self.signatures = kept

    def close(self) -> None:
        """Finish the CSV."""
        if self._problem_file:
            self._problem_file.close()

    def _write_problem(self, problem: Problem) -> None:
        if self._problem_path is None:
            return
        if self._problem_file is None:
            self._problem_file = self._problem_path.open("w", encoding="utf-8", newline="")
            self._writer = csv.writer(self._problem_file)
            self._writer.writerow(PROBLEM_COLUMNS)
        cells = [problem.file, problem.row, problem.line or "", problem.kind, problem.message, problem.advice]
        self._writer.writerow([safe_cell(cell) for cell in [*cells, problem.excerpt]])

    _problem_file: TextIO | None


def _moved(values: "array[int]", by: int) -> "array[int]":
    import numpy

    moved = array("i")
    moved.frombytes(
        (numpy.frombuffer(values, "<i4") + numpy.int32(by)).tobytes() if by and values else values.tobytes()
    )
    return moved


def _append(part: Path, file: BinaryIO) -> None:
    """Move a part's bytes to the end of the file, in the kernel."""
    file.flush()
    with part.open("rb") as source:
        while os.sendfile(file.fileno(), source.fileno(), None, 1 << 30):
            pass
    part.unlink()


def safe_cell(value: object) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    text = str(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "|", "%")) else text


def filter_lines(source: Path, target: Path, sizes: Iterable[int], mask: Iterable[bool]) -> None:
    """Copy the lines where the mask is true; `sizes` are the lines' bytes."""
    with source.open("rb") as old, target.open("wb") as new:
        for size, wanted in zip(sizes, mask, strict=True):
            line = old.read(size)
            if wanted:
                new.write(line)
