"""What the chat pipe says: JSON lines, requests down the worker's stdin, replies up its stdout."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from ftapp.contract.base import Contract
from ftapp.contract.examples import Message

Voice = Literal["base", "tuned"]
"""Who answers: the base as it was, or what the run made of it."""

THINKING = "enable_thinking"
"""What chat templates call the switch between answers with and without thinking (Qwen3, SmolLM3, GLM)."""


class Sampling(Contract):
    """How each token of an answer is chosen."""

    max_new_tokens: int = Field(512, ge=1, le=32_768, title="Longest answer (tokens)")
    """The answer is cut here if the model has not stopped by itself."""
    temperature: float = Field(0.0, ge=0.0, le=5.0, title="Temperature")
    """0 always takes the likeliest token; higher is more varied."""
    top_p: float = Field(1.0, gt=0.0, le=1.0, title="Top-p")
    """Choose only among the likeliest tokens that together have this probability."""
    top_k: int = Field(0, ge=0, le=1_000_000, title="Top-k")
    """Choose only among so many of the likeliest tokens; 0 means all."""
    repetition_penalty: float = Field(1.0, gt=0.0, le=10.0, title="Repetition penalty")
    """Above 1, tokens that are there already become less likely."""
    seed: int = Field(0, ge=0, le=2**32 - 1, title="Seed")
    """Same seed, same answer, when the temperature is above 0."""


class Question(Contract):
    """What is asked, and of whom."""

    messages: dict[Voice, list[Message]] = Field(min_length=1)
    """The conversation as each one knows it who is to answer; two of them answer at the same time."""
    sampling: Sampling = Field(default_factory=Sampling)
    tools: list[dict[str, Any]] | None = None
    """What may be called, in OpenAI's form, if the conversation began with a row that says so."""
    thinking: bool | None = None
    """Whether to think first, for templates that know it; None: as in training."""


class Generate(Contract):
    """Answer a question with a run's result, or with one of its checkpoints."""

    type: Literal["generate"] = "generate"
    run: str
    """The run's folder; its base is the one that the worker holds."""
    checkpoint: str = ""
    """A folder under `checkpoints/`; empty: the run's result."""
    question: Question


class Stop(Contract):
    """Stop the answers that are being written."""

    type: Literal["stop"] = "stop"


Request = Annotated[Generate | Stop, Field(discriminator="type")]


class Loading(Contract):
    """Not ready yet: what the worker is doing."""

    type: Literal["loading"] = "loading"
    name: str


class Ready(Contract):
    """What answers come from is loaded; requests are read from now on."""

    type: Literal["ready"] = "ready"
    device: str


class Loaded(Contract):
    """What is in memory and answers now."""

    type: Literal["loaded"] = "loaded"
    run: str
    """The run's name."""
    checkpoint: str = ""
    model: str
    """The base model's public name."""
    method: str
    precision: str
    """Of the base's weights: 4 bit, bfloat16, …"""
    device: str
    adapters: int = 0
    """Adapters in memory on the one base; 0 after full fine-tuning."""


class Text(Contract):
    """The next piece of an answer."""

    type: Literal["text"] = "text"
    voice: Voice
    text: str


class Answered(Contract):
    """An answer is complete."""

    type: Literal["answered"] = "answered"
    voice: Voice
    reason: Literal["stop", "length", "stopped"]
    """The model ended by itself, reached the length limit, or was stopped by the person."""
    tokens: int
    """Tokens written, the one that ends the answer included."""
    seconds: float
    first_token_seconds: float


class Done(Contract):
    """All answers are complete."""

    type: Literal["done"] = "done"


class Error(Contract):
    """The request, or the worker, failed."""

    type: Literal["error"] = "error"
    message: str
    hint: str = ""
    fatal: bool = False
    """The worker ends after this."""


Reply = Annotated[Loading | Ready | Loaded | Text | Answered | Done | Error, Field(discriminator="type")]

requests: TypeAdapter[Request] = TypeAdapter(Request)
replies: TypeAdapter[Reply] = TypeAdapter(Reply)
