"""A folder as a zip, made while it is read: no copy on the disk, nothing whole in memory."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

PIECE = 4 * 2**20


class _Sent(io.RawIOBase):
    """Where zipfile writes: what came since the last look is handed on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data))  # type: ignore[arg-type]
        self._parts.append(piece)
        return len(piece)

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


def zipped(folder: Path, name: str) -> Iterator[bytes]:
    """The bytes of a zip of the folder's files under the folder `name`, not compressed: weights hardly shrink."""
    sent = _Sent()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            about = zipfile.ZipInfo.from_file(path, f"{name}/{path.relative_to(folder).as_posix()}")
            with path.open("rb") as source, archive.open(about, "w", force_zip64=True) as entry:
                while data := source.read(PIECE):
                    entry.write(data)
                    yield sent.take()
    yield sent.take()
