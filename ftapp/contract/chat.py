"""What the chat pipe says: JSON lines, requests down the worker's stdin, replies up its stdout."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from ftapp.contract.base import Contract
from ftapp.contract.examples import Message


class Generate(Contract):
    """Answer the conversation."""

    type: Literal["generate"] = "generate"
    messages: list[Message]
    tuned: bool = True
    """With the run's adapter (or trained model); without it, the base as it was."""
    max_new_tokens: int = Field(512, ge=1, le=32_768, title="Longest answer (tokens)")
    """The answer is cut here if the model has not stopped by itself."""
    temperature: float = Field(0.0, ge=0.0, le=5.0, title="Temperature")
    """0 always takes the likeliest token; higher is more varied."""
    top_p: float = Field(1.0, gt=0.0, le=1.0, title="Top-p")
    """Sample only among the likeliest tokens that together have this probability."""
    seed: int = Field(0, ge=0, le=2**32 - 1, title="Seed")
    """Same seed, same answer, when the temperature is above 0."""


class Stop(Contract):
    """Stop the answer that is being written."""

    type: Literal["stop"] = "stop"


Request = Annotated[Generate | Stop, Field(discriminator="type")]


class Loading(Contract):
    """Not ready yet: what the worker is doing."""

    type: Literal["loading"] = "loading"
    name: str


class Ready(Contract):
    """The model is loaded; requests are read from now on."""

    type: Literal["ready"] = "ready"
    device: str


class Text(Contract):
    """The next piece of the answer."""

    type: Literal["text"] = "text"
    text: str


class Done(Contract):
    """The answer is complete."""

    type: Literal["done"] = "done"
    reason: Literal["stop", "length", "stopped"]
    """The model ended by itself, reached the length limit, or was stopped by the person."""
    tokens: int
    """Tokens written."""
    seconds: float
    first_token_seconds: float


class Error(Contract):
    """The request, or the worker, failed."""

    type: Literal["error"] = "error"
    message: str
    hint: str = ""
    fatal: bool = False
    """The worker ends after this."""


Reply = Annotated[Loading | Ready | Text | Done | Error, Field(discriminator="type")]

requests: TypeAdapter[Request] = TypeAdapter(Request)
replies: TypeAdapter[Reply] = TypeAdapter(Reply)
