"""An evaluation's own files: its report, the answers, the votes; read by all, each written by one."""

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from ftapp.contract import events as ev
from ftapp.contract.errors import JobError, StorageError
from ftapp.contract.evaluation import AnsweredRow, EvaluationReport, Vote
from ftapp.store.files import write_whole
from ftapp.store.jobs import Job
from ftapp.store.runs import evaluation_jobs

REPORT, ANSWERS, VOTES = "report.json", "answers.jsonl", "votes.jsonl"


def write_results(job: Job, report: EvaluationReport, rows: Iterable[AnsweredRow]) -> None:
    """Write the answers, then the report: where there is a report there is all of it. Raises StorageError."""
    write_whole(job.folder / ANSWERS, b"".join(row.model_dump_json().encode() + b"\n" for row in rows))
    write_whole(job.folder / REPORT, report.model_dump_json(indent=2).encode())


def read_report(job: Job) -> EvaluationReport | None:
    """What an evaluation found; None as long as it has not finished, or if its report cannot be read."""
    if not isinstance(job.refresh().end, ev.Finished):
        return None
    try:
        return EvaluationReport.model_validate_json((job.folder / REPORT).read_bytes())
    except (OSError, ValidationError):
        return None


def read_rows(job: Job) -> list[AnsweredRow]:
    """Every row with its answers; raises JobError if they cannot be read."""
    try:
        with (job.folder / ANSWERS).open("rb") as lines:
            return [AnsweredRow.model_validate_json(line) for line in lines]
    except (OSError, ValidationError) as error:
        raise JobError(f"The answers of evaluation {job.name} cannot be read.", "Evaluate again.") from error


def newest_report(run: Job) -> EvaluationReport | None:
    """What a run's newest finished evaluation found; None if there is none."""
    return next((report for job in evaluation_jobs(run) if (report := read_report(job))), None)


def add_vote(job: Job, vote: Vote) -> None:
    """Keep a person's vote; raises StorageError."""
    try:
        with (job.folder / VOTES).open("ab") as file:
            file.write(b"\n" + vote.model_dump_json().encode() + b"\n")  # whatever a crash left of the line before
    except OSError as error:
        raise StorageError(f"Cannot keep the vote: {error.strerror}.", "Free some disk space.") from error


def read_votes(job: Job) -> list[Vote]:
    """The votes so far; a torn line is passed over."""
    try:
        lines = (job.folder / VOTES).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return list(_whole(lines))


def _whole(lines: Iterable[bytes]) -> Iterator[Vote]:
    for line in lines:
        try:
            yield Vote.model_validate_json(line)
        except ValidationError:
            continue
