"""What the preview pipe says: rows as the tokens that training will see, and how long they are for a base model."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from ftapp.contract.base import Contract
from ftapp.contract.chat import Error, Loading, Ready
from ftapp.contract.config import ModelConfig
from ftapp.contract.models import Examined


class Measure(Contract):
    """How long the rows are, and what a maximum length would do to them."""

    type: Literal["measure"] = "measure"
    max_length: int | None = None
    """In tokens; None asks for a suggestion and uses it."""


class Page(Contract):
    """Some rows as tokens."""

    type: Literal["page"] = "page"
    start: int = Field(0, ge=0)
    """Number of the first row, from 0, among those that contain `search`."""
    count: int = Field(5, ge=1, le=50)
    search: str = ""
    """Only rows that contain this text, whatever its case."""


class Examine(Contract):
    """What can be said of a model before it is trained; needs no dataset."""

    type: Literal["examine"] = "examine"
    model: ModelConfig


Ask = Annotated[Measure | Page | Examine, Field(discriminator="type")]


class Refusal(Contract):
    """A row that the model's chat template refuses."""

    row: int
    """Among the usable rows, from 1."""
    line: int
    message: str


class Lengths(Contract):
    """The rows' lengths in tokens, and what the maximum length does to them."""

    type: Literal["lengths"] = "lengths"
    rows: int
    """Measured: all rows that the template takes, or those of a sample."""
    of_rows: int
    """In the dataset."""
    edges: list[int]
    """Of the histogram's bins, one more than there are bins."""
    counts: list[int]
    p50: int
    p95: int
    p99: int
    longest: int
    context: int
    """Longest input that the model was made for."""
    suggested: int
    """A maximum length that fits 99 % of the rows, or all if they are not much longer, within the context."""
    max_length: int
    """The one that the figures below speak of."""
    longer: int
    """Measured rows that are longer."""
    answers_cut: int
    """Measured rows that would lose a part of an answer if they were truncated."""
    answer_tokens_lost: float
    """Share of all answer tokens that truncating would lose."""
    tokens_per_epoch: int
    """Of the whole dataset without the longer rows; scaled up from the sample if it is one."""
    refusals: list[Refusal]
    """The first hundred."""
    refused: int
    """Rows that the template refuses: of a sample's dataset also others, by who speaks in which order."""


class Piece(Contract):
    """One or a few tokens that together are whole characters."""

    text: str
    trained: bool
    """Whether the loss sees it; otherwise the model only reads it."""
    special: bool = False
    """Stands for no text of its own, such as the end of a turn."""


class Row(Contract):
    """One row as tokens."""

    row: int
    """Among the usable rows, from 1."""
    line: int
    pieces: list[Piece]
    tokens: int
    trained: int
    """Tokens that the loss sees."""
    problem: str = ""
    """Why the model's chat template refuses it; then there are no pieces."""


class Rows(Contract):
    """A page of rows."""

    type: Literal["rows"] = "rows"
    rows: list[Row]
    found: int
    """Rows that contain the search text; all of them without one."""


Reply = Annotated[Loading | Ready | Lengths | Rows | Examined | Error, Field(discriminator="type")]

asks: TypeAdapter[Ask] = TypeAdapter(Ask)
replies: TypeAdapter[Reply] = TypeAdapter(Reply)
