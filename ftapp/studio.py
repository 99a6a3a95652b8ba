"""One short method per verb on the screen; the page and the terminal call the same ones, each on behalf of one user."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from ftapp.contract import events as ev
from ftapp.contract import preview
from ftapp.contract.chat import Generate, Reply
from ftapp.contract.config import AdapterConfig, FullConfig, ModelConfig, PublishConfig, RunConfig
from ftapp.contract.errors import DatasetError, HubError, HubUnreachable, JobError, ModelError
from ftapp.contract.formats import to_example
from ftapp.contract.memory import Parameters, Shapes, count_parameters
from ftapp.contract.report import DatasetInfo, dataset_record
from ftapp.demo.preset import DEMO_PRESET
from ftapp.hub import Account, Hub
from ftapp.library import DEMO as DEMO
from ftapp.library import DEMO_FOLDER as DEMO_FOLDER
from ftapp.library import Library
from ftapp.processes.chat import ChatProcess
from ftapp.processes.child import alive, stop_tree
from ftapp.processes.gpus import Gpu, gpus
from ftapp.processes.launch import launch
from ftapp.processes.pipe import Pipe
from ftapp.processes.preview import PreviewProcess
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.jobs import ACTIVE, Job, JobState, JobStore, Status
from ftapp.store.weights import tensor_shapes

C = TypeVar("C", RunConfig, PublishConfig)


@dataclass(frozen=True)
class JobView(Generic[C]):
    """A training run (RunView) or a publication (PublicationView) as it stands now."""

    name: str
    folder: Path
    config: C
    created: float
    """Seconds since the epoch."""
    status: Status
    state: JobState
    message: str = ""
    """What a person should read about the status: why it failed, where the result is."""
    hint: str = ""

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


class Studio(Library):
    """Everything that one user can do."""

    def __init__(self, settings: Settings, user: str = "local") -> None:
        super().__init__(settings, user)
        self._jobs = JobStore(self.folder / "runs")
        self.scheduler = Scheduler(settings.home, settings.hub_token)
        self._chat: ChatProcess | None = None
        self._preview: PreviewProcess | None = None
        self._previewed: DatasetInfo | None = None
        self._stop_deadlines: dict[Path, float] = {}
        self._shapes: dict[tuple[str, str | None], Shapes] = {}

    # Datasets: the verbs of Library

    def _run_using(self, id: str) -> str | None:
        users = [
            run for run in self.runs() if run.active and id in (run.config.data.dataset, run.config.data.eval_dataset)
        ]
        return users[0].name if users else None

    # Configuring

    def gpus(self) -> list[Gpu]:
        """The accelerators of this machine."""
        return gpus()

    def demo_config(self) -> RunConfig:
        """The demo's own preset: model, dataset and settings that show the effect within a minute on two cores."""
        return RunConfig.model_validate({"model": {"id": DEMO}, "data": {"dataset": DEMO}, **DEMO_PRESET})

    def parameters(self, model: ModelConfig, method: AdapterConfig | FullConfig) -> Parameters:
        """Total and trainable parameters, from the headers of the weights alone; raises ModelError or HubError."""
        key = (model.id, model.revision)
        if key not in self._shapes:
            self._shapes[key] = self._read_shapes(model)
        return count_parameters(self._shapes[key], method)

    def _read_shapes(self, model: ModelConfig) -> Shapes:
        if model.id == DEMO:
            return tensor_shapes(DEMO_FOLDER / "model")
        if Path(model.id).is_absolute():
            if not (Path(model.id) / "config.json").is_file():
                raise ModelError(f"{model.id} is not a model's folder.", "It needs config.json and .safetensors files.")
            return tensor_shapes(Path(model.id))
        return Hub(self.settings.hub_token).model(model.id, model.revision).shapes

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
        try:
            self.parameters(config.model, config.method)
        except HubUnreachable:
            pass  # the model may have been downloaded before: the worker finds out
        job = self._jobs.create(config, dataset_record(info))
        self.close_chat("a training started and needs the memory")
        self.scheduler.tick()
        return job.name

    def _trainable(self, id: str) -> DatasetInfo:
        info = self.dataset(id)
        if bad := info.unresolved:
            raise DatasetError(
                f"{bad:,} row{'s' if bad != 1 else ''} of '{id}' cannot be used.",
                "Leave them out (in the Dataset tab; in the terminal --leave-out-invalid), or correct the file.",
            )
        return info

    def resume(self, name: str) -> None:
        """Take a run up again from its last whole checkpoint; raises JobError if it has none or still works."""
        job = self._jobs.get(name)
        if self.run(name).status not in ("lost", "failed", "stopped"):
            raise JobError(f"{name} is not interrupted.", "Only a lost, failed or stopped run can be resumed.")
        if not any((job.folder / "checkpoints").glob("checkpoint-*")):
            raise JobError(f"{name} has no checkpoint yet.", "Start it again from the Configure tab.")
        if self.scheduler.running():
            raise JobError("Another run is using the machine.", "Resume when it has ended.")
        (job.folder / "stop").unlink(missing_ok=True)
        self._stop_deadlines.pop(job.folder, None)
        self.close_chat("a training started and needs the memory")
        launch(job, "train", self.settings.hub_token)

    def runs(self) -> list[RunView]:
        """The user's runs, newest first."""
        views = []
        for job in self._jobs.all():
            try:
                views.append(self._run_view(job))
            except ValueError:
                continue  # a config of another version of the app
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
        return self._view(job, job.run_config())

    def _job(self, name: str, publication: str) -> Job:
        run = self._jobs.get(name)
        return self._publication_job(run, publication) if publication else run

    def _view(self, job: Job, config: C) -> JobView[C]:
        status = job.status(alive(job.process()))
        if job.stop_requested and status == "stopping":
            self._end_after_grace(job)
        message, hint = _told(job, status)
        return JobView(
            job.name, job.folder, config, job.created.timestamp(), status, job.state, message=message, hint=hint
        )

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
        return self._view(job, job.publish_config())


def _told(job: Job, status: Status) -> tuple[str, str]:
    """A status in a sentence, and what to do next."""
    match status, job.state.end:
        case "failed", ev.Failed(message=message, hint=hint):
            return message, hint
        case "finished", ev.Finished(url=url, artifact=artifact):
            return (f"Published at {url}" if url else f"The result is in {job.folder / artifact}"), ""
        case "stopped", ev.Stopped(step=step, artifact=str(artifact)):
            return f"Stopped at step {step}; the result so far is in {job.folder / artifact}", ""
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
