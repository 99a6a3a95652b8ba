"""The web's end of the preview pipe: a worker measures one dataset with a tokenizer, or looks at models."""

from collections.abc import Iterator
from pathlib import Path

from ftapp.contract.config import ModelConfig
from ftapp.contract.models import Examined
from ftapp.contract.preview import Examine, Lengths, Measure, Page, Reply, Rows, replies
from ftapp.processes.pipe import Pipe


class PreviewProcess(Pipe[Reply]):
    """A dataset as a base model's tokens."""

    def __init__(self, dataset: Path, model: ModelConfig, token: str | None) -> None:
        self.dataset, self.model = dataset, model
        super().__init__("preview", [str(dataset), model.model_dump_json()], dataset / "preview.log", token, replies)

    def measure(self, request: Measure) -> Iterator[Reply]:
        """Loading until the rows are measured, then Lengths."""
        return self.ask(request, (Lengths,))

    def page(self, request: Page) -> Iterator[Reply]:
        """Loading until the tokenizer is there, then Rows."""
        return self.ask(request, (Rows,))


class Examiner(Pipe[Reply]):
    """Any model as the library sees it."""

    def __init__(self, log: Path, token: str | None) -> None:
        super().__init__("preview", [], log, token, replies)

    def examine(self, model: ModelConfig) -> Examined:
        """What can be said of it before it is trained; raises ModelError."""
        *_, reply = self.ask(Examine(model=model), (Examined,))
        assert isinstance(reply, Examined)
        return reply
