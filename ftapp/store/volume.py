"""A volume that outlives the disk: finished pieces of each user's runs and datasets, the newer beside the older.

Nothing on it is ever changed or renamed: a piece is a new file with a name of its own, and the older ones of its kind
go when the new one was written whole and read back. Only `processes/keeper.py` writes here.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftapp.contract.errors import StorageError
from ftapp.store.pieces import Pulse, trailer_of, unpack, write_piece

Kind = Literal["datasets", "runs", "account"]
KINDS: tuple[Kind, ...] = ("datasets", "runs")
"""Of what there are several to a user."""
_FOLDER = re.compile(r"[A-Za-z0-9][\w.-]{0,120}")
_PIECE = re.compile(r"(?P<part>[a-z]+(-\d+)?)\.(?P<number>\d{8})\.(?P<fingerprint>[0-9a-f]{16})\.tar")
DELETED = ".deleted"


@dataclass(frozen=True)
class Piece:
    """A piece that was written to its end."""

    part: str
    number: int
    fingerprint: str
    """Of the files in it, as they were."""
    path: Path


class Item:
    """The pieces of one run or dataset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pieces: dict[str, list[Piece]] = {}
        self._torn: list[Path] = []
        self._last = 0
        for path in _entries(folder):
            found = _PIECE.fullmatch(path.name)
            if not found:
                continue
            self._last = max(self._last, int(found["number"]))
            if trailer_of(path) is None:
                self._torn.append(path)  # a crash came before its end
                continue
            piece = Piece(found["part"], int(found["number"]), found["fingerprint"], path)
            self._pieces.setdefault(piece.part, []).append(piece)
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece.number, reverse=True)

    @property
    def parts(self) -> list[str]:
        """What there is of it."""
        return sorted(self._pieces)

    def has(self, part: str, fingerprint: str) -> bool:
        """Whether the newest piece of this part was made of such files."""
        return bool(self._pieces.get(part)) and self._pieces[part][0].fingerprint == fingerprint

    def put(
        self,
        part: str,
        fingerprint: str,
        files: Sequence[tuple[Path, str]],
        pulse: Pulse,
        unchanged: Callable[[], bool],
    ) -> None:
        """Write a new piece, and only then take the older ones of its part away.

        Raises FileNotFoundError if the files did not stay `unchanged` meanwhile, other OSErrors, StorageError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._last += 1
        path = self.folder / f"{part}.{self._last:08}.{fingerprint}.tar"
        write_piece(path, files, pulse)
        if not unchanged():
            path.unlink()
            raise FileNotFoundError(path)
        older = self._pieces.get(part, [])
        self._pieces[part] = [Piece(part, self._last, fingerprint, path)]
        for old in [*(piece.path for piece in older), *self._torn]:
            old.unlink(missing_ok=True)
        self._torn = []

    def drop(self, part: str) -> None:
        """Take a part away; raises OSError."""
        for piece in self._pieces.pop(part, []):
            piece.path.unlink(missing_ok=True)

    def take_back(self, part: str, folder: Path, pulse: Pulse) -> None:
        """Bring a part's files back below a folder, from the newest piece that is undamaged.

        Raises OSError, and StorageError if all are damaged.
        """
        pieces, draft = self._pieces.get(part, []), folder / f".{part}.back"
        try:
            for piece in pieces:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                try:
                    unpack(piece.path, draft, pulse)
                except StorageError:
                    if piece is pieces[-1]:
                        raise
                    continue
                for path in [path for path in draft.rglob("*") if path.is_file()]:
                    target = folder / path.relative_to(draft)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.rename(target)
                return
        finally:
            shutil.rmtree(draft, ignore_errors=True)


class Volume:
    """All that is kept, by user, kind and name; what was found is remembered, as this is the only writer."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self._root = mount / "ftapp"
        self._items: dict[tuple[str, Kind, str], Item] = {}

    @property
    def mounted(self) -> bool:
        """Whether there is a folder at all."""
        return self.mount.is_dir()

    def users(self) -> list[str]:
        """Who has something here."""
        return [path.name for path in _entries(self._root) if is_user(path.name)]

    def names(self, user: str, kind: Kind) -> list[str]:
        """The runs or datasets of a user, the newest names first."""
        found = (path.name for path in _entries(self._root / user / kind))
        return sorted(filter(_FOLDER.fullmatch, found), reverse=True)

    def item(self, user: str, kind: Kind, name: str) -> Item:
        """What there is of a run or dataset, which may be nothing; raises OSError."""
        key = (user, kind, name)
        if key not in self._items:
            self._items[key] = Item(self._root / user / kind / name)
        return self._items[key]

    def delete(self, user: str, kind: Kind, name: str) -> None:
        """Take all pieces of a run or dataset away; raises OSError."""
        folder = self._root / user / kind / name
        for path in _entries(folder):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # where folders are only parts of names there is none any more
        self._items.pop((user, kind, name), None)


def is_user(folder: str) -> bool:
    """Whether a folder is called as somebody's own: not one of the app's, not that of visitors."""
    return bool(_FOLDER.fullmatch(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def fingerprint(files: Sequence[tuple[Path, str]]) -> str:
    """Sizes and times of files: equal as long as nobody wrote to them. Raises FileNotFoundError if one is gone."""
    digest = hashlib.sha256()
    for path, name in sorted(files, key=lambda file: file[1]):
        about = path.stat()
        digest.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def mark_deleted(user_folder: Path, kind: Kind, name: str) -> None:
    """Note that a run or dataset was deleted on purpose: what is only missing is taken back. Raises OSError."""
    folder = user_folder / DELETED / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def marked_deleted(user_folder: Path) -> list[tuple[Kind, Path]]:
    """What was deleted and is still on the volume, each with the mark to take away when it is not."""
    return [(kind, mark) for kind in KINDS for mark in _entries(user_folder / DELETED / kind)]
