"""An evaluation's folder: a report is there whole or not at all, and the newest finished one is found."""

from pathlib import Path

import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.errors import JobError, StorageError
from ftapp.contract.evaluation import EvaluateConfig, Vote
from ftapp.store.evaluations import add_vote, newest_report, read_report, read_rows, read_votes, write_results
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.store.queue import EvaluationQueue
from ftapp.store.runs import JobStore
from tests.unit.test_evaluation import report_of, rows_of

CONFIG: RunConfig = parse_run_config({"data": {"dataset": "sums"}})
REPORT = report_of({"base": 0, "examples": 3, "tuned": 40})
ROWS = rows_of({"base": 0, "examples": 3, "tuned": 40})


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "runs")


@pytest.fixture
def run(store: JobStore) -> Job:
    return store.create(CONFIG)


def evaluation(store: JobStore, run: Job) -> Job:
    return store.create_evaluation(run, EvaluateConfig(run=run.name))


def finish(job: Job) -> None:
    EventLog(job.folder / "events.jsonl").append(ev.Finished(artifact="report.json"))


def test_evaluations_are_numbered_and_listed_newest_first(store: JobStore, run: Job) -> None:
    for _ in range(11):
        evaluation(store, run)
    assert [job.name for job in store.evaluations(run)][:3] == ["11", "10", "9"]
    assert store.publications(run) == []
    assert store.evaluations(run)[0].evaluate_config() == EvaluateConfig(run=run.name)


def test_the_newest_finished_report_is_the_runs(store: JobStore, run: Job) -> None:
    assert newest_report(run) is None
    first, second, third = (evaluation(store, run) for _ in range(3))
    for job in (first, second):
        write_results(job, REPORT, ROWS)
    assert newest_report(run) is None, "written, but not finished"
    finish(first)
    assert newest_report(run) == REPORT
    write_results(second, REPORT.model_copy(update={"seconds": 2.0}), ROWS)
    finish(second)
    finish(third)  # without a report, as after a deletion by hand
    found = newest_report(run)
    assert found is not None
    assert found.seconds == 2.0
    assert read_rows(second) == ROWS


def test_what_cannot_be_read_is_no_report(store: JobStore, run: Job) -> None:
    job = evaluation(store, run)
    finish(job)
    (job.folder / "report.json").write_bytes(REPORT.model_dump_json().encode()[:-20])
    assert read_report(job) is None
    (job.folder / "answers.jsonl").write_bytes(ROWS[0].model_dump_json().encode()[:-5])
    with pytest.raises(JobError, match="cannot be read"):
        read_rows(job)


def test_a_full_disk_leaves_no_half_report(store: JobStore, run: Job) -> None:
    import resource

    job = evaluation(store, run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match=r"answers\.jsonl"):
            write_results(job, REPORT, ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in job.folder.iterdir()] == ["config.json"]


def test_votes_are_appended_and_a_torn_one_is_passed_over(store: JobStore, run: Job) -> None:
    job = evaluation(store, run)
    assert read_votes(job) == []
    add_vote(job, Vote(row=1, best=["tuned"]))
    with (job.folder / "votes.jsonl").open("ab") as file:
        file.write(b'{"row": 2, "be')
    add_vote(job, Vote(row=3, best=[]))
    assert read_votes(job) == [Vote(row=1, best=["tuned"]), Vote(row=3, best=[])]


def test_a_damaged_queue_is_an_empty_one(tmp_path: Path) -> None:
    queue = EvaluationQueue(tmp_path)
    assert queue.read() == []
    queue.write(["local/runs/a/evaluations/1"])
    assert queue.read() == ["local/runs/a/evaluations/1"]
    (tmp_path / ".evaluations.json").write_text("{")
    assert queue.read() == []
