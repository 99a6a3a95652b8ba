"""Uploaded datasets: the file as it came, its canonical rows, the report; one folder each, named by content."""

import hashlib
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from ftapp.contract.base import Contract
from ftapp.contract.errors import DatasetError, StorageError
from ftapp.contract.examples import Example, Format, RowProblem, detect_format, to_example
from ftapp.store.files import alone, write_whole
from ftapp.store.readers import read_rows

PROBLEMS_KEPT = 1000
MESSAGE_LIMIT = 300
"""Characters; a message may quote a value from the file."""

Progress = Callable[[int], None]
"""Called now and then with the number of rows read so far."""


class Problem(Contract):
    """Why one row cannot be used."""

    row: int
    """From 1."""
    line: int
    """In the file, from 1; 0 if the format has no lines."""
    message: str


class Report(Contract):
    """What checking every row of a file found."""

    format: Format
    rows: int
    valid: int
    """Rows that can be used."""
    problems: list[Problem] = Field(default_factory=list)
    """The first thousand."""
    problem_count: int = 0
    columns: list[str] = Field(default_factory=list)


class DatasetInfo(Contract):
    """A stored dataset."""

    id: str
    """Folder name: the file's name and the start of its content's hash."""
    filename: str
    sha256: str
    """Of the file as it came."""
    bytes: int
    added: datetime
    report: Report


def check(
    path: Path, filename: str = "", keep: Callable[[Example], None] | None = None, progress: Progress = lambda _: None
) -> Report:
    """Check every row, handing each usable one to `keep`; raises DatasetError if the file is unusable as a whole."""
    filename = filename or path.name
    formats: Counter[Format] = Counter()
    columns: dict[str, None] = {}
    for row in read_rows(path, filename):
        if row.value is not None:
            formats[detect_format(row.value)] += 1
            if len(columns) < 200:
                columns.update(dict.fromkeys(map(str, row.value)))
        if row.number % 5000 == 0:
            progress(row.number)
    known = Counter({name: count for name, count in formats.items() if name != "unknown"})
    chosen: Format = known.most_common(1)[0][0] if known else "unknown"
    rows = valid = problem_count = 0
    problems: list[Problem] = []
    for row in read_rows(path, filename):
        rows += 1
        try:
            if row.value is None:
                raise RowProblem(row.problem)
            found = detect_format(row.value)
            if found != chosen and "text" in (found, chosen) and found != "unknown":
                raise RowProblem(f"the row looks like {found}, most rows are {chosen}")
            example = to_example(row.value, found, row.line)
            valid += 1
            if keep:
                keep(example)
        except RowProblem as problem:
            problem_count += 1
            if len(problems) < PROBLEMS_KEPT:
                problems.append(Problem(row=row.number, line=row.line, message=str(problem)[:MESSAGE_LIMIT]))
        if rows % 5000 == 0:
            progress(rows)
    if not rows:
        raise DatasetError(f"{filename} has no rows.", "Choose a file with at least one row.")
    return Report(
        format=chosen,
        rows=rows,
        valid=valid,
        problems=problems,
        problem_count=problem_count,
        columns=list(columns)[:200],
    )


