"""The web's end of the chat pipe: one worker that holds a base model and what runs made of it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ftapp.contract.chat import Done, Generate, Loaded, Question, Reply, Stop, replies
from ftapp.processes.pipe import Pipe
from ftapp.store.jobs import Job


class ChatProcess(Pipe[Reply]):
    """One loaded base; answers one question at a time, with the adapter that is asked for."""

    def __init__(self, run: Job, checkpoint: str, four_bit: bool, log: Path, token: str | None) -> None:
        self.loaded: Loaded | None = None
        """What answered last."""
        self.used: set[str] = {run.name}
        """The runs whose weights it may hold."""
        super().__init__("chat", [str(run.folder), checkpoint, str(int(four_bit))], log, token, replies)

    def generate(self, run: Job, checkpoint: str, question: Question) -> Iterator[Reply]:
        """Loading until the model is there, Loaded, then Text pieces and Answered of each voice, then Done.

        Leaving early stops the answers. Raises ModelError.
        """
        self.used.add(run.name)
        request = Generate(run=str(run.folder), checkpoint=checkpoint, question=question)
        with closing(self.ask(request, (Done,))) as answers:  # type: ignore[type-var]
            for reply in answers:
                if isinstance(reply, Loaded):
                    self.loaded = reply
                yield reply

    def stop(self) -> None:
        """Stop the answers that are being written; what was written stays."""
        if self.busy:
            self.interrupt()

    def interrupt(self) -> None:
        """Tell the worker to end the answers."""
        self.send(Stop())
