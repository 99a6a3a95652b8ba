"""A run's model as it is used afterwards: one base in memory, adapters switched on, off and for one another."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from transformers import PreTrainedModel

from ftapp.contract import events as ev
from ftapp.contract.config import FullConfig, QloraConfig
from ftapp.store.jobs import Job
from ftapp.workers import models, sources
from ftapp.workers.tokens import Encoder, load_tokenizer

ADAPTERS_KEPT = 4
"""In memory on the one base, those used last."""


@dataclass(frozen=True)
class _Adapter:
    name: str
    """PEFT's."""
    encoder: Encoder
    stop_ids: list[int]


class RunModel:
    """A run's base and what it became, with the template and the stop tokens of its training."""

    def __init__(
        self,
        run: Job,
        checkpoint: str = "",
        four_bit: bool | None = None,
        say: Callable[[ev.Phase], None] = lambda _: None,
    ) -> None:
        """Load the base, quantised as in training unless `four_bit` says otherwise, and the result or a checkpoint."""
        config, state = run.run_config(), run.refresh()
        revision = state.resolved.values.get("model.revision") if state.resolved else None
        model = config.model.model_copy(update={"revision": revision or config.model.revision})
        self._on = models.hardware()
        self._name = config.model.public_name
        self._base_folder, _ = sources.find_files(model, os.environ.get("HF_TOKEN"), say)
        self.four_bit = isinstance(config.method, QloraConfig) if four_bit is None else four_bit
        self._full = isinstance(config.method, FullConfig)
        self._adapters: dict[tuple[str, str, int], _Adapter] = {}
        self._made = 0
        self._switched: list[BaseTunerLayer | AuxiliaryTrainingWrapper] = []
        self.tuned: PreTrainedModel | PeftModel = self._load(
            _result(run, checkpoint, self._full) if self._full else self._base_folder
        )
        self.device_name = self._on.name
        self.precision = "4 bit" if self.four_bit else str(self._on.dtype).removeprefix("torch.")
        self.use(run, checkpoint)

    @property
    def adapters(self) -> int:
        """How many adapters are in memory."""
        return len(self._adapters)

    def use(self, run: Job, checkpoint: str = "") -> None:
        """Answer with the result or a checkpoint of a run on the same base; loads its adapter, if it is not there yet.

        After full fine-tuning it can only be the one that was loaded. Raises ModelError.
        """
        folder = _result(run, checkpoint, self._full)
        if self._full:
            self._take(self._read(folder))
            return
        weights = folder / "adapter_model.safetensors"
        key = (run.name, checkpoint, weights.stat().st_mtime_ns if weights.exists() else 0)
        adapter = self._adapters.pop(key, None) or self._attach(folder)
        self._adapters[key] = adapter  # the last one is the one used last
        assert isinstance(self.tuned, PeftModel)
        self.tuned.set_adapter(adapter.name)
        while len(self._adapters) > ADAPTERS_KEPT:
            self.tuned.delete_adapter(self._adapters.pop(next(iter(self._adapters))).name)
        self._switched = [
            module for module in self.tuned.modules() if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
        ]
        self._take(adapter)

    def _attach(self, folder: Path) -> _Adapter:
        read = self._read(folder)
        if isinstance(self.tuned, PeftModel):
            models.add_adapter(self.tuned, folder, read.name)
        else:
            self.tuned = models.attach_adapter(self.tuned, folder, read.name)
        self.tuned.eval()
        return read

    def _read(self, folder: Path) -> _Adapter:
        """All but the weights."""
        self._made += 1
        encoder = Encoder(load_tokenizer(folder), self._name)
        places = (folder, self._base_folder)
        stated = next((path for place in places if (path := place / "generation_config.json").is_file()), None)
        known = json.loads(stated.read_text()).get("eos_token_id") if stated else None
        stop_ids = sorted({encoder.stop_id, *(known if isinstance(known, list) else [known])} - {None})
        return _Adapter(f"adapter_{self._made}", encoder, stop_ids)

    def _take(self, adapter: _Adapter) -> None:
        self.encoder = adapter.encoder
        self.stop_ids = adapter.stop_ids
        """Token ids that end an answer."""

    @cached_property
    def base(self) -> PreTrainedModel | PeftModel:
        """The model to ask inside `without_adapter`; after full fine-tuning the base is loaded beside the result."""
        return self.tuned if isinstance(self.tuned, PeftModel) else self._load(self._base_folder)

    @property
    def base_is_loaded(self) -> bool:
        """Whether asking for `base` takes no time."""
        return isinstance(self.tuned, PeftModel) or "base" in vars(self)

    def without_adapter(self) -> AbstractContextManager[None]:
        """While it is entered, `base` answers as it was before the training."""
        return self.tuned.disable_adapter() if isinstance(self.tuned, PeftModel) else nullcontext()

    def switch(self, on: bool) -> None:
        """Switch the adapter on or off between two tokens: what `without_adapter` does, a thousand times faster."""
        for layer in self._switched:
            layer._disable_adapters = not on

    def _load(self, folder: Path) -> PreTrainedModel:
        return models.load_base(folder, self._name, self._on, self._on.dtype, self.four_bit).eval()


def _result(run: Job, checkpoint: str, full: bool) -> Path:
    """Where the weights are."""
    return run.folder / "checkpoints" / checkpoint if checkpoint else run.folder / ("model" if full else "adapter")
