"""The accelerator while a publication is checked on it, which no queue knows: what starts meanwhile waits for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ftapp.store.files import alone

LOCK = ".accelerator.lock"
WAITING = "waiting for the check of a publication"
PAUSE = 1.0


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold it for a check; a process that dies lets go of it."""
    with alone(home / LOCK):
        yield


def wait_until_free(home: Path, say: Callable[[str], None]) -> None:
    """Wait for the check that is under way, if there is one; `say` is told so each second and may raise."""
    while True:
        with alone(home / LOCK, wait=False) as free:
            if free:
                return
        say(WAITING)
        time.sleep(PAUSE)
