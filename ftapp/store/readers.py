"""A file → its rows, one at a time, each with its place; what cannot be read is told row by row."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ftapp.contract.errors import DatasetError
from ftapp.contract.examples import ProblemKind
from ftapp.store.encodings import Opened, as_cp1252, as_text, encoding_needed, find_encoding, opened, text_lines

PLAIN_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
SUFFIXES = (*PLAIN_SUFFIXES, *(f"{suffix}.gz" for suffix in PLAIN_SUFFIXES))
LINE_LIMIT = 16 * 2**20
"""Bytes of one line, or of one element of a JSON array; a longer one is a problem of its row."""
UNPACKED_LIMIT = 16 * 2**30
"""Bytes that a gzip file may unpack to, unless somebody says otherwise."""
EXCERPT = 120
BLOCK = 1 << 20


class Row:
    """One row as the file has it: its number, its line (0 if there are no lines), and its value or what is wrong."""

    __slots__ = ("excerpt", "kind", "line", "number", "problem", "value")

    def __init__(
        self,
        number: int,
        line: int,
        value: dict[str, Any] | None,
        problem: str = "",
        kind: ProblemKind = "not_json",
        excerpt: str = "",
    ) -> None:
        self.number, self.line, self.value = number, line, value
        self.problem, self.kind, self.excerpt = problem, kind, excerpt


@dataclass
class Source:
    """A file to read, or a stretch of one; `position` follows the reading."""

    path: Path
    name: str
    """What the person calls it."""
    encoding: str | None = None
    """What the person says its text is."""
    limit: int = UNPACKED_LIMIT
    start: int = 0
    end: int | None = None
    """Bytes; of whole lines of JSON, else of the whole file."""
    position: int = 0

    @property
    def suffix(self) -> str:
        """.jsonl and so on, without .gz; raises DatasetError for a file of another kind."""
        return suffix_of(self.name)


def suffix_of(name: str) -> str:
    """The kind of file by its name: .jsonl and so on, without .gz; raises DatasetError for any other."""
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    if suffix not in PLAIN_SUFFIXES:
        known = ", ".join(PLAIN_SUFFIXES)
        raise DatasetError(f"{name} is not a kind of file that can be read.", f"Use one of {known}, or such a .gz.")
    return suffix


def shown_name(filename: str) -> str:
    """What to call a file: its name without folders and without what cannot be shown."""
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c for c in name if c.isprintable()).strip()[-120:]
    return f"upload{name}" if name.lower() in ("", *SUFFIXES) else name


def read_rows(path: Path, name: str = "", encoding: str | None = None) -> Iterator[Row]:
    """The rows of a file; raises DatasetError when it is unusable as a whole."""
    return read_source(Source(path, name or path.name, encoding))


def read_source(source: Source) -> Iterator[Row]:
    """The rows of a source; raises DatasetError when it is unusable as a whole."""
    from ftapp.store import tables

    suffix = source.suffix
    try:
        if source.path.stat().st_size == 0:
            raise DatasetError(f"{source.name} is empty.", "Choose a file with at least one row.")
        if suffix == ".parquet":
            yield from tables.parquet(source)
            return
        encoding = find_encoding(source.path, source.name, source.encoding, source.limit)
        with opened(source.path, source.name, source.limit, source.start, source.end) as file:
            try:
                match suffix:
                    case ".csv" | ".tsv":
                        rows = tables.csv_rows(source, file, encoding, "\t" if suffix == ".tsv" else ",")
                    case ".txt":
                        rows = tables.paragraphs(file, encoding)
                    case ".json" if (begins := _begins(source, encoding)).startswith("["):
                        rows = _json_array(source, file, encoding)
                    case ".json" if begins.startswith("{") and not begins.partition("\n")[0].strip("{ \t\r"):
                        raise DatasetError(
                            f"{source.name} is one object over many lines, not rows.",
                            "Put the rows into an array [{...}, {...}], or write each on one line.",
                        )
                    case _:
                        rows = _json_lines(file, encoding)
                for number, row in enumerate(rows):
                    if number % 256 == 0:
                        source.position = file.position
                    yield row
                source.position = file.position
            except UnicodeDecodeError:
                if source.encoding:
                    raise DatasetError(
                        f"{source.name} is not {source.encoding} text.", "Save it as UTF-8; nothing was stored."
                    ) from None
                raise encoding_needed(source.path, source.name, source.limit) from None
    except OSError as error:
        raise DatasetError(f"{source.name} cannot be read: {error.strerror or error}.", "Check the file.") from error


def _begins(source: Source, encoding: str) -> str:
    """The beginning of a file's text, from the first character that is no space."""
    with opened(source.path, source.name, source.limit) as file:
        return file.read(65_536).decode(encoding, "ignore").lstrip()


