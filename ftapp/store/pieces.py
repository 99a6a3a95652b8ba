"""A piece: files as one tar with its checksum at the end, written once from start to end; a torn one is recognised."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import ValidationError

from ftapp.contract.base import Contract
from ftapp.contract.errors import StorageError

BLOCK = 2**20
TRAILER = 256
"""Bytes of the record at the end, padded with spaces; tar itself stops reading before it."""

Files = Iterable[tuple[Path, str]]
"""Where each file is, and what it is called inside the piece."""
Pulse = Callable[[], None]
"""Called at each block; may raise to give up."""


class Trailer(Contract):
    """The last thing that is written."""

    format: int = 1
    bytes: int
    """Of the tar before it."""
    sha256: str
    """Of the tar before it."""


class _Summing:
    """The end of a file that is only ever appended to, as tarfile wants it."""

    def __init__(self, file: IO[bytes], pulse: Pulse) -> None:
        self._file, self._pulse = file, pulse
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._pulse()
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


class _Reading:
    """The first `left` bytes of a file, summed as they are read."""

    def __init__(self, file: IO[bytes], left: int, pulse: Pulse) -> None:
        self._file, self._left, self._pulse = file, left, pulse
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        self._pulse()
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        self.digest.update(data)
        return data


def write_piece(target: Path, files: Files, pulse: Pulse) -> None:
    """Write files as a new piece and read it back; if it raises (OSError, StorageError), nothing is left of it."""
    try:
        with target.open("xb") as file:
            out = _Summing(file, pulse)
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
                tar.copybufsize = BLOCK
                for path, name in files:
                    with path.open("rb") as source:
                        tar.addfile(_member(name, os.fstat(source.fileno())), source)
            trailer = Trailer(bytes=out.size, sha256=out.digest.hexdigest())
            file.write(trailer.model_dump_json().encode().ljust(TRAILER - 1) + b"\n")
        if not is_intact(target, pulse):
            raise StorageError(f"{target.name} was not read back as it was written.", "Check the volume.")
    except BaseException:
        _discard(target)
        raise


def _member(name: str, about: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = about.st_size, 0o600
    # to the nanosecond: by size and time it is told whether a file is still the one that was kept
    member.pax_headers = {"mtime": f"{about.st_mtime_ns // 10**9}.{about.st_mtime_ns % 10**9:09}"}
    return member


def _discard(target: Path) -> None:
    try:
        target.unlink(missing_ok=True)
    except OSError:
        pass  # without its trailer it counts as torn


def trailer_of(piece: Path) -> Trailer | None:
    """The record at the end of a piece; None if it is torn. Raises OSError if it cannot be read at all."""
    with piece.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < TRAILER:
            return None
        file.seek(size - TRAILER)
        try:
            trailer = Trailer.model_validate_json(file.read(TRAILER))
        except ValidationError:
            return None
    return trailer if trailer.bytes == size - TRAILER else None


def is_intact(piece: Path, pulse: Pulse) -> bool:
    """Whether every byte is as it was written; raises OSError if it cannot be read."""
    trailer = trailer_of(piece)
    if trailer is None:
        return False
    with piece.open("rb") as file:
        reading = _Reading(file, trailer.bytes, pulse)
        while reading.read(BLOCK):
            pass
    return reading.digest.hexdigest() == trailer.sha256


def unpack(piece: Path, folder: Path, pulse: Pulse) -> None:
    """Bring a piece's files back below a folder, with their times; raises StorageError if it is damaged, OSError."""
    trailer = trailer_of(piece)
    if trailer is None:
        raise StorageError(f"{piece.name} was not written whole.", "An older one may be there.")
    with piece.open("rb") as file:
        reading = _Reading(file, trailer.bytes, pulse)
        try:
            with tarfile.open(fileobj=reading, mode="r|", bufsize=BLOCK) as tar:  # type: ignore[call-overload]
                for member in tar:
                    _bring_back(tar, member, folder)
        except (tarfile.TarError, ValueError) as error:
            raise StorageError(f"{piece.name} is damaged: {error}.", "An older one may be there.") from error
        while reading.read(BLOCK):
            pass
    if reading.digest.hexdigest() != trailer.sha256:
        raise StorageError(f"{piece.name} is damaged: its checksum differs.", "An older one may be there.")


def _bring_back(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    source = tar.extractfile(member) if member.isreg() else None
    if source is None or name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{member.name!r} is no plain file inside it")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        shutil.copyfileobj(source, out, BLOCK)
    seconds, _, rest = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    nanoseconds = int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9])
    os.utime(target, ns=(nanoseconds, nanoseconds))
