"""The verbs on the chat: ask a run's model, stop it, put it away; keep an answer as a row."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ftapp.contract.chat import Loaded, Question, Reply, Sampling
from ftapp.contract.config import FullConfig, QloraConfig
from ftapp.contract.errors import DatasetError, JobError, ModelError
from ftapp.contract.examples import Message
from ftapp.contract.report import DatasetInfo, dataset_record
from ftapp.people import Person, acts
from ftapp.processes.chat import ChatProcess
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.checkpoints import all_checkpoints, is_whole
from ftapp.store.generation import knows_thinking, own_sampling
from ftapp.store.jobs import Job
from ftapp.store.versions import Versions
from ftapp.training import Training
from ftapp.views import RunView

LEFT_SECONDS = 5.0
"""How long the model stays after the last page was closed: a reload is a page closed and opened again."""
QUIET_SECONDS = 60.0
"""How long a chat is kept from being put away for somebody else's."""
ROWS_READ = 200
"""Rows of a dataset that are asked whether they all have one system prompt."""


@dataclass(frozen=True)
class ChatState:
    """What is in memory for the chat."""

    held: bool = False
    """Whether there is anything, or will be in a moment."""
    loaded: Loaded | None = None
    """None until a question has come."""
    away: str = ""
    """Why what was in memory is there no more."""


@dataclass(frozen=True)
class ChatDefaults:
    """What a chat with a run begins with."""

    sampling: Sampling
    """By the model's own generation config."""
    system: str = ""
    """The system prompt that the training rows have in common."""
    thinking: bool = False
    """Whether the chat template can be told to think or not."""
    four_bit: bool = False
    """Whether the base was in 4 bit while training."""


@dataclass(frozen=True)
class HeldOut:
    """A row that was measured on and never trained on."""

    messages: list[Message]
    """Up to the last question, which may be what a tool said."""
    answer: Message
    """The one in the row."""
    tools: list[dict[str, Any]] | None
    """What the assistant may call."""
    number: int
    """From 1."""
    count: int


