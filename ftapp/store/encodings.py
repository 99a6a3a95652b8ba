"""Bytes of a file as text: its encoding said by a mark or by a person, never guessed; gzip opened with a limit."""

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from ftapp.contract.errors import DatasetError, EncodingNeeded

HEAD = 65_536
EXCERPT = 80
NO_TEXT = {
    b"\x1f\x8b": ("packed with gzip", "Let its name end in .gz."),
    b"PAR1\x15": ("a Parquet file", "Let its name end in .parquet."),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "Unpack it, or save the table as CSV."),
}
"""How files begin that are often taken for text, and what to do about them."""


class Opened:
    """A file's bytes, unpacked if it is gzip; knows how far it is read, and stops at a limit."""

    def __init__(
        self, file: BinaryIO, name: str, packed: bool, limit: int, start: int = 0, end: int | None = None
    ) -> None:
        self._raw = file
        self._name, self._packed, self._limit = name, packed, limit
        self._got = 0
        self._left = None if end is None else end - start
        packed_stream = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=file)), 1 << 20) if packed else None
        self._stream: BinaryIO = packed_stream or file
        if start:
            file.seek(start)

    @property
    def position(self) -> int:
        """Bytes read of the file on disk."""
        return self._raw.tell()

    def readline(self, size: int) -> bytes:
        """Up to `size` bytes of the next line; empty at the end. Raises DatasetError."""
        if self._left is not None:
            size = min(size, self._left)
        data = self._unpacked(lambda: self._stream.readline(size)) if self._packed else self._stream.readline(size)
        if self._left is not None:
            self._left -= len(data)
        return data

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end. Raises DatasetError."""
        return self._stream.read(size) if not self._packed else self._unpacked(lambda: self._stream.read(size))

    def _unpacked(self, take: Callable[[], bytes]) -> bytes:
        try:
            data = take()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            why = str(error).rstrip(".")
            raise DatasetError(f"{self._name} is not a whole gzip file: {why}.", "Pack it again.") from None
        self._got += len(data)
        if self._got > self._limit:
            raise DatasetError(
                f"{self._name} unpacks to more than {self._limit / 2**20:,.0f} MiB, which is the limit.",
                "Set FTAPP_MAX_UNPACKED_MB higher if you trust the file, or split it.",
            )
        return data


@contextmanager
def opened(path: Path, name: str, limit: int, start: int = 0, end: int | None = None) -> Iterator[Opened]:
    """A file for reading, unpacked if its name ends in .gz."""
    with path.open("rb", buffering=1 << 20) as file:
        yield Opened(file, name, name.lower().endswith(".gz"), limit, start, end)


def find_encoding(path: Path, name: str, said: str | None, limit: int) -> str:
    """What to decode the file with: utf-8, utf-8-sig, utf-16, or what a person said; raises DatasetError."""
    with opened(path, name, limit) as file:
        head = file.read(HEAD)
    if not head:
        raise DatasetError(f"{name} is empty.", "Choose a file with at least one row.")
    for magic, (what, hint) in NO_TEXT.items():
        if head.startswith(magic):
            raise DatasetError(f"{name} is not a text file: it is {what}.", hint)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if b"\0" in head and said not in ("utf-16-le", "utf-16-be"):
        for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
            if zeros.count(0) > 0.6 * len(zeros) and len(head) > 3:
                excerpt = _shown(head[: 2 * EXCERPT].decode(encoding, "replace"))
                raise EncodingNeeded(name, encoding, excerpt)
        raise DatasetError(
            f"{name} is not a text file: it contains NUL bytes.", "Save it as UTF-8 text, or as .parquet."
        )
    return said or "utf-8"


def encoding_needed(path: Path, name: str, limit: int) -> DatasetError:
    """What to tell about a file that is not the text it was read as, with what it would look like in cp1252."""
    found = first_foreign(path, name, limit)
    if found:
        return EncodingNeeded(name, "cp1252", found[1])
    return DatasetError(f"{name} is not UTF-8 text.", "Save it as UTF-8; nothing was stored.")


def first_foreign(path: Path, name: str, limit: int) -> tuple[int, str] | None:
    """Number of the first line that is not UTF-8, and what is around the place in cp1252; None if it is no cp1252."""
    with opened(path, name, limit) as file:
        number = 0
        while line := file.readline(1 << 20):
            number += 1
            if (excerpt := as_cp1252(line)) is not None:
                return number, excerpt
    return None


def as_cp1252(line: bytes) -> str | None:
    """What is around the first place that is not UTF-8, read as cp1252; None if all is UTF-8, or it is no cp1252."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        start = max(0, error.start - EXCERPT // 2)
        try:
            return _shown(line[start : error.start + EXCERPT // 2].decode("cp1252"))
        except UnicodeDecodeError:
            return None
    return None


def _shown(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def text_lines(file: Opened, encoding: str, limit: int) -> Iterator[bytes | None]:
    """The lines as UTF-8 bytes; None for one over the limit. Raises UnicodeDecodeError except for UTF-8."""
    if encoding in ("utf-8", "utf-8-sig"):
        first = encoding == "utf-8-sig"
        while data := file.readline(limit):
            if first:
                data, first = data[len(codecs.BOM_UTF8) :], False
            if len(data) >= limit and not data.endswith(b"\n"):
                while (more := file.readline(limit)) and not more.endswith(b"\n"):
                    pass
                yield None
            else:
                yield data
        return
    text = as_text(file, encoding)
    while line := text.readline(limit):
        if len(line) >= limit and not line.endswith("\n"):
            while (rest := text.readline(limit)) and not rest.endswith("\n"):
                pass
            yield None
        else:
            yield line.encode("utf-8", "surrogatepass")


def as_text(file: Opened, encoding: str, newline: str = "\n") -> io.TextIOWrapper:
    """The file as text, its line ends as they are; lines end at `newline`, at any line end if that is empty."""
    return io.TextIOWrapper(io.BufferedReader(_Raw(file), 1 << 18), encoding=encoding, newline=newline)


class _Raw(io.RawIOBase):
    """What io's wrappers want of a file."""

    def __init__(self, file: Opened) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(memoryview(buffer)))
        memoryview(buffer)[: len(data)] = data
        return len(data)