class DatasetStore:
    """The datasets of one user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, path: Path, filename: str, id: str = "", progress: Progress = lambda _: None) -> DatasetInfo:
        """Store a file and its canonical rows, whole or not at all; the same content is stored once.

        Raises DatasetError when no row is usable, StorageError when the disk is full.
        """
        filename = _clean_filename(filename)
        try:
            digest = _sha256(path)
            id = id or f"{_slug(filename)}-{digest[:8]}"
            if (found := self._find(id)) and found.sha256 == digest:
                return found
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder / f".{id}.lock"):
                if (found := self._find(id)) and found.sha256 == digest:
                    return found  # somebody else was adding it
                return self._add(path, filename, id, digest, progress)
        except OSError as error:
            raise StorageError(f"Cannot store {filename}: {error.strerror}.", "Free some disk space.") from error

    def _add(self, path: Path, filename: str, id: str, digest: str, progress: Progress) -> DatasetInfo:
        draft = self.folder / f".{id}.new"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir()
            original = draft / f"original{Path(filename).suffix.lower()}"
            shutil.copyfile(path, original)
            with (draft / "rows.jsonl").open("wb") as rows:
                report = check(
                    original,
                    filename,
                    lambda example: _write_line(rows, example),
                    progress,
                )
            if not report.valid:
                first = report.problems[0]
                raise DatasetError(
                    f"No row of {filename} can be used: row {first.row}: {first.message}.",
                    "Each row needs messages, instruction/output, prompt/completion, question/answer or text.",
                )
            info = DatasetInfo(
                id=id,
                filename=filename,
                sha256=digest,
                bytes=original.stat().st_size,
                added=datetime.now(UTC),
                report=report,
            )
            write_whole(draft / "report.json", info.model_dump_json().encode())
            shutil.rmtree(self.folder / id, ignore_errors=True)
            draft.rename(self.folder / id)
            return info
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def all(self) -> list[DatasetInfo]:
        """Every dataset, newest first."""
        try:
            names = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        found = [info for name in names if (info := self._find(name))]
        return sorted(found, key=lambda info: info.added, reverse=True)

    def get(self, id: str) -> DatasetInfo:
        """The dataset of that id; raises DatasetError if there is none."""
        info = self._find(id)
        if info is None:
            raise DatasetError(f"There is no dataset called '{id[:100]}'.", "Upload it, or choose one from the list.")
        return info

    def _find(self, id: str) -> DatasetInfo | None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", id):
            return None
        try:
            return DatasetInfo.model_validate_json((self.folder / id / "report.json").read_bytes())
        except (OSError, ValueError):
            return None

    def examples(self, id: str, start: int = 0, count: int | None = None) -> Iterator[Example]:
        """The canonical rows from number `start` on."""
        self.get(id)
        with (self.folder / id / "rows.jsonl").open("rb") as file:
            for number, line in enumerate(file):
                if count is not None and number >= start + count:
                    return
                if number >= start:
                    yield Example.model_validate_json(line)

    def delete(self, id: str) -> None:
        """Remove a dataset; runs keep their own record of it."""
        self.get(id)
        shutil.rmtree(self.folder / id)


def split(examples: list[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training rows and held-out rows, in the order given; rows with the same first prompt stay on one side.

    The held-out side has at least one row and at most half, unless `fraction` is 0 or there is only one prompt.
    """
    if fraction == 0 or len(examples) < 2:
        return examples, []
    groups: dict[bytes, list[int]] = {}
    for number, example in enumerate(examples):
        prompt = next((m.content for m in example.messages if m.role == "user"), example.text or "")
        normal = " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
        key = hashlib.sha256(f"{seed}:{normal}".encode("utf-8", "replace")).digest()
        groups.setdefault(key, []).append(number)
    wanted = min(max(1, round(fraction * len(examples))), len(examples) // 2)
    held: set[int] = set()
    for key in sorted(groups):
        if len(held) + len(groups[key]) <= wanted:
            held.update(groups[key])
    if not held and len(groups) > 1:
        held.update(groups[min(sorted(groups), key=lambda key: len(groups[key]))])
    return (
        [example for number, example in enumerate(examples) if number not in held],
        [example for number, example in enumerate(examples) if number in held],
    )


def _write_line(file: object, example: Example) -> None:
    file.write(example.model_dump_json(exclude_defaults=True).encode() + b"\n")  # type: ignore[attr-defined]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clean_filename(filename: str) -> str:
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c for c in name if c.isprintable()).strip()
    return name[-120:] or "upload"


def _slug(filename: str) -> str:
    stem = unicodedata.normalize("NFKD", Path(filename).stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:40] or "dataset"
