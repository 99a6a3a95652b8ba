"""Writing files whole or not at all, one writer at a time, and folders that do not outlive their work."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftapp.contract.errors import StorageError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one; raises StorageError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StorageError(f"Cannot write {path.name}: {error.strerror}.", "Free some disk space.") from error


def bytes_in(folder: Path) -> int:
    """What all files below a folder take; one that has several names counts once, links are not followed."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - a hundred thousand of them
            except FileNotFoundError:
                continue
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


@contextmanager
def alone(lock: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file, which no other thread or process then does; without waiting, say whether it is held.

    A process that dies lets go of it. Raises OSError.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def workplace(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder, taken away in the end; `abandoned` finds those of processes that died. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{prefix}{secrets.token_hex(6)}"
    lock = lock_of(folder)
    with alone(lock):  # before the folder is there, so that it is nobody's at no time
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def lock_of(folder: Path) -> Path:
    """The file that whoever made a workplace holds."""
    return folder.with_name(f"{folder.name}.lock")


def abandoned(parent: Path, prefix: str) -> Iterator[Path]:
    """The workplaces of processes that died: each is the caller's until it asks for the next, then it is taken away."""
    for folder in sorted(path for path in parent.glob(f"{prefix}*") if path.is_dir()):
        with alone(lock_of(folder), wait=False) as mine:
            if mine:
                yield folder
                shutil.rmtree(folder, ignore_errors=True)
                lock_of(folder).unlink(missing_ok=True)
