"""A job is a folder: its status follows from its events, and no name leads out of its store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import PublishConfig, RunConfig, parse_run_config
from ftapp.contract.errors import JobError, StorageError
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job, JobStore, ProcessId, Status

CONFIG = parse_run_config({"model": {"id": "Qwen/Qwen3_0.6B"}, "data": {"dataset": "mine"}})
WORKER = ProcessId(pid=4_000_000, created=1000.0)


def started(process: ProcessId = WORKER, at: float = 1001.0) -> ev.Started:
    return ev.Started(pid=process.pid, process_created=process.created, time=datetime.fromtimestamp(at, UTC))


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "runs")


@pytest.fixture
def job(store: JobStore) -> Job:
    return store.create(CONFIG)


def tell(job: Job, *events: ev.Event) -> None:
    log = EventLog(job.folder / "events.jsonl")
    for event in events:
        log.append(event)


def test_a_new_run_is_its_config_in_a_folder(store: JobStore, job: Job) -> None:
    assert job.name.startswith(f"{datetime.now():%Y-%m-%d}-qwen3-0-6b-lora-")
    assert [path.name for path in job.folder.iterdir()] == ["config.json"]
    assert RunConfig.model_validate_json((job.folder / "config.json").read_bytes()) == CONFIG
    assert JobStore(store.folder).get(job.name).run_config() == CONFIG


@pytest.mark.parametrize(
    ("recorded", "events", "stop", "alive", "status"),
    [
        (False, [], False, False, "queued"),
        (False, [], True, False, "stopped"),
        (True, [], False, True, "starting"),
        (True, [started()], False, True, "running"),
        (False, [started()], False, True, "running"),
        (True, [started()], True, True, "stopping"),
        (True, [], False, False, "lost"),
        (True, [started()], False, False, "lost"),
        (True, [started()], True, False, "stopped"),
        (False, [started()], False, False, "lost"),
        (True, [started(), ev.Finished(artifact="adapter")], False, True, "finished"),
        (True, [started(), ev.Finished(artifact="adapter")], True, False, "finished"),
        (True, [started(), ev.Stopped(step=3)], True, False, "stopped"),
        (True, [started(), ev.Failed(message="no")], False, False, "failed"),
        (True, [started(), ev.Failed(message="no"), started()], False, True, "running"),
        (True, [started(), ev.Failed(message="no"), started()], False, False, "lost"),
    ],
)
def test_the_status_is_derived(
    job: Job, recorded: bool, events: list[ev.Event], stop: bool, alive: bool, status: Status
) -> None:
    if recorded:
        job.record_process(WORKER)
    if stop:
        job.request_stop()
    tell(job, *events)
    assert job.status(alive) == status
    assert Job(job.folder).status(alive) == status


def test_a_run_taken_up_again_is_starting_until_its_first_word(job: Job) -> None:
    job.record_process(WORKER)
    tell(job, started(), ev.Failed(message="no"))
    assert job.status(False) == "failed"
    second = ProcessId(pid=4_000_001, created=2000.0)
    job.record_process(second)
    assert job.status(True) == "starting"
    assert job.status(False) == "failed"
    tell(job, started(second, 2001.0))
    assert job.status(True) == "running"


def test_a_launcher_in_front_of_the_worker_does_not_outlast_its_last_word(job: Job) -> None:
    job.record_process(ProcessId(pid=4_000_001, created=999.0))
    tell(job, started(), ev.Finished(artifact="adapter"))
    assert job.status(True) == "finished"


def test_a_step_that_is_said_again_replaces_the_first(job: Job) -> None:
    def metrics(step: int, loss: float) -> ev.Metrics:
        return ev.Metrics(step=step, total_steps=4, epoch=step / 4, loss=loss)

    tell(
        job, started(), *(metrics(step, 9) for step in (1, 2, 3)), ev.Evaluation(step=2, loss=9, perplexity=9, tokens=1)
    )
    tell(job, started(), metrics(2, 1), ev.Evaluation(step=2, loss=1, perplexity=1, tokens=1))
    state = job.refresh()
    assert [(m.step, m.loss) for m in state.metrics] == [(1, 9), (2, 1)]
    assert [e.loss for e in state.evaluations] == [1]


def test_events_are_read_as_they_come(job: Job) -> None:
    assert job.refresh().count == 0
    tell(job, started())
    assert job.refresh().count == 1
    tell(job, ev.Note(message="x"), ev.Note(message="y"))
    assert [note.message for note in job.refresh().notes] == ["x", "y"]
    assert job.refresh().count == 3


@pytest.mark.parametrize(
    "name", ["..", ".", "", "/", "/etc", "../runs", "a/b", "a\\b", "a\0b", ".hidden", "A", "x\n", "x" * 200, "missing"]
)
def test_a_name_that_is_no_run_is_refused(store: JobStore, job: Job, name: str) -> None:
    (store.folder / "config.json").write_text("{}")
    (store.folder.parent / "config.json").write_text("{}")
    with pytest.raises(JobError, match="There is no run called"):
        store.get(name)


def test_runs_are_listed_newest_first_and_strangers_are_not(store: JobStore) -> None:
    names = [store.create(CONFIG).name for _ in range(3)]
    (store.folder / ".draft.new").mkdir()
    (store.folder / "no-config").mkdir()
    (store.folder / "file").write_text("")
    found = store.all()
    assert sorted(job.name for job in found) == sorted(names)
    assert [job.created for job in found] == sorted((job.created for job in found), reverse=True)
    assert JobStore(store.folder / "nothing here").all() == []


def test_publications_count_up_inside_their_run(store: JobStore, job: Job) -> None:
    request = PublishConfig(run=job.name)
    (job.folder / "publications" / ".1.new").mkdir(parents=True)  # left by a crash
    made = [store.create_publication(job, request) for _ in range(11)]
    assert [each.name for each in made] == [str(number) for number in range(1, 12)]
    assert [each.name for each in store.publications(job)] == [str(number) for number in range(11, 0, -1)]
    assert made[0].folder.parent == job.folder / "publications"
    assert made[0].publish_config() == request
    assert made[0].status(False) == "queued"


def test_a_store_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        JobStore(tmp_path / "runs").create(CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_config_that_is_gone_is_a_job_error(job: Job) -> None:
    (job.folder / "config.json").unlink()
    with pytest.raises(JobError, match=r"no readable config\.json"):
        job.run_config()


def test_a_process_file_that_is_torn_falls_back_to_the_first_word(job: Job) -> None:
    (job.folder / "process.json").write_text('{"pid": 1, "cre')
    assert job.process() is None
    tell(job, started())
    assert job.process() == WORKER


def test_created_is_when_the_request_was_written(job: Job) -> None:
    assert abs(datetime.now(UTC) - job.created) < timedelta(minutes=1)
