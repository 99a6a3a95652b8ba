"""A run's model as it is used afterwards: one base in memory, the adapter switched on and off."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from ftapp.contract.config import FullConfig, QloraConfig
from ftapp.store.jobs import Job
from ftapp.workers import models, sources
from ftapp.workers.tokens import Encoder


class RunModel:
    """A run's base and what it became, with the template and the stop tokens of its training."""

    def __init__(self, run: Job) -> None:
        config, state = run.run_config(), run.refresh()
        revision = state.resolved.values.get("model.revision") if state.resolved else None
        model = config.model.model_copy(update={"revision": revision or config.model.revision})
        self._on = models.hardware()
        self._name = config.model.public_name
        self._base_folder, _ = sources.find_files(model, os.environ.get("HF_TOKEN"), lambda: None)
        self._quantised = isinstance(config.method, QloraConfig)
        if isinstance(config.method, FullConfig):
            result = run.folder / "model"
            self.tuned: PreTrainedModel | PeftModel = self._load(result)
        else:
            result = run.folder / "adapter"
            self.tuned = models.attach_adapter(self._load(self._base_folder), result)
        self.encoder = Encoder(models.load_tokenizer(result), self._name)
        known = json.loads((result / "generation_config.json").read_text()).get("eos_token_id")
        self.stop_ids = sorted({self.encoder.stop_id, *(known if isinstance(known, list) else [known])} - {None})
        """Token ids that end an answer."""
        self.device_name = self._on.name

    @cached_property
    def base(self) -> PreTrainedModel | PeftModel:
        """The model to ask inside `without_adapter`; after full fine-tuning the base is loaded beside the result."""
        return self.tuned if isinstance(self.tuned, PeftModel) else self._load(self._base_folder)

    def without_adapter(self) -> AbstractContextManager[None]:
        """While it is entered, `base` answers as it was before the training."""
        return self.tuned.disable_adapter() if isinstance(self.tuned, PeftModel) else nullcontext()

    def _load(self, folder: Path) -> PreTrainedModel:
        return models.load_base(folder, self._name, self._on, self._on.dtype, self._quantised).eval()
