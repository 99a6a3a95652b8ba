"""The first rows of a file under a mapping: what a person looks at before the whole file is read that way."""

from itertools import islice
from pathlib import Path
from typing import Any

from ftapp.contract.base import Contract
from ftapp.contract.examples import Example, RowProblem
from ftapp.contract.formats import Mapping, recognise, suggest_mapping, to_example
from ftapp.contract.report import Reading
from ftapp.store.readers import Source, read_source

SHOWN = 200
"""Characters of a raw cell."""


class PreviewRow(Contract):
    """One row as the file has it, and what becomes of it."""

    row: int
    line: int
    cells: dict[str, str]
    """By column, cut short."""
    example: Example | None = None
    problem: str = ""
    """Why there is no example."""


class Preview(Contract):
    """The first rows of a file under a reading."""

    columns: list[str]
    rows: list[PreviewRow]
    suggestion: Mapping | None = None
    """Columns to try, where none were said."""


def preview(path: Path, name: str, reading: Reading, limit: int, count: int = 5) -> Preview:
    """Read the first rows; raises DatasetError if the file is unusable as a whole."""
    source = Source(path, name, reading.encoding, limit)
    rows: list[PreviewRow] = []
    columns: dict[str, None] = {}
    values: list[dict[str, Any]] = []
    for row in islice(read_source(source), count):
        example, problem = None, row.problem
        if row.value is not None:
            columns.update(dict.fromkeys(map(str, row.value)))
            values.append(row.value)
            try:
                example = read_one(row.value, reading.mapping, row.line)
            except RowProblem as error:
                problem = str(error)
        cells = {str(key): str(cell)[:SHOWN] for key, cell in (row.value or {}).items()}
        rows.append(PreviewRow(row=row.number, line=row.line, cells=cells, example=example, problem=problem))
    return Preview(columns=list(columns), rows=rows, suggestion=suggest_mapping(values) if values else None)


def read_one(value: dict[str, Any], mapping: Mapping | None, line: int) -> Example:
    """The canonical form of one row under a mapping, or by its format; raises RowProblem."""
    if mapping is None:
        format, value = recognise(value)
        return to_example(value, format, line)
    return to_example(value, "mapped", line, mapping)
