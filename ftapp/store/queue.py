"""The order of the queue where somebody changed it, and the evaluations in it: files over all users, written whole."""

from pathlib import Path

import orjson

from ftapp.store.files import write_whole


class QueueOrder:
    """Tickets in the order in which they are to run; a ticket that is not in it comes after, by its time."""

    def __init__(self, home: Path) -> None:
        self._path = home / ".queue.json"

    def read(self) -> dict[str, int]:
        """Ticket → its place."""
        try:
            found = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(ticket): place for place, ticket in enumerate(found)} if isinstance(found, list) else {}

    def write(self, tickets: list[str]) -> None:
        """Put these first, in this order; raises StorageError."""
        write_whole(self._path, orjson.dumps(tickets))


class EvaluationQueue:
    """The evaluations that wait or are at work, in the order in which they were asked for."""

    def __init__(self, home: Path) -> None:
        self._path = home / ".evaluations.json"

    def read(self) -> list[str]:
        """Their folders, relative to the home."""
        try:
            found = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return []
        return [str(folder) for folder in found] if isinstance(found, list) else []

    def write(self, folders: list[str]) -> None:
        """These and no others; raises StorageError."""
        write_whole(self._path, orjson.dumps(folders))
