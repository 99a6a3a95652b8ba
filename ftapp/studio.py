"""One short method per verb on the screen; the page and the terminal call the same ones, each on behalf of one user."""

import time
from typing import Any

from ftapp.library import DEMO as DEMO
from ftapp.library import DEMO_FOLDER as DEMO_FOLDER
from ftapp.processes.pipe import Pipe
from ftapp.publishing import Publishing
from ftapp.settings import Settings


class Studio(Publishing):
    """Everything that one user can do: the verbs of all floors above the processes."""

    def __init__(self, settings: Settings, user: str = "local") -> None:
        super().__init__(settings, user)

    def close_idle(self) -> None:
        """Unload what the chat and the preview hold if nobody has used it for a while, or a training needs it."""
        self.make_way()
        if self._idle(self._chat):
            self.close_chat("it was not used for a while")
        if self._idle(self._preview):
            self.close_preview()
        if self._idle(self._examiner):
            self.close_examiner()

    def _idle(self, pipe: Pipe[Any] | None) -> bool:
        if pipe is None or pipe.busy:
            return False
        return time.monotonic() - pipe.last_used > self.settings.chat_idle_seconds
