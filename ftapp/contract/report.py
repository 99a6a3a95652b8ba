"""What checking a dataset says: how it was read, what cannot be used, what looks wrong, and what was asked for."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from ftapp.contract.base import Contract
from ftapp.contract.examples import ADVICE, ProblemKind
from ftapp.contract.formats import Format, Mapping

Encoding = Literal["cp1252", "utf-16-le", "utf-16-be"]
"""What a person may say a file's text is; else it is UTF-8, or UTF-16 by its mark, and nothing is guessed."""

Edit = Literal[
    "drop_problems",
    "drop_trailing",
    "merge_turns",
    "fold_system",
    "drop_short",
    "drop_duplicates",
    "drop_near_duplicates",
]
"""A fix that a person applied; the rows are read again with all of them, so each is undone by taking it away."""

EDITS: dict[Edit, str] = {
    "drop_problems": "Leave out the rows with problems",
    "drop_trailing": "Drop the turns after the last answer",
    "merge_turns": "Merge turns of one role in a row",
    "fold_system": "Put the system text in front of the first user turn",
    "drop_short": "Leave out rows with very short answers",
    "drop_duplicates": "Leave out repeated rows",
    "drop_near_duplicates": "Leave out rows that are almost the same",
}
"""What a button says."""

FindingKind = Literal[
    "duplicates",
    "near_duplicates",
    "conflicts",
    "short_answers",
    "repeated_answer",
    "assistant_not_last",
    "same_role",
    "system_turns",
    "unbalanced",
]


class Reading(Contract):
    """How a file is read, where it does not say so itself."""

    encoding: Encoding | None = None
    """Of text that is neither UTF-8 nor marked as UTF-16."""
    mapping: Mapping | None = None
    """For columns that are not recognised."""


class RowRef(Contract):
    """Where a row stands."""

    row: int
    """In the file, or in all the files one after another, from 1."""
    line: int = 0
    """In its file, from 1; 0 if the format has no lines."""
    index: int = -1
    """Among the usable rows, from 0; -1 if it is not one of them."""


class Problem(Contract):
    """Why one row cannot be used."""

    row: int
    """From 1."""
    line: int
    """In the file, from 1; 0 if the format has no lines."""
    message: str
    kind: ProblemKind = "field"
    excerpt: str = ""
    """The start of the row as the file has it."""
    file: str = ""
    """Which one, if several were added together."""

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.kind]


class Finding(Contract):
    """Something about usable rows that a person should look at."""

    kind: FindingKind
    count: int
    """Rows concerned."""
    message: str
    rows: list[RowRef] = Field(default_factory=list)
    """The first hundred."""
    fix: Edit | None = None
    """What would take it away."""
    looked_at: int | None = None
    """Rows that were compared, if not all were."""


class EncodingOffer(Contract):
    """Text that is not UTF-8, as it would look in another encoding: for a person to confirm."""

    encoding: Encoding
    line: int
    excerpt: str


class Figures(Contract):
    """What the rows add up to; shares are of the usable rows."""

    median_answer: int = 0
    """Characters, as are the next two."""
    p95_answer: int = 0
    longest_answer: int = 0
    distinct_answers: float = 0.0
    """Share of answers that stand on one row only or are its first copy."""
    questions: float = 0.0
    """Share of prompts that ask a question."""
    factual: float = 0.0
    """Share of short answers with a number or a name in them."""


class Advice(Contract):
    """The field's rule (prompt first, then retrieval, then fine-tuning) where this dataset's figures call for it."""

    kind: Literal["few_rows", "facts"]
    message: str
    figures: dict[str, int | float]
    """What speaks for it, by name."""


class Report(Contract):
    """What checking every row of a file found: rows = valid + problem_count + the sum of left_out."""

    format: Format
    """Of most rows."""
    rows: int
    valid: int
    """Rows that can be used."""
    problems: list[Problem] = Field(default_factory=list)
    """The first thousand; problems.csv beside the rows has them all."""
    problem_count: int = 0
    columns: list[str] = Field(default_factory=list)
    formats: dict[Format, int] = Field(default_factory=dict)
    """Rows of each format."""
    problem_kinds: dict[ProblemKind, int] = Field(default_factory=dict)
    left_out: dict[Edit, int] = Field(default_factory=dict)
    """Usable rows that a fix left out."""
    findings: list[Finding] = Field(default_factory=list)
    figures: Figures = Field(default_factory=Figures)
    advice: list[Advice] = Field(default_factory=list)
    encodings: list[str] = Field(default_factory=list)
    """What the files' text was read as, each once."""
    encoding_offer: EncodingOffer | None = None
    """Where rows are not UTF-8."""
    suggestion: Mapping | None = None
    """Columns to try, where rows were not recognised."""


class SourceFile(Contract):
    """A file to check."""

    path: str
    name: str
    """What the person calls it."""


class CheckRequest(Contract):
    """What a check is asked to do."""

    files: list[SourceFile]
    """Read one after another, as one dataset."""
    reading: Reading = Field(default_factory=Reading)
    edits: list[Edit] = Field(default_factory=list)
    unpacked_limit: int = 16 * 2**30
    """Bytes that a packed file may unpack to."""
    rows_limit: int | None = None
    """Most rows that it may have."""


class HubSource(Contract):
    """Where on the Hub a dataset's files are."""

    id: str
    revision: str
    """The commit."""
    config: str = "default"
    split: str = "train"
    files: list[str] = Field(default_factory=list)
    bytes: int = 0


class DatasetInfo(Contract):
    """A stored dataset."""

    id: str
    """Folder name: the file's name and the start of its content's hash."""
    filename: str
    sha256: str
    """Of the file as it came; of the files' hashes, one a line, if there are several."""
    bytes: int
    added: datetime
    report: Report
    files: list[str] = Field(default_factory=list)
    """The names of all files, if there are several."""
    reading: Reading = Field(default_factory=Reading)
    edits: list[Edit] = Field(default_factory=list)
    """The fixes in force."""
    source: HubSource | None = None
    """Where it came from, if from the Hub."""

    @property
    def unresolved(self) -> int:
        """Rows that cannot be used and that nobody has said to leave out."""
        return 0 if "drop_problems" in self.edits else self.report.problem_count

    @property
    def left_out(self) -> int:
        """Rows of the file that training will not see."""
        return self.report.rows - self.report.valid


class DatasetRecord(Contract):
    """What a run remembers of its dataset."""

    id: str
    filename: str
    sha256: str
    rows: int
    """In the file."""
    used: int
    """That training and measuring saw."""
    problems: int
    """That could not be used and were left out."""
    left_out: dict[Edit, int]
    """Usable rows that fixes left out."""
    edits: list[Edit]
    source: HubSource | None = None


def dataset_record(info: DatasetInfo) -> DatasetRecord:
    """What a run that starts now is to remember."""
    report = info.report
    return DatasetRecord(
        id=info.id,
        filename=info.filename,
        sha256=info.sha256,
        rows=report.rows,
        used=report.valid,
        problems=report.problem_count,
        left_out=report.left_out,
        edits=info.edits,
        source=info.source,
    )


class Overlap(Contract):
    """Rows that training and measuring would share."""

    train_rows: int
    eval_rows: int
    shared_rows: int
    """Training rows whose first prompt is also in the evaluation data; they are left out of the training."""
