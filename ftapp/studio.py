"""One short method per verb on the screen; the page and the terminal call the same ones, each on behalf of one user."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from ftapp.catalogue import Catalogue
from ftapp.contract import events as ev
from ftapp.contract import preview
from ftapp.contract.chat import Generate, Reply
from ftapp.contract.config import AdapterConfig, FullConfig, ModelConfig, PublishConfig, RunConfig, refusal
from ftapp.contract.errors import DatasetError, FailureKind, HubError, HubUnreachable, JobError, ModelError
from ftapp.contract.formats import to_example
from ftapp.contract.memory import Machine, MemoryView, Model, predict, read_model
from ftapp.contract.parameters import Parameters, count_parameters
from ftapp.contract.remedies import changed, in_words, remedy
from ftapp.contract.report import DatasetInfo, dataset_record
from ftapp.contract.script import Code, code
from ftapp.demo.preset import DEMO_PRESET
from ftapp.hub import Account, Hub
from ftapp.library import DEMO as DEMO
from ftapp.library import DEMO_FOLDER as DEMO_FOLDER
from ftapp.processes.chat import ChatProcess
from ftapp.processes.child import alive, lacked_memory, stop_tree
from ftapp.processes.gpus import Gpu, gpus, here
from ftapp.processes.launch import launch
from ftapp.processes.machine import lacking
from ftapp.processes.pipe import Pipe
from ftapp.processes.preview import PreviewProcess
from ftapp.settings import Settings
from ftapp.store.adapters import adapter_folder, disagreements
from ftapp.store.checkpoints import last_whole
from ftapp.store.jobs import ACTIVE, Job, JobState, Status
from ftapp.store.weights import model_in

C = TypeVar("C", RunConfig, PublishConfig)
End = ev.Finished | ev.Stopped | ev.Failed | None


@dataclass(frozen=True)
class JobView(Generic[C]):
    """A training run (RunView) or a publication (PublicationView) as it stands now."""

    job: Job
    read_config: Callable[[], C]
    created: float
    """Seconds since the epoch."""
    status: Status
    end: End
    """Its last word, if it has said that."""

    # read when asked for: there may be a thousand of them in a list, and a long run has many events

    @cached_property
    def config(self) -> C:
        """What was asked for."""
        return self.read_config()

    @property
    def message(self) -> str:
        """What a person should read about the status: why it failed, where the result is."""
        return self._told[0]

    @property
    def hint(self) -> str:
        """What to do about that."""
        return self._told[1]

    @property
    def kind(self) -> FailureKind | None:
        """Why it could not go on, if it failed or was lost and the cause is known."""
        return self._told[2]

    @property
    def changes(self) -> dict[str, Any]:
        """Dotted config name → the value to try next; see `Studio.start_changed`."""
        return self._told[3]

    @cached_property
    def _told(self) -> tuple[str, str, FailureKind | None, dict[str, Any]]:
        message, hint = _told(self.job, self.status, self.end)
        match self.status, self.end:
            case "failed", ev.Failed(kind=kind, changes=changes):
                return message, hint, kind, changes
            case "lost", _ if lacked_memory(self.job.process()) and isinstance(self.config, RunConfig):
                phase = self.state.phase
                changes = remedy(
                    "memory", self.config, self.state.resolved, phase is not None and phase.name == "loading"
                )
                return message, f"The machine ran out of memory meanwhile. {in_words(changes)}", "memory", changes
        return message, hint, None, {}

    @property
    def name(self) -> str:
        """A run's name, a publication's number."""
        return self.job.name

    @property
    def folder(self) -> Path:
        """Where everything about it is."""
        return self.job.folder

    @cached_property
    def state(self) -> JobState:
        """What its events add up to."""
        return self.job.refresh()

    @property
    def active(self) -> bool:
        """Whether it still waits or works."""
        return self.status in ACTIVE

    @property
    def has_result(self) -> bool:
        """Whether there is an adapter or a model to chat with and to publish."""
        return (self.folder / "adapter").is_dir() or (self.folder / "model").is_dir()


RunView = JobView[RunConfig]
PublicationView = JobView[PublishConfig]


class Studio(Catalogue):
    """Everything that one user can do."""

    def __init__(self, settings: Settings, user: str = "local") -> None:
        super().__init__(settings, user)
        self._chat: ChatProcess | None = None
        self._preview: PreviewProcess | None = None
        self._previewed: DatasetInfo | None = None
        self._stop_deadlines: dict[Path, float] = {}
        self._models: dict[tuple[str, str | None], Model] = {}

    # Datasets: the verbs of Library

    def _run_using(self, id: str) -> str | None:
        for job, _ in self._runs.active():
            data = job.run_config().data
            if id in (data.dataset, data.eval_dataset):
                return job.name
        return None

    def _let_go(self, run: str) -> None:
        if self._chat and self._chat.run.name == run:
            self.close_chat("its run was deleted")

    # Configuring

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

    def memory(self, config: RunConfig, row_tokens: int | None = None) -> MemoryView:
        """What a run would need, part by part, and what there is; raises ModelError or HubError.

        `row_tokens` is the dataset's longest row, if it was measured; without it the longest that is allowed counts.
        """
        return predict(self._model(config.model), config, self._machine(), row_tokens)

    def _machine(self) -> Machine:
        found = self.gpus()
        if not found:
            return here()
        gpu = found[0]
        # what uses it now, a run or the chat, ends before the next run starts
        ours = self._chat is not None or self.scheduler.running()
        return Machine(kind="cuda", name=gpu.name, total=gpu.total, free=gpu.total if ours else gpu.free)

    def _model(self, model: ModelConfig) -> Model:
        key = (model.id, model.revision)
        if key not in self._models:
            self._models[key] = self._read_model(model)
        return self._models[key]

    def _read_model(self, model: ModelConfig) -> Model:
        if model.id == DEMO:
            return model_in(DEMO_FOLDER / "model")
        if Path(model.id).is_absolute():
            if not (Path(model.id) / "config.json").is_file():
                raise ModelError(f"{model.id} is not a model's folder.", "It needs config.json and .safetensors files.")
            return model_in(Path(model.id))
        found = Hub(self.settings.hub_token).model(model.id, model.revision)
        return read_model(found.shapes, found.stored, found.config)

    # Rows as tokens

    def measure(self, dataset: str, model: ModelConfig, max_length: int | None = None) -> Iterator[preview.Reply]:
        """How long a dataset's rows are for a base model: Loading, then Lengths; raises ModelError, HubError."""
        return self._previewing(dataset, model).measure(preview.Measure(max_length=max_length))

    def token_rows(
        self, dataset: str, model: ModelConfig, start: int = 0, count: int = 5, search: str = ""
    ) -> Iterator[preview.Reply]:
        """A page of a dataset's rows as the tokens that training will see: Loading, then Rows."""
        return self._previewing(dataset, model).page(preview.Page(start=start, count=count, search=search))

    def _previewing(self, dataset: str, model: ModelConfig) -> PreviewProcess:
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

    # Training

    def start_training(self, config: RunConfig) -> str:
        """Write the run's request and start it, or queue it behind the running one; returns the run's name."""
        info = self._trainable(config.data.dataset)
        if config.data.eval_dataset:
            self._trainable(config.data.eval_dataset)
            if not self.overlap(config.data, config.seed).train_rows:
                raise DatasetError(
                    f"Every row of '{info.id}' has a prompt that is also in '{config.data.eval_dataset}'.",
                    "Measure on other rows, or on a share of these.",
                )
        elif info.report.valid < 2 and config.data.eval_fraction > 0:
            raise DatasetError(
                f"'{info.id}' has {info.report.valid} usable row: too few to hold one out.",
                "Add rows, or set the held-out share to 0.",
            )
        self._refuse_unusable(config.model)
        problems = lacking(config, self.gpus())
        if config.model.adapter:
            problems |= disagreements(config, self._jobs.get(config.model.adapter))
        if problems:
            raise refusal(problems)
        try:
            self.parameters(config.model, config.method)
        except HubUnreachable:
            pass  # the model may have been downloaded before: the worker finds out
        job = self._jobs.create(config, dataset_record(info))
        self.close_chat("a training started and needs the memory")
        self.scheduler.tick()
        return job.name

    def code(self, config: RunConfig) -> Code:
        """The same run as config, command and script; the script reads what `export_sides` writes. Raises JobError."""
        adapter = adapter_folder(self._jobs.get(config.model.adapter)) if config.model.adapter else ""
        model = str(DEMO_FOLDER / "model") if config.model.id == DEMO else config.model.id
        home = self.settings.home
        return code(config, model, None if home == Path("~/ftapp").expanduser() else home, str(adapter))

    def _trainable(self, id: str) -> DatasetInfo:
        info = self.dataset(id)
        if bad := info.unresolved:
            raise DatasetError(
                f"{bad:,} row{'s' if bad != 1 else ''} of '{id}' cannot be used.",
                "Leave them out (in the Dataset tab; in the terminal --leave-out-invalid), or correct the file.",
            )
        return info

    def resume(self, name: str) -> None:
        """Take a run up again from its last whole checkpoint, when its turn comes.

        One that was taken out of the queue waits again. Raises JobError if it has no checkpoint or still works.
        """
        job = self._jobs.get(name)
        if self._runs.summary(job).status not in ("lost", "failed", "stopped"):
            raise JobError(f"{name} is not interrupted.", "Only a lost, failed or stopped run can be resumed.")
        if job.process() and last_whole(job.folder / "checkpoints") is None:
            raise JobError(f"{name} has no whole checkpoint.", "Start it again from the Configure tab.")
        self._check_same_rows(job)
        job.request_resume()
        self._stop_deadlines.pop(job.folder, None)
        self.close_chat("a training started and needs the memory")
        self.scheduler.tick()

    def _check_same_rows(self, job: Job) -> None:
        known = job.dataset()
        if known is None:
            return  # started by an earlier version
        now = dataset_record(self.dataset(known.id))
        if now.sha256 != known.sha256:
            what = "its file is another one"
        elif set(now.edits) != set(known.edits):
            what = "other fixes are applied to it"
        elif now.used != known.used:
            what = f"{known.used:,} of its rows were used then, {now.used:,} now"
        else:
            return
        raise DatasetError(
            f"'{known.id}' has changed since {job.name} began: {what}. It would go on as another run.",
            "Undo the change, or start a new run.",
        )

    def start_changed(self, name: str) -> str:
        """Start a new run like a failed one, with the changes that its failure suggests; returns the new run's name."""
        view = self.run(name)
        if not view.changes:
            raise JobError(f"Nothing about {name}'s config is known to help.", "Change it in the Configure tab.")
        return self.start_training(changed(view.config, view.changes))

    def runs(self) -> list[RunView]:
        """The user's runs, newest first."""
        views = []
        for job, summary in self._runs.all():
            if summary.row:
                views.append(self._view(job, job.run_config, summary.row.created, summary.status, summary.end))
        return views

    def run(self, name: str) -> RunView:
        """One run; raises JobError."""
        return self._run_view(self._jobs.get(name))

    def log_tail(self, name: str, publication: str = "") -> str:
        """The end of what a run's worker, or a publication's, printed."""
        return self._job(name, publication).log_tail()

    def stop(self, name: str, publication: str = "") -> None:
        """Ask a job to save and end; after the grace period it is ended."""
        job = self._job(name, publication)
        if job.status(alive(job.process())) in ACTIVE:
            job.request_stop()
            self._stop_deadlines.setdefault(job.folder, time.monotonic() + self.settings.stop_grace_seconds)

    def kill(self, name: str, publication: str = "") -> None:
        """End a job's processes now; they have five seconds to save."""
        job = self._job(name, publication)
        job.request_stop()
        stop_tree(job.process())

    def _run_view(self, job: Job) -> RunView:
        summary = self._runs.summary(job)
        return self._view(job, job.run_config, job.created.timestamp(), summary.status, summary.end)

    def _job(self, name: str, publication: str) -> Job:
        run = self._jobs.get(name)
        return self._publication_job(run, publication) if publication else run

    def _view(self, job: Job, read_config: Callable[[], C], created: float, status: Status, end: End) -> JobView[C]:
        if status == "stopping":
            self._end_after_grace(job)
        return JobView(job, read_config, created, status, end)

    def _end_after_grace(self, job: Job) -> None:
        grace = self.settings.stop_grace_seconds
        if time.monotonic() > self._stop_deadlines.setdefault(job.folder, time.monotonic() + grace):
            stop_tree(job.process())

    # Chat

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

    def close_idle(self) -> None:
        """Unload what the chat and the preview hold if nobody has used it for a while."""
        if self._idle(self._chat):
            self.close_chat("it was not used for a while")
        if self._idle(self._preview):
            self.close_preview()
        if self._idle(self._examiner):
            self.close_examiner()

    def _idle(self, pipe: Pipe[Any] | None) -> bool:
        if pipe is None or pipe.busy:
            return False
        return time.monotonic() - pipe.last_used > self.settings.chat_idle_seconds

    # Publishing

    def whoami(self, token: str | None = None) -> Account:
        """Whose token this is, or the environment's; raises HubError."""
        return Hub(token or self.settings.hub_token).whoami()

    def publish(self, config: PublishConfig, token: str | None = None) -> str:
        """Start a publication of a run's result, the token checked before any work; returns its number."""
        run = self._jobs.get(config.run)
        view = self.run(config.run)
        if not view.has_result:
            raise JobError(f"{config.run} has no trained model yet.", "Wait for it to finish, or choose another run.")
        if config.artifact == "adapter" and isinstance(view.config.method, FullConfig):
            raise JobError(f"{config.run} trained the whole model, so it has no adapter.", "Publish the merged model.")
        if any(publication.active for publication in self.publications(config.run)):
            raise JobError(f"{config.run} is being published already.", "Wait for that to end, or stop it.")
        token = (token or "").strip() or self.settings.hub_token
        if config.destination:
            account, owner = Hub(token).whoami(), config.destination.split("/")[0]
            if not account.can_write:
                raise HubError(
                    f"The token of {account.name} can only read.",
                    "Make one with write access at https://huggingface.co/settings/tokens.",
                )
            if owner not in (account.name, *account.organisations):
                raise HubError(
                    f"The token belongs to {account.name}, who cannot write to {owner}.",
                    f"Use {account.name}/{config.destination.split('/')[1]}.",
                )
        job = self._jobs.create_publication(run, config)
        launch(job, "publish", token if config.destination else self.settings.hub_token)
        return job.name

    def publications(self, run: str) -> list[PublicationView]:
        """A run's publications, newest first."""
        return [self._publication_view(job) for job in self._jobs.publications(self._jobs.get(run))]

    def publication(self, run: str, number: str) -> PublicationView:
        """One publication; raises JobError."""
        return self._publication_view(self._publication_job(self._jobs.get(run), number))

    def _publication_job(self, run: Job, number: str) -> Job:
        for job in self._jobs.publications(run):
            if job.name == number:
                return job
        raise JobError(f"{run.name} has no publication '{number[:20]}'.")

    def _publication_view(self, job: Job) -> PublicationView:
        status = job.status(alive(job.process()))
        return self._view(job, job.publish_config, job.created.timestamp(), status, job.state.end)


def _told(job: Job, status: Status, end: End) -> tuple[str, str]:
    """A status in a sentence, and what to do next."""
    match status, end:
        case "failed", ev.Failed(message=message, hint=hint):
            return message, hint
        case "finished", ev.Finished(url=url, artifact=artifact):
            return (f"Published at {url}" if url else f"The result is in {job.folder / artifact}"), ""
        case "stopped", ev.Stopped(step=step, artifact=str(artifact)):
            return f"Stopped at step {step}; the result so far is in {job.folder / artifact}", ""
        case "stopped", _ if job.process() is None:
            return "Taken out of the queue before it began", "Resume puts it back."
        case "stopped", _:
            return "Ended before it could save", "Resume it from its last checkpoint, if it has one, or start it again."
        case "lost", _:
            last = [line for line in job.log_tail(4000).splitlines() if line.strip()]
            hint = "Resume it from its last checkpoint, or start it again."
            ended = "The process ended without a word: it was killed, or the machine ran out of memory or restarted."
            return f"{ended} Last line of its log: {last[-1][:300]}" if last else ended, hint
        case "queued", _:
            return "Waits for the run before it to end", ""
        case _:
            return "", ""
