"""What a job says while it works: one JSON object a line, told apart by `type`; workers write, all read."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from ftapp.contract.base import Contract
from ftapp.contract.errors import FailureKind


class _Event(Contract):
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    """When, UTC."""


class Started(_Event):
    """The worker's first line."""

    type: Literal["started"] = "started"
    schema_version: int = 1
    pid: int
    process_created: float
    """When the process was created, seconds since the epoch; with the pid it names the process for good."""
    world_size: int = 1
    """Number of processes that train together."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the libraries that shape the result."""
    device: str = Field(default="", exclude=True)
    """Stands, empty, in earlier versions' logs alone: `Resolved` says it."""


class Phase(_Event):
    """What the worker is doing now; long phases repeat it with how far they are."""

    type: Literal["phase"] = "phase"
    name: str
    """One or two words: downloading, loading, tokenising, training, saving, copying, merging, verifying, pushing,
    reading back."""
    done: int | None = None
    total: int | None = None
    unit: Literal["rows", "bytes", "files"] = "rows"


class Resolved(_Event):
    """What `auto` became, and what the data and model turned out to be; nothing is hidden."""

    type: Literal["resolved"] = "resolved"
    values: dict[str, Any]
    """Dotted config name → the value used."""
    train_rows: int
    eval_rows: int
    longest_row: int = 0
    """Tokens of the dataset's longest row, before it is cut or left out; 0 where an earlier version wrote this."""
    left_out_rows: int = 0
    """Rows longer than the maximum length, left out."""
    train_tokens: int = 0
    """Tokens of one epoch."""
    trainable_parameters: int = 0
    total_parameters: int = 0
    total_steps: int = 0
    start_step: int | None = None
    """Step of the checkpoint that this process goes on from; 0 if from the beginning."""
    template_hash: str = ""
    """Of the chat template, SHA-256."""
    data_hash: str = ""
    """Of the token rows on both sides of the split, SHA-256."""
    weights_hash: str = ""
    """Of the base's weights, by parts of them; see `fingerprint`."""


class Metrics(_Event):
    """One optimizer step."""

    type: Literal["metrics"] = "metrics"
    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    """Tokens seen since the start of the run."""
    tokens_per_second: float | None = None
    seconds: float | None = None
    """Training time since the start of this process, without evaluation."""
    memory: int | None = None
    """Highest accelerator memory so far, bytes."""


class Evaluation(_Event):
    """The loss on the held-out rows, averaged over answer tokens."""

    type: Literal["evaluation"] = "evaluation"
    step: int
    loss: float
    perplexity: float
    tokens: int
    """Answer tokens measured."""
    seconds: float | None = None
    """How long it took."""


class Sample(_Event):
    """The model's answer to a held-out prompt, in the middle of training."""

    type: Literal["sample"] = "sample"
    step: int
    prompt: str
    answer: str
    reference: str


class Checkpoint(_Event):
    """A checkpoint was written whole."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    name: str
    """Folder under `checkpoints/`."""


class Note(_Event):
    """Something that a person should know."""

    type: Literal["note"] = "note"
    level: Literal["info", "warning"] = "info"
    message: str


class Verified(_Event):
    """A merged model, read back from disk, against base and adapter, which were loaded apart from it."""

    type: Literal["verified"] = "verified"
    passed: bool
    rows: int
    """Texts that both read."""
    held_out: bool
    """Whether these are rows that the training did not see."""
    positions: int
    """Tokens of answers at which the next token's probabilities were compared."""
    top1: float
    """Share of them at which both find the same token likeliest."""
    divergence: float
    """Mean Kullback-Leibler divergence from base + adapter to the merged model, nats a token."""
    change: float
    """The same from base + adapter to the base alone: what the training changed."""
    answers: int
    """Prompts that both answered greedily."""
    same_answers: int
    precision: str
    """In which both were computed."""
    problems: list[str] = Field(default_factory=list)
    """What is wrong with the merged model's files."""


class Finished(_Event):
    """The last line of a job that did what it was asked."""

    type: Literal["finished"] = "finished"
    artifact: str
    """Folder of the result, relative to the job's folder unless a folder elsewhere was asked for."""
    url: str | None = None
    """Where it stands on the Hub."""
    best_step: int | None = None
    """The step whose weights were kept."""


class Stopped(_Event):
    """The last line of a job that was asked to stop and saved what it had."""

    type: Literal["stopped"] = "stopped"
    step: int = 0
    artifact: str | None = None
    """Folder of what was saved, if anything was."""
    best_step: int | None = None
    """The step whose weights were kept, if the best is."""


class Failed(_Event):
    """The last line of a job that could not go on."""

    type: Literal["failed"] = "failed"
    kind: FailureKind = "other"
    message: str
    hint: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Dotted config name → the value to try next, where a change of the config may help."""
    traceback: str = ""


Event = Annotated[
    Started
    | Phase
    | Resolved
    | Metrics
    | Evaluation
    | Sample
    | Checkpoint
    | Note
    | Verified
    | Finished
    | Stopped
    | Failed,
    Field(discriminator="type"),
]
TERMINAL = (Finished, Stopped, Failed)

_adapter: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str | bytes) -> Event:
    """An event from its JSON line; raises pydantic's ValidationError."""
    return _adapter.validate_json(line)
