"""One short method per verb on the screen; the page and the terminal call the same ones, on behalf of one person."""

import time
from typing import Any

from ftapp.library import DEMO as DEMO
from ftapp.library import DEMO_FOLDER as DEMO_FOLDER
from ftapp.people import LOCAL, Person
from ftapp.processes.pipe import Pipe
from ftapp.processes.scheduler import Scheduler
from ftapp.publishing import Publishing
from ftapp.settings import Settings


class Studio(Publishing):
    """Everything that one person can do: the verbs of all floors above the processes."""

    def __init__(self, settings: Settings, person: Person = LOCAL, scheduler: Scheduler | None = None) -> None:
        """Several people's studios share a scheduler; one that is alone has its own."""
        super().__init__(settings, person, scheduler or Scheduler(settings, lambda _: self.settings.hub_token))

    def close_idle(self) -> None:
        """Unload what the chat and the preview hold if nobody has used it for a while, or a training needs it."""
        self.make_way()
        if self._idle(self._chat):
            self.close_chat("it was not used for a while")
        if self._idle(self._preview):
            self.close_preview()
        if self._idle(self._examiner):
            self.close_examiner()

    def close(self) -> None:
        """End checks and unload all models; trainings and publications run on."""
        self._checker.cancel()
        self.close_chat("ftapp was closed")
        self.close_preview()
        self.close_examiner()

    def _idle(self, pipe: Pipe[Any] | None) -> bool:
        if pipe is None or pipe.busy:
            return False
        return time.monotonic() - pipe.last_used > self.settings.chat_idle_seconds
