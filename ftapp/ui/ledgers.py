"""What the gate keeps in mind: whose sessions and files are, what uploads wait, how often each asks; nobody else's."""

import threading
import time
from collections import Counter, OrderedDict
from pathlib import Path

MINUTE = 60.0
REMEMBERED = 20_000
"""Sessions and files whose owners are kept in mind; beyond that the oldest are forgotten, and refused."""
BROKEN_OFF_SECONDS = 3600
"""An upload of which nothing came for so long is over."""
MOST_AT_ONCE = 500
"""Requests of one person, or from one address, that are being answered, where their number in a minute is limited."""


class Owners:
    """Whose a session is, and whose a file in Gradio's folder: several people's, if they gave the same one."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, set[str]] = OrderedDict()
        self._lock = threading.Lock()

    def give(self, thing: str, person: str) -> None:
        """It is this person's too from now on."""
        with self._lock:
            self._owners.setdefault(thing, set()).add(person)
            while len(self._owners) > REMEMBERED:
                self._owners.popitem(last=False)

    def claim(self, thing: str, person: str) -> bool:
        """Whether it is this person's; it is from now on if it was nobody's."""
        if thing not in self._owners:
            self.give(thing, person)
        return self.owns(thing, person)

    def knows(self, thing: str) -> bool:
        """Whether it is anybody's."""
        return thing in self._owners

    def owns(self, thing: str, person: str) -> bool:
        """Whether it is this person's."""
        return person in self._owners.get(thing, ())


class Waiting:
    """Uploads that lie in Gradio's folder until somebody makes something of them: how much each person has there."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: dict[str, set[str]] = {}
        self._coming: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, person: str, size: int) -> bool:
        """Whether there is room for so many bytes more; they are counted if there is, and `end` has to follow."""
        with self._lock:
            sizes = {path: _size(path) for path in self._files.get(person, ())}
            self._files[person] = {path for path, known in sizes.items() if known}
            if sum(sizes.values()) + self._coming[person] + size > self._most:
                return False
            self._coming[person] += size
            return True

    def came(self, person: str, path: str) -> None:
        """A file of theirs is there."""
        with self._lock:
            self._files.setdefault(person, set()).add(path)

    def end(self, person: str, size: int) -> None:
        """So many bytes come no more: they are there, or were refused."""
        with self._lock:
            self._coming[person] -= size


class Rate:
    """How often each of many asks in a minute, and how much of it at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._at_once: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, who: str) -> bool:
        """Whether one more is within the limits; it is counted if it is, and `end` has to follow."""
        now = time.monotonic()
        with self._lock:
            since, count = self._asked.pop(who, (now, 0))
            if now - since > MINUTE:
                since, count = now, 0
            allowed = count < self._most and self._at_once[who] < MOST_AT_ONCE
            self._asked[who] = since, count + allowed
            self._at_once[who] += allowed
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
            return allowed

    def allows(self, who: str) -> bool:
        """Whether one more is within the limit in a minute; it is counted if it is."""
        allowed = self.begin(who)
        if allowed:
            self.end(who)
        return allowed

    def spent(self, who: str) -> bool:
        """Whether the limit of this minute is reached; nothing is counted."""
        with self._lock:
            since, count = self._asked.get(who, (0.0, 0))
            return count >= self._most and time.monotonic() - since <= MINUTE

    def end(self, who: str) -> None:
        """One is answered."""
        with self._lock:
            self._at_once[who] -= 1
            if not self._at_once[who]:
                del self._at_once[who]


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def clear_up(folder: Path) -> None:
    """Take away what uploads that were broken off left behind; Gradio does not."""
    for path in folder.glob("tmp*"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > BROKEN_OFF_SECONDS:
                path.unlink()
        except OSError:
            continue
