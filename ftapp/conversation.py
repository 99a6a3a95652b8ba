"""The verbs on the chat: ask a run's model, stop it, put it away."""

from collections.abc import Iterator
from itertools import islice

import orjson

from ftapp.contract.chat import Generate, Reply
from ftapp.contract.errors import JobError
from ftapp.contract.formats import to_example
from ftapp.library import DEMO, DEMO_FOLDER
from ftapp.processes.chat import ChatProcess
from ftapp.settings import Settings
from ftapp.training import Training


class Conversation(Training):
    """The models that one user can talk with."""

    def __init__(self, settings: Settings, user: str) -> None:
        super().__init__(settings, user)
        self._chat: ChatProcess | None = None

    def _let_go(self, run: str) -> None:
        if self._chat and self._chat.run.name == run:
            self.close_chat("its run was deleted")

    def _make_room(self, why: str) -> None:
        self.close_chat(why)

    def _holds_memory(self) -> bool:
        return self._chat is not None

    def chat(self, run: str, request: Generate) -> Iterator[Reply]:
        """Answer with a run's model; loads it first if another one, or none, is loaded. Raises JobError, ModelError."""
        view = self.run(run)
        if not view.has_result:
            raise JobError(f"{run} has no trained model yet.", "Wait for it to finish, or choose another run.")
        if self._chat and (self._chat.run.name != run or not self._chat.alive):
            self.close_chat("another model was chosen")
        if self._chat is None:
            if self.gpus() and (busy := self.scheduler.running()):
                raise JobError(f"{busy[0].name} is using the GPU.", "Chat when it has ended, or stop it.")
            self._chat = ChatProcess(self._jobs.get(run), self.settings.hub_token)
        return self._chat.generate(request)

    def example_questions(self, run: str, count: int = 3) -> list[str]:
        """Questions to try a run with: for the demo's model some of its held-out rows, else none."""
        if self.run(run).config.model.id != DEMO:
            return []
        with (DEMO_FOLDER / "heldout.jsonl").open(encoding="utf-8") as rows:
            firsts = [to_example(orjson.loads(row), "messages").messages[0] for row in islice(rows, count)]
        return [message.content for message in firsts]

    def stop_chat(self) -> None:
        """Stop the answer that is being written."""
        if self._chat:
            self._chat.stop()

    def close_chat(self, why: str = "it was closed") -> None:
        """Unload the chat's model."""
        if self._chat:
            chat, self._chat = self._chat, None
            chat.close(why)
