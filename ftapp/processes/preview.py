"""The web's end of the preview pipe: one worker that holds a tokenizer and measures one dataset with it."""

from collections.abc import Iterator
from pathlib import Path

from ftapp.contract.config import ModelConfig
from ftapp.contract.preview import Lengths, Measure, Page, Reply, Rows, replies
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
