"""What a user can know before a start: which models there are, what each is like, how long it takes."""

import threading
from pathlib import Path

from ftapp.contract.config import AdapterConfig, FullConfig, ModelConfig, RunConfig
from ftapp.contract.duration import DurationEstimate, comparable, estimate, evaluations_of, tokens_to_train
from ftapp.contract.errors import HubError, HubUnreachable, ModelError, NotAllowed
from ftapp.contract.models import Examined, ModelFacts, ModelHit, join_facts, refusal_of
from ftapp.contract.parameters import Parameters
from ftapp.history import History
from ftapp.hub import Hub, SpacePrice
from ftapp.library import DEMO, DEMO_FOLDER
from ftapp.people import Person, acts
from ftapp.processes.gpus import gpus
from ftapp.processes.preview import Examiner
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.models import changed, model_files

FOUND = 20
"""Models that a search shows."""


class Catalogue(History):
    """The base models that one user can see."""

    def __init__(self, settings: Settings, person: Person, scheduler: Scheduler) -> None:
        super().__init__(settings, person, scheduler)
        self._examiner: Examiner | None = None
        self._examining = threading.Lock()
        self._examined: dict[tuple[str, str], Examined] = {}
        self._facts: dict[ModelConfig, ModelFacts] = {}
        self._price: SpacePrice | None = None

    def recent_models(self, words: str = "") -> list[ModelHit]:
        """The models of one's own runs whose name has all these words, the last used first; asks nobody."""
        wanted = words.casefold().split()
        ids = dict.fromkeys(row.model for row in self.history() if row.model)
        return [ModelHit(id=id, used=True) for id in ids if all(word in id.casefold() for word in wanted)]

    @acts
    def search_models(self, words: str) -> list[ModelHit]:
        """Models of one's own runs, then the Hub's most used ones for text, with all these words; raises HubError."""
        own = {hit.id: hit for hit in self.recent_models(words)}
        found = {hit.id: hit for hit in Hub(self.settings.hub_token).search(words.strip(), FOUND)}
        first = [found[id].model_copy(update={"used": True}) if id in found else hit for id, hit in own.items()]
        return [*first, *(hit for id, hit in found.items() if id not in own)]

    def model_facts(self, model: ModelConfig) -> ModelFacts:
        """What can be known of a model before the start, and whether it can be trained at all.

        Takes seconds the first time, since a process with the library looks at it. Raises ModelError, HubError.
        """
        self._refuse_foreign(model)
        folder = DEMO_FOLDER / "model" if model.id == DEMO else Path(model.id)
        hub = Hub(self.settings.hub_token)
        files = model_files(folder) if folder.is_absolute() else hub.model_files(model.id, model.revision)
        examined = None
        if not refusal_of(model.public_name, files)[0]:
            # pinned, so that the files that are looked at are those that were listed
            pinned = model.model_copy(update={"revision": files.revision})
            examined = self._examine(pinned, files.revision or str(changed(folder)))
        facts = self._facts[model] = join_facts(model.id, model.public_name, files, examined)
        return facts

    def _examine(self, model: ModelConfig, version: str) -> Examined:
        key = (model.id, version)
        with self._examining:
            if key not in self._examined:
                if self._examiner is None or not self._examiner.alive:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self._examiner = Examiner(self.folder / "models.log", self.settings.hub_token)
                self._examined[key] = self._examiner.examine(model)
            return self._examined[key]

    def duration(self, config: RunConfig, tokens_per_epoch: int) -> DurationEstimate | None:
        """How long a run will take, from this user's past runs on this machine; None if there is none to go by.

        `tokens_per_epoch` is the whole dataset's, as `measure` tells it. In a Space with what it costs there.
        """
        found = gpus()
        device = found[0].name if found else "CPU"
        speeds = [summary.speed for _, summary in self._runs.all() if summary.speed]
        past = comparable(config, device, speeds)
        if not past:
            return None
        try:
            parameters = self.parameters(config.model, config.method).total
        except (ModelError, HubError):
            past = [speed for speed in past if speed.model == config.model.id]
            parameters = past[0].parameters if past else 0
        if not (past and parameters):
            return None
        rows = self.dataset(config.data.dataset).report.valid
        tokens, evaluations = tokens_to_train(config, tokens_per_epoch, rows), evaluations_of(config, rows)
        told = estimate(tokens, evaluations, config, device, past, parameters)
        price = self._space_price()
        return told.priced(price.hardware, price.dollars_per_hour) if price else told

    def _space_price(self) -> SpacePrice | None:
        if self.settings.space_id and self._price is None:
            try:
                self._price = Hub(self.settings.hub_token).space_price(self.settings.space_id)
            except HubError:
                return None
        return self._price

    def parameters(self, model: ModelConfig, method: AdapterConfig | FullConfig) -> Parameters:
        """Total and trainable parameters."""
        raise NotImplementedError

    def close_examiner(self) -> None:
        """End the process that looks at models."""
        if self._examiner:
            examiner, self._examiner = self._examiner, None
            examiner.close("nobody asked for a while")

    def _refuse_foreign(self, model: ModelConfig) -> None:
        """Raise NotAllowed for a model that is not for whoever asks: others' folders; of a demo, all but its own."""
        if not self.person.may_act and model.id != DEMO:
            raise NotAllowed("Only the demo's model can be looked at here.", "Sign in, or duplicate the Space.")
        path = Path(model.id)
        if self.person.shared and path.is_absolute() and not path.resolve().is_relative_to(self.folder.resolve()):
            raise NotAllowed(
                f"{model.id} is a folder on this machine, which is shared.", "Choose a model of the Hub, or the demo."
            )

    def _refuse_unusable(self, model: ModelConfig) -> None:
        """Raise ModelError if it is known that this model cannot be trained."""
        known = self._facts.get(model)
        if known and known.refusal:
            try:
                known = self.model_facts(model)  # it may have changed since
            except HubUnreachable:
                pass
            if known.refusal:
                raise ModelError(known.refusal, known.hint)