def _json_lines(file: Opened, encoding: str) -> Iterator[Row]:
    number = 0
    for line_number, line in enumerate(text_lines(file, encoding, LINE_LIMIT), 1):
        if line is None:
            number += 1
            yield Row(number, line_number, None, _too_long("line"), "too_long")
        elif not line.isspace():
            number += 1
            yield _json_row(number, line_number, line)


def _too_long(what: str) -> str:
    return f"the {what} is longer than {LINE_LIMIT // 2**20} MiB"


def _json_row(number: int, line: int, data: bytes) -> Row:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _broken_row(number, line, data.rstrip())
    if not isinstance(value, dict):
        return Row(number, line, None, _no_object(value), "not_object", data[:EXCERPT].decode("utf-8", "replace"))
    return Row(number, line, value)


def _broken_row(number: int, line: int, data: bytes) -> Row:
    excerpt = data[:EXCERPT].decode("utf-8", "replace")
    told = "the line is not JSON"
    kind: ProblemKind = "not_json"
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError as error:
        foreign = as_cp1252(data)
        if foreign is not None or "utf-8" in str(error).lower():
            told, kind, excerpt = "the line is not UTF-8 text; save the file as UTF-8", "encoding", foreign or excerpt
        else:
            told = f"the line is not JSON: {error.msg} at column {error.colno}"
    return Row(number, line, None, told, kind, excerpt)


def _no_object(value: object) -> str:
    return f"a row must be an object like {{...}}, this is {type(value).__name__}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class _Text:
    """A window on a JSON array's text, which grows at its end and is let go at its start."""

    def __init__(self, source: Source, file: Opened, encoding: str) -> None:
        self._text = as_text(file, encoding)
        self.name = source.name
        self.buffer, self.at, self.line = "", 0, 1
        self.ended = False

    def more(self, size: int) -> None:
        """Take more characters in; drop what is behind."""
        self.line += self.buffer.count("\n", 0, self.at)
        got = self._text.read(size)
        self.buffer, self.at, self.ended = self.buffer[self.at :] + got, 0, not got

    def skip(self) -> str:
        """Go to the next character that is no space, and say which it is; empty at the end."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.buffer) or self.ended:
                return self.buffer[self.at : self.at + 1]
            self.more(BLOCK)

    def wrong(self, why: str) -> DatasetError:
        """What to say about the place where the reading stands."""
        line = self.line + self.buffer.count("\n", 0, self.at)
        return DatasetError(
            f"{self.name} is not valid JSON: {why} at line {line}.", "Correct it there; nothing was stored."
        )


def _json_array(source: Source, file: Opened, encoding: str) -> Iterator[Row]:
    """The elements one by one: the array is never in memory as a whole."""
    text, decoder = _Text(source, file, encoding), json.JSONDecoder(parse_constant=_refuse_constant)
    text.skip()
    text.at += 1
    number = 0
    if text.skip() == "]":
        return
    while True:
        text.skip()
        line = text.line + text.buffer.count("\n", 0, text.at)
        value, excerpt, whole = _element(text, decoder)
        number += 1
        if not whole:
            told = "the row contains half of a surrogate pair, which is no character"
            yield Row(number, line, None, told, "not_text", excerpt)
        elif isinstance(value, dict):
            yield Row(number, line, value)
        else:
            yield Row(number, line, None, _no_object(value), "not_object", excerpt)
        match text.skip():
            case ",":
                text.at += 1
            case "]":
                text.at += 1
                if text.skip():
                    raise text.wrong("there is something after the end of the array")
                return
            case "":
                raise text.wrong("unexpected end of data")
            case other:
                raise text.wrong(f"{other!r} where a comma or ] belongs")


def _element(text: _Text, decoder: json.JSONDecoder) -> tuple[Any, str, bool]:
    """The next element, how it begins, and whether its characters are whole: JSON may name halves of them."""
    size = BLOCK
    while True:
        try:
            value, end = decoder.raw_decode(text.buffer, text.at)
            # a number may go on beyond the window
            if end < len(text.buffer) or text.ended:
                excerpt = text.buffer[text.at : min(end, text.at + EXCERPT)]
                named = text.buffer.find("\\u", text.at, end) >= 0
                text.at = end
                return value, excerpt, not named or _is_whole(value)
        except json.JSONDecodeError as error:
            if text.ended:
                raise text.wrong(error.msg[:1].lower() + error.msg[1:]) from None
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:80]
            raise text.wrong(why) from None
        if len(text.buffer) - text.at > LINE_LIMIT:
            raise text.wrong(f"an element is longer than {LINE_LIMIT // 2**20} MiB, or a bracket or quote is missing")
        text.more(size)
        size *= 2


def _is_whole(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
