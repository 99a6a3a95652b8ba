"""What whoever uses this installation should know of it as a whole; written by what watches over it, read by all."""

import json
import logging
import threading
from pathlib import Path

from ftapp.contract.errors import StorageError
from ftapp.store.files import write_whole

log = logging.getLogger(__name__)


class Notices:
    """One sentence a topic, in one file, so that every Studio and the terminal can show them."""

    def __init__(self, home: Path) -> None:
        self._path = home / ".notices.json"
        self._said: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        """Topic → what is to be known of it."""
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def say(self, topic: str, text: str) -> None:
        """Say this of a topic from now on, "" for nothing; what is new goes to the log, once."""
        with _writing:
            known = self.read()
            if known.get(topic, "") == text:
                return
            if text and self._said.get(topic) != text:
                log.warning("%s", text)
            self._said[topic] = text
            kept = {name: said for name, said in known.items() if name != topic} | ({topic: text} if text else {})
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._path, json.dumps(kept).encode())
            except (OSError, StorageError) as error:
                log.warning("Cannot write %s: %s", self._path, error)


_writing = threading.Lock()
