"""The verbs on a run that is being prepared: what it would need, its rows as it would see them, itself as code."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from ftapp.catalogue import Catalogue
from ftapp.contract import preview
from ftapp.contract.config import TARGETS, AdapterConfig, FullConfig, ModelConfig, RunConfig
from ftapp.contract.errors import ModelError
from ftapp.contract.memory import Machine, MemoryView, Model, predict, read_model
from ftapp.contract.parameters import Parameters, count_parameters, target_problem
from ftapp.contract.report import DatasetInfo
from ftapp.contract.script import Code, code
from ftapp.demo.preset import DEMO_PRESET
from ftapp.hub import Hub
from ftapp.library import DEMO, DEMO_FOLDER
from ftapp.people import Person, acts
from ftapp.processes.gpus import Gpu, gpus, here
from ftapp.processes.preview import PreviewProcess
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.adapters import adapter_folder, measured_before, pinned_revision
from ftapp.store.weights import model_in


class Preparing(Catalogue):
    """The runs that one user may start."""

    def __init__(self, settings: Settings, person: Person, scheduler: Scheduler) -> None:
        super().__init__(settings, person, scheduler)
        self._preview: PreviewProcess | None = None
        self._previewed: DatasetInfo | None = None
        self._models: dict[tuple[str, str | None], Model] = {}

    def gpus(self) -> list[Gpu]:
        """The accelerators of this machine."""
        return gpus()

    def demo_config(self) -> RunConfig:
        """The demo's own preset: model, dataset and settings that show the effect within a minute on two cores."""
        return RunConfig.model_validate({"model": {"id": DEMO}, "data": {"dataset": DEMO}, **DEMO_PRESET})

    def parameters(self, model: ModelConfig, method: AdapterConfig | FullConfig) -> Parameters:
        """Total and trainable parameters, from the headers of the weights alone; raises ModelError or HubError."""
        known = self._model(model)
        return count_parameters(known.groups, method, known.facts)

    def misfits(self, config: RunConfig) -> dict[str, str]:
        """Dotted field name → why the base model has no such thing; raises ModelError or HubError."""
        known = self._model(config.model)
        problem = target_problem(known.groups, config.method, known.facts)
        return {TARGETS: problem} if problem and not config.model.adapter else {}  # an adapter knows its places

    def memory(self, config: RunConfig, row_tokens: int | None = None) -> MemoryView:
        """What a run would need, part by part, and what there is; raises ModelError or HubError.

        `row_tokens` is the dataset's longest row, if it was measured; without it the longest that is allowed counts.
        """
        place = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        return predict(self._model(config.model), config, self._machine(), row_tokens, free)

    def _machine(self) -> Machine:
        found = self.gpus()
        if not found:
            return here()
        gpu = found[0]
        # what uses it now, a run or the chat, ends before the next run starts
        ours = self._holds_memory() or bool(self.scheduler.running())
        return Machine(kind="cuda", name=gpu.name, total=gpu.total, free=gpu.total if ours else gpu.free)

    def _holds_memory(self) -> bool:
        return False

    def _model(self, model: ModelConfig) -> Model:
        key = (model.id, model.revision)
        if key not in self._models:
            self._models[key] = self._read_model(model)
        return self._models[key]

    def _read_model(self, model: ModelConfig) -> Model:
        self._refuse_foreign(model)
        if model.id == DEMO:
            return model_in(DEMO_FOLDER / "model")
        if Path(model.id).is_absolute():
            if not (Path(model.id) / "config.json").is_file():
                raise ModelError(f"{model.id} is not a model's folder.", "It needs config.json and .safetensors files.")
            return model_in(Path(model.id))
        found = Hub(self.settings.hub_token).model(model.id, model.revision)
        return read_model(found.shapes, found.stored, found.config)

    def measured_before(self, config: RunConfig) -> str:
        """What to know where the adapter to go on from was trained on rows that would be measured; else empty."""
        return measured_before(self._datasets, config, self._jobs.folder)

    def code(self, config: RunConfig) -> Code:
        """The same run as config, command and script; the script reads what `export_sides` writes. Raises JobError."""
        earlier = self._jobs.get(config.model.adapter) if config.model.adapter else None
        adapter, revision = (str(adapter_folder(earlier)), pinned_revision(earlier)) if earlier else ("", None)
        model = str(DEMO_FOLDER / "model") if config.model.id == DEMO else config.model.id
        home = self.settings.home
        hidden = self.person.shared or home == Path("~/ftapp").expanduser()  # of a shared machine nobody has a terminal
        return code(config, model, None if hidden else home, adapter, revision)

    # Rows as tokens

    @acts
    def measure(self, dataset: str, model: ModelConfig, max_length: int | None = None) -> Iterator[preview.Reply]:
        """How long a dataset's rows are for a base model: Loading, then Lengths; raises ModelError, HubError."""
        return self._previewing(dataset, model).measure(preview.Measure(max_length=max_length))

    @acts
    def token_rows(
        self, dataset: str, model: ModelConfig, start: int = 0, count: int = 5, search: str = ""
    ) -> Iterator[preview.Reply]:
        """A page of a dataset's rows as the tokens that training will see: Loading, then Rows."""
        return self._previewing(dataset, model).page(preview.Page(start=start, count=count, search=search))

    def _previewing(self, dataset: str, model: ModelConfig) -> PreviewProcess:
        self._refuse_foreign(model)
        info = self.dataset(dataset)
        folder, known = self.folder / "datasets" / info.id, self._preview
        same = known and (known.dataset, known.model) == (folder, model) and self._previewed == info
        if known and same and known.alive:
            return known
        self.close_preview()
        self._previewed = info
        self._preview = PreviewProcess(folder, model, self.settings.hub_token)
        return self._preview

    def close_preview(self) -> None:
        """Unload the preview's tokenizer."""
        if self._preview:
            process, self._preview = self._preview, None
            process.close("another dataset or model was chosen, or nobody looked at it for a while")
