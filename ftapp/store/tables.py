"""Rows of tables and plain text: CSV, TSV, Parquet, and paragraphs."""

import csv
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

from ftapp.contract.errors import DatasetError
from ftapp.store import readers
from ftapp.store.encodings import Opened, as_text, opened, text_lines
from ftapp.store.readers import Row, Source

BATCH_ROWS, BATCH_BYTES = 1000, 8 * 2**20
"""Of a Parquet file that are in memory at once, at most; bytes by the mean row."""
BUFFER = 1 << 20
OTHER_SEPARATORS = ";\t,"
"""What may separate columns if the first line does not have what the file's name promises."""


def csv_rows(source: Source, file: Opened, encoding: str, separator: str) -> Iterator[Row]:
    """The records of a CSV or TSV file, its first line naming the columns."""
    csv.field_size_limit(readers.LINE_LIMIT)
    # an empty newline lets the csv module see quoted line breaks as they are
    lines = _lines(source, file, encoding)
    first = next(lines, "")
    if separator not in first:  # as spreadsheets write where the comma is in numbers
        separator = next((other for other in OTHER_SEPARATORS if other in first), separator)
    reader = csv.reader(chain([first], lines), strict=True, delimiter=separator)
    name = source.name
    try:
        header = [column.strip() for column in next(reader, [])]
        if not any(header):
            raise DatasetError(f"{name} has no column names in its first line.", "Add a header line.")
        refuse_doubled(name, header)
        number, line = 0, reader.line_num + 1
        for cells in reader:
            if cells:
                number += 1
                if len(cells) == len(header):
                    yield Row(number, line, dict(zip(header, cells, strict=True)))
                else:
                    told = f"the row has {len(cells)} cells, the header has {len(header)}"
                    excerpt = separator.join(cells)[: readers.EXCERPT]
                    yield Row(number, line, None, told, "cells", excerpt)
            line = reader.line_num + 1
    except csv.Error as error:
        kind = "TSV" if separator == "\t" else "CSV"
        raise DatasetError(
            f"{name} is not valid {kind} near line {reader.line_num}: {error}.",
            "Check the quotes there; nothing was stored.",
        ) from None


def _lines(source: Source, file: Opened, encoding: str) -> Iterator[str]:
    text = as_text(file, encoding, newline="")
    while line := text.readline(readers.LINE_LIMIT):
        if len(line) >= readers.LINE_LIMIT:
            raise DatasetError(
                f"{source.name} has a line of more than {readers.LINE_LIMIT // 2**20} MiB.",
                "Check that it is a table and that no line break is missing.",
            )
        yield line


def refuse_doubled(name: str, columns: list[str]) -> None:
    """Raise DatasetError if two columns have one name."""
    doubled = sorted(column for column, count in Counter(columns).items() if count > 1)
    if doubled:
        raise DatasetError(f"{name} has the column {doubled[0]!r} more than once.", "Give each its own name.")


def paragraphs(file: Opened, encoding: str) -> Iterator[Row]:
    """The paragraphs of a plain text, blank lines between them, each a row to be learned whole."""
    number, size, first = 0, 0, 0
    kept: list[bytes] = []
    problem = ""
    for line_number, line in enumerate(text_lines(file, encoding, readers.LINE_LIMIT), 1):
        if line is not None and line.isspace():
            if kept or problem:
                number += 1
                yield _paragraph(number, first, kept, problem)
            kept, problem, size = [], "", 0
            continue
        first = first if kept or problem else line_number
        size += len(line or b"")
        if line is None or size > readers.LINE_LIMIT:
            kept, problem = [], f"the paragraph is longer than {readers.LINE_LIMIT // 2**20} MiB"
        elif not problem:
            kept.append(line)
    if kept or problem:
        yield _paragraph(number + 1, first, kept, problem)


def _paragraph(number: int, line: int, lines: list[bytes], problem: str) -> Row:
    if problem:
        return Row(number, line, None, problem, "too_long")
    # strict: raises UnicodeDecodeError, which the caller tells with what the text would be in cp1252
    return Row(number, line, {"text": b"".join(lines).decode().rstrip("\r\n")})


def parquet(source: Source) -> Iterator[Row]:
    """The rows of a Parquet file, a thousand at a time."""
    if not source.name.lower().endswith(".gz"):
        with source.path.open("rb") as file:
            yield from _parquet(source, file)
        return
    with tempfile.TemporaryFile(dir=source.path.parent) as unpacked:
        with opened(source.path, source.name, source.limit) as packed:
            while data := packed.read(1 << 20):
                unpacked.write(data)
        unpacked.seek(0)
        yield from _parquet(source, unpacked)


def _parquet(source: Source, data: IO[bytes]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    size = source.path.stat().st_size
    try:
        # with pre_buffer, a whole row group would be in memory
        file = pyarrow.parquet.ParquetFile(data, pre_buffer=False, buffer_size=BUFFER)
        refuse_doubled(source.name, file.schema_arrow.names)
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        if unpacked > source.limit:
            raise DatasetError(
                f"{source.name} unpacks to more than {source.limit / 2**20:,.0f} MiB, which is the limit.",
                "Set FTAPP_MAX_UNPACKED_MB higher if you trust the file, or split it.",
            )
        number, total = 0, file.metadata.num_rows
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * total // max(1, unpacked)))
        for batch in file.iter_batches(batch_size=rows):
            for value in batch.to_pylist():
                number += 1
                yield Row(number, 0, {key: _present(cell) for key, cell in value.items()})
            source.position = size * number // max(1, total)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        # besides its own errors: text that is not UTF-8, dates out of range, time zones that nobody knows
        why = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise DatasetError(f"{source.name} is not a readable Parquet file: {why}.", "Write it again.") from None


def _present(value: Any) -> Any:
    """A nested value without the keys that Parquet fills up with nothing, since templates would render them."""
    if isinstance(value, list):
        return [_present(item) for item in value] if value and isinstance(value[0], (dict, list)) else value
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if item is not None}
    return value
