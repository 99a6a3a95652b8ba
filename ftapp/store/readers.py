"""A file → its rows, one at a time, each with its place; what cannot be read is told row by row."""

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from ftapp.contract.errors import DatasetError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
LINE_LIMIT = 16 * 2**20
"""Bytes of one line; a longer one is a problem of its row."""
WHOLE_LIMIT = 512 * 2**20
"""Bytes of a JSON array, which has to be read whole."""


class Row:
    """One row as the file has it: its number, its line (0 if there are no lines), and its value or what is wrong."""

    __slots__ = ("line", "number", "problem", "value")

    def __init__(self, number: int, line: int, value: dict[str, Any] | None, problem: str = "") -> None:
        self.number, self.line, self.value, self.problem = number, line, value, problem


def read_rows(path: Path, name: str = "") -> Iterator[Row]:
    """The rows of a .jsonl, .json, .csv or .parquet file; raises DatasetError when the file as a whole is unusable.

    `name` is what the person calls it, if the path does not say it.
    """
    name = name or path.name
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise DatasetError(f"{name} is not a kind of file that can be read.", f"Use one of {', '.join(SUFFIXES)}.")
    try:
        return _rows(path, name, suffix)
    except OSError as error:
        raise DatasetError(f"{name} cannot be read: {error.strerror}.", "Check the file.") from error


def _rows(path: Path, name: str, suffix: str) -> Iterator[Row]:
    if path.stat().st_size == 0:
        raise DatasetError(f"{name} is empty.", "Choose a file with at least one row.")
    if suffix == ".parquet":
        return _parquet(path, name)
    encoding = _encoding(path, name)
    if suffix == ".csv":
        return _csv(path, name, encoding)
    if suffix == ".json" and _first_character(path, encoding) == "[":
        return _json_array(path, name, encoding)
    return _json_lines(path, encoding)


def _encoding(path: Path, name: str) -> str:
    with path.open("rb") as file:
        head = file.read(65_536)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if b"\0" in head:
        raise DatasetError(
            f"{name} is not a text file: it contains NUL bytes.", "Save it as UTF-8 text, or as .parquet."
        )
    return "utf-8"


def _first_character(path: Path, encoding: str) -> str:
    with path.open("rb") as file:
        return file.read(65_536).decode(encoding, "ignore").lstrip()[:1]


def _json_lines(path: Path, encoding: str) -> Iterator[Row]:
    number = 0
    for line_number, line in enumerate(_lines(path, encoding), 1):
        if line is None:
            number += 1
            yield Row(number, line_number, None, f"the line is longer than {LINE_LIMIT // 2**20} MiB")
            continue
        if not line.strip():
            continue
        number += 1
        yield _json_row(number, line_number, line)


def _lines(path: Path, encoding: str) -> Iterator[bytes | None]:
    """Lines as UTF-8; None for one over the limit."""
    if encoding == "utf-16":
        with path.open(encoding="utf-16", errors="replace", newline="\n") as text:
            while line := text.readline(LINE_LIMIT):
                if len(line) >= LINE_LIMIT and not line.endswith("\n"):
                    while (rest := text.readline(LINE_LIMIT)) and not rest.endswith("\n"):
                        pass
                    yield None
                else:
                    yield line.encode("utf-8", "surrogatepass")
        return
    with path.open("rb") as file:
        if encoding == "utf-8-sig":
            file.seek(len(codecs.BOM_UTF8))
        while data := file.readline(LINE_LIMIT):
            if len(data) >= LINE_LIMIT and not data.endswith(b"\n"):
                while (more := file.readline(LINE_LIMIT)) and not more.endswith(b"\n"):
                    pass
                yield None
            else:
                yield data


def _json_row(number: int, line: int, data: bytes) -> Row:
    try:
        value = orjson.loads(data.rstrip())
    except orjson.JSONDecodeError as error:
        if "utf-8" in str(error).lower():
            return Row(number, line, None, "the line is not UTF-8 text; save the file as UTF-8")
        return Row(number, line, None, f"the line is not JSON: {error.msg} at column {error.colno}")
    if not isinstance(value, dict):
        return Row(number, line, None, f"a row must be an object like {{...}}, this is {type(value).__name__}")
    return Row(number, line, value)


def _json_array(path: Path, name: str, encoding: str) -> Iterator[Row]:
    if path.stat().st_size > WHOLE_LIMIT:
        raise DatasetError(
            f"{name} is one JSON array of {path.stat().st_size / 2**20:.0f} MiB; the limit is 512 MiB.",
            "Save it as .jsonl, one row a line: that has no limit.",
        )
    try:
        text = path.read_bytes().decode(encoding)
        values = orjson.loads(text)
    except UnicodeError:
        raise DatasetError(f"{name} is not UTF-8 text.", "Save it as UTF-8.") from None
    except orjson.JSONDecodeError as error:
        raise DatasetError(
            f"{name} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            "Correct it there; nothing was stored.",
        ) from None
    for number, value in enumerate(values, 1):
        if isinstance(value, dict):
            yield Row(number, 0, value)
        else:
            yield Row(number, 0, None, f"a row must be an object like {{...}}, this is {type(value).__name__}")


def _csv(path: Path, name: str, encoding: str) -> Iterator[Row]:
    csv.field_size_limit(LINE_LIMIT)
    # newline="" lets the csv module see quoted line breaks as they are
    with path.open(encoding=encoding, errors="strict", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [column.strip() for column in next(reader, [])]
            if not any(header):
                raise DatasetError(f"{name} has no column names in its first line.", "Add a header line.")
            _refuse_doubled(name, header)
            number, line = 0, reader.line_num + 1
            for cells in reader:
                if cells:
                    number += 1
                    if len(cells) == len(header):
                        yield Row(number, line, dict(zip(header, cells, strict=True)))
                    else:
                        yield Row(number, line, None, f"the row has {len(cells)} cells, the header has {len(header)}")
                line = reader.line_num + 1
        except csv.Error as error:
            raise DatasetError(
                f"{name} is not valid CSV near line {reader.line_num}: {error}.",
                "Check the quotes there; nothing was stored.",
            ) from None
        except UnicodeDecodeError:
            raise DatasetError(f"{name} is not UTF-8 text.", "Save it as CSV UTF-8; nothing was stored.") from None


def _refuse_doubled(name: str, columns: list[str]) -> None:
    doubled = sorted(column for column, count in Counter(columns).items() if count > 1)
    if doubled:
        raise DatasetError(f"{name} has the column {doubled[0]!r} more than once.", "Give each its own name.")


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _refuse_doubled(name, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(batch_size=1000):
            for value in batch.to_pylist():
                number += 1
                yield Row(number, 0, value)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        # besides its own errors: text that is not UTF-8, dates out of range, time zones that nobody knows
        why = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise DatasetError(f"{name} is not a readable Parquet file: {why}.", "Write it again.") from None
