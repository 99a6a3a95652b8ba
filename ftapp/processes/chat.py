"""The web's end of the chat pipe: one worker that holds a run's model."""

from collections.abc import Iterator

from ftapp.contract.chat import Done, Generate, Reply, Stop, replies
from ftapp.processes.pipe import Pipe
from ftapp.store.jobs import Job


class ChatProcess(Pipe[Reply]):
    """One loaded model; answers one conversation at a time."""

    def __init__(self, run: Job, token: str | None) -> None:
        self.run = run
        super().__init__("chat", [str(run.folder)], run.folder / "chat.log", token, replies)

    def generate(self, request: Generate) -> Iterator[Reply]:
        """Loading until the model is there, then Text pieces, then Done; leaving early stops the answer."""
        return self.ask(request, (Done,))

    def stop(self) -> None:
        """Stop the answer that is being written; what was written stays."""
        if self.busy and self.ready:
            self.interrupt()

    def interrupt(self) -> None:
        """Tell the worker to end the answer."""
        self.send(Stop())