class Conversation(Training):
    """The models that one user can talk with."""

    def __init__(self, settings: Settings, person: Person, scheduler: Scheduler) -> None:
        super().__init__(settings, person, scheduler)
        self._chat: ChatProcess | None = None
        self._base: tuple[object, ...] = ()
        self._beside: set[str] = set()
        self._away = ""
        self._pages: set[str] = set()
        self._left_at: float | None = None
        self._versions = Versions(self._datasets, self._was_used)
        self.others: Callable[[], Iterable[Conversation]] = tuple
        """Those of other people on this machine: only one chat is in memory at a time."""

    def _let_go(self, run: str) -> None:
        if self._chat and run in self._chat.used:
            self.close_chat("its run was deleted")

    def make_room(self, why: str) -> None:
        self.close_chat(why)

    def _holds_memory(self) -> bool:
        return self._chat is not None

    # Asking

    @acts
    def chat(self, run: str, question: Question, checkpoint: str = "", four_bit: bool | None = None) -> Iterator[Reply]:
        """Answer with a run's result or a checkpoint, with the base, or with both at once; raises JobError, ModelError.

        A base that is loaded already stays, and the adapter is changed; another base is loaded in a process of its
        own, in 4 bit if it is asked for and, by default, if it was trained so.
        """
        job = self._jobs.get(run)
        if checkpoint not in self.chat_checkpoints(run):
            what = f"has no whole checkpoint '{checkpoint[:40]}'" if checkpoint else "has no trained model yet"
            raise JobError(f"{run} {what}.", "Wait for it to finish, or choose another one.")
        base = self._base_of(job, checkpoint, four_bit)
        self._left_at = None  # who asks has a page open, even one whose connection broke and seemed closed
        with self.scheduler.one_chat:
            if self._chat and not self._chat.alive:
                self.close_chat("its process ended unexpectedly")
            if self._chat and self._base != base:
                if self._chat.busy:
                    raise ModelError("The model is still answering.", "Stop that answer, or wait for it.")
                self.close_chat("another model was chosen")
            if self._chat is None:
                running = self.scheduler.running()
                if self.gpus() and running:
                    mine = running[0].folder.is_relative_to(self.folder)
                    who = running[0].name if mine else "Somebody else's run"
                    raise JobError(
                        f"{who} is using the GPU.", f"Chat when it has ended{', or stop it' if mine else ''}."
                    )
                for other in self.others():
                    other.give_way()
                self._beside = {job.name for job in running}
                self._base, self._away = base, ""
                self.folder.mkdir(parents=True, exist_ok=True)
                log, token = self.folder / "chat.log", self.settings.hub_token
                self._chat = ChatProcess(job, checkpoint, self._in_four_bit(job, four_bit), log, token)
            return self._answers(self._chat, job, checkpoint, question)

    def _answers(self, chat: ChatProcess, job: Job, checkpoint: str, question: Question) -> Iterator[Reply]:
        try:
            with closing(chat.generate(job, checkpoint, question)) as replies:  # type: ignore[type-var]
                yield from replies
        except ModelError as error:
            if self._chat is chat and not chat.alive:
                self.close_chat(error.message)
            raise

    def _base_of(self, job: Job, checkpoint: str, four_bit: bool | None) -> tuple[object, ...]:
        """What must be in memory to answer: equal for runs whose adapters are on one base."""
        config, state = job.run_config(), job.refresh()
        four = self._in_four_bit(job, four_bit)
        if isinstance(config.method, FullConfig):
            folder = job.folder / "checkpoints" / checkpoint if checkpoint else job.folder / "model"
            return job.name, checkpoint, folder.stat().st_mtime_ns, four
        pinned = state.resolved.values.get("model.revision") if state.resolved else None
        return config.model.id, pinned or config.model.revision, four

    def _in_four_bit(self, job: Job, asked: bool | None) -> bool:
        return isinstance(job.run_config().method, QloraConfig) if asked is None else asked

    def give_way(self) -> None:
        """Put the chat away for somebody else's, unless it was just used; raises JobError if it was."""
        if self._chat and (self._chat.busy or time.monotonic() - self._chat.last_used < QUIET_SECONDS):
            raise JobError(
                "Somebody else is chatting: there is memory for one model at a time.",
                f"Ask again when they have been quiet for {QUIET_SECONDS:g} seconds.",
            )
        self.close_chat("somebody else began to chat")

    @acts
    def stop_chat(self) -> None:
        """Stop the answers that are being written; a model that is still being loaded for them is put away."""
        if self._chat and self._chat.ready:
            self._chat.stop()
        elif self._chat and self._chat.busy:
            self.close_chat("it was stopped before it was loaded")

    def chat_answers(self) -> bool:
        """Whether a question is being answered."""
        return self._chat is not None and self._chat.busy

    def close_chat(self, why: str = "it was closed") -> None:
        """Put the chat's model away; `why` is told to who waits for an answer, and by `chat_state`."""
        if self._chat:
            chat, self._chat = self._chat, None
            self._away = why
            chat.close(why)

    def chat_state(self) -> ChatState:
        """What is in memory, or why it is there no more."""
        if self._chat and not self._chat.alive and not self._chat.busy:
            self.close_chat("its process ended unexpectedly")
        return ChatState(True, self._chat.loaded) if self._chat else ChatState(away=self._away)

    def make_way(self) -> None:
        """Put the chat away if a training has begun that another process started, or if nobody has the page open."""
        if self._chat is None:
            return
        if any(job.name not in self._beside for job in self.scheduler.running()):
            self.close_chat("a training started and needs the memory")
        elif self._left_at is not None and time.monotonic() - self._left_at > LEFT_SECONDS:
            self.close_chat("the page was closed")

    def open_page(self, session: str) -> None:
        """Somebody opened a page."""
        if not self.person.may_act:
            return  # nothing is in memory for visitors, and there may be any number of them
        self._pages.add(session)
        self._left_at = None

    def leave_page(self, session: str) -> None:
        """A page was closed; after the last one the chat's model is put away."""
        self._pages.discard(session)
        if not self._pages:
            self._left_at = time.monotonic()

    # What can be asked

    def chat_runs(self) -> list[RunView]:
        """The runs with something to chat with, newest first."""
        there = [view for view in self.runs() if view.has_result or all_checkpoints(view.folder / "checkpoints")]
        return [view for view in there if not view.unreadable]

    def chat_checkpoints(self, run: str) -> list[str]:
        """What of a run can answer: "" for its result, and the names of its whole checkpoints, newest first."""
        view = self.run(run)
        found = [""] if view.has_result else []
        if getattr(view.config.method, "init", "") in ("pissa", "olora"):
            return found  # their checkpoints fit a base that only the training has
        return found + [path.name for path in all_checkpoints(view.folder / "checkpoints") if is_whole(path)]

    def chat_defaults(self, run: str) -> ChatDefaults:
        """What a chat with a run begins with."""
        view = self.run(run)
        places = [view.folder / "adapter", view.folder / "model", *all_checkpoints(view.folder / "checkpoints")]
        return ChatDefaults(
            sampling=own_sampling(places),
            system=self._system_prompt(view.config.data.dataset),
            thinking=knows_thinking(places),
            four_bit=isinstance(view.config.method, QloraConfig),
        )

    def _system_prompt(self, dataset: str) -> str:
        try:
            firsts = [example.messages[:1] for example in self.examples(dataset, 0, ROWS_READ)]
        except DatasetError:
            return ""
        found = {message.content if message.role == "system" else "" for first in firsts for message in first}
        return found.pop() if len(found) == 1 else ""

    def held_out_row(self, run: str, number: int) -> HeldOut:
        """A row that the run measured on, counted from 0 and round again; raises DatasetError if there is none."""
        job = self._jobs.get(run)
        config, known = job.run_config(), job.dataset()
        now = dataset_record(self.dataset(config.data.dataset))
        if known and (known.sha256, known.used, set(known.edits)) != (now.sha256, now.used, set(now.edits)):
            raise DatasetError(
                f"'{now.id}' has changed since {run} began: which rows were held out is not known any more.",
                "Undo the change in the Dataset tab, or ask something of your own.",
            )
        id, rows = self._datasets.measured(config.data, config.seed)
        for at in range(number, number + len(rows)):
            [row] = self.examples(id, rows[at % len(rows)], 1)
            if row.messages:
                return HeldOut(row.messages[:-1], row.messages[-1], row.tools, at % len(rows) + 1, len(rows))
        raise DatasetError(f"{run} held no questions out.", "Ask something of your own.")

    # Keeping answers

    @acts
    def keep_answer(self, run: str, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> DatasetInfo:
        """Make a conversation, its last answer good or corrected, a row of a new version of the run's dataset.

        More of them go into the same version until a run uses it; the run's own dataset stays as it is. Raises
        DatasetError, StorageError.
        """
        return self._versions.keep(self._jobs.get(run).run_config().data.dataset, messages, tools)

    def rows_from_chat(self, id: str) -> int:
        """How many rows of a dataset are answers that were kept."""
        return self._versions.rows_from_chat(id)

    def _was_used(self, id: str) -> bool:
        return any(id in job.datasets() for job, _ in self._runs.all())
