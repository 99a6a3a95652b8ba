"""Writing files whole or not at all, and one writer at a time."""

import fcntl
import os
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


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other thread or process holds the lock file, then hold it; raises OSError."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
