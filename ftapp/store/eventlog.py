"""Append one line, tail from an offset: how a worker tells and how everyone else reads."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ftapp.contract.errors import StorageError
from ftapp.contract.events import Event, parse_event

CHUNK = 8 * 2**20
METRICS = b'"type":"metrics"'
HEAD = 80
"""Bytes of a line within which its type is said, after its time."""


class EventLog:
    """The writing end; one process per file."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            size = os.fstat(self._fd).st_size
            # a writer died in the middle of its line
            self._torn = bool(size) and os.pread(self._fd, 1, size - 1) != b"\n"
        except OSError as error:
            raise StorageError(f"Cannot write {path}: {error.strerror}.", "Free some disk space.") from error

    def append(self, event: Event) -> None:
        """One event, one write; raises StorageError when the disk is full."""
        line = (b"\n" if self._torn else b"") + event.model_dump_json().encode() + b"\n"
        try:
            written = os.write(self._fd, line)
            self._torn = written != len(line)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StorageError(f"Cannot write events: {error.strerror}.", "Free some disk space.") from error


def tail(path: Path, offset: int) -> tuple[list[Event], int]:
    """The events of whole lines from the byte `offset` on, and the offset to ask for next.

    About CHUNK bytes at a time; a line without its newline is not read yet; a torn line is passed over.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(CHUNK)
            while len(data) % CHUNK == 0 and b"\n" not in data and (more := file.read(CHUNK)):
                data += more  # a line longer than a chunk
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    events: list[Event] = []
    for line in data[:end].splitlines():
        try:
            events.append(parse_event(line))
        except ValidationError:
            continue
    return events, offset + end


def outline(path: Path) -> Iterator[Event]:
    """The events of a whole log, of each stretch of metrics only the first and the last: most lines are not parsed."""
    waiting: bytes | None = None
    """The last line of a stretch of metrics, as long as no other event came."""
    stretch = False
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                metrics = line.find(METRICS, 0, HEAD) >= 0
                if metrics and stretch:
                    waiting = line
                    continue
                yield from _parsed(waiting)
                yield from _parsed(line)
                waiting, stretch = None, metrics
    except FileNotFoundError:
        return
    yield from _parsed(waiting)


def _parsed(line: bytes | None) -> Iterator[Event]:
    if line:
        try:
            yield parse_event(line)
        except ValidationError:
            pass


def tail_text(path: Path, size: int = 16_384) -> str:
    """The last `size` bytes of a text file, from the start of a line; empty if there is no file."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            data = file.read(size)
    except FileNotFoundError:
        return ""
    if length > size:
        data = data[data.find(b"\n") + 1 :]
    lines = (line.rsplit("\r", 1)[-1] for line in data.decode(errors="replace").split("\n"))
    return "\n".join(lines)
