"""A job is a folder: its status follows from its events, and no name leads out of its store."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.errors import JobError, StorageError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.publication import PublishConfig
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job, Outline, ProcessId, Status
from ftapp.store.runs import LOADED, JobStore

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


def metric(step: int, seconds: float | None, total: int = 40) -> ev.Metrics:
    return ev.Metrics(step=step, total_steps=total, epoch=step / 40, loss=1, seconds=seconds)


def evaluation(step: int, seconds: float | None = None) -> ev.Evaluation:
    return ev.Evaluation(step=step, loss=1, perplexity=1, tokens=1, seconds=seconds)


def resolved(start: int | None = 0) -> ev.Resolved:
    return ev.Resolved(values={"evaluation.steps": 10}, train_rows=1, eval_rows=1, start_step=start)


def test_what_comes_after_the_checkpoint_is_forgotten_when_it_is_done_again(job: Job) -> None:
    def step(number: int, answer: str) -> list[ev.Event]:
        samples = [ev.Sample(step=number, prompt=str(n), answer=answer, reference="") for n in range(2)]
        return [metric(number, 1.0), *samples, evaluation(number), ev.Checkpoint(step=number, name=f"c-{number}")]

    tell(job, started(), resolved(), *(event for number in (5, 10, 15) for event in step(number, "first")))
    assert [sample.step for sample in job.refresh().samples] == [5, 5, 10, 10, 15, 15]
    tell(job, started(), resolved(10))
    state = job.refresh()
    for told in (state.metrics, state.evaluations, state.checkpoints):
        assert [event.step for event in told] == [5, 10]
    assert [sample.step for sample in state.samples] == [5, 5, 10, 10]
    tell(job, *step(15, "second"))
    job.refresh()
    assert [(sample.step, sample.answer) for sample in state.samples][-3:] == [(10, "first")] + [(15, "second")] * 2
    assert job.refresh() == Job(job.folder).refresh()


def test_samples_of_an_older_log_are_replaced_too(job: Job) -> None:
    def sample(step: int, answer: str) -> ev.Sample:
        return ev.Sample(step=step, prompt="", answer=answer, reference="")

    tell(job, started(), resolved(None), sample(5, "a"), sample(5, "a"), sample(10, "a"))
    tell(job, started(), resolved(None), sample(5, "b"), sample(5, "b"))
    assert [(one.step, one.answer) for one in job.refresh().samples] == [(5, "b"), (5, "b")]


def test_the_time_to_go_counts_steps_and_evaluations(job: Job) -> None:
    state = job.refresh()
    assert state.remaining_seconds() is None
    tell(job, started(), resolved(), metric(1, 5.0))
    job.refresh()
    assert state.remaining_seconds() is None, "one step may have been slow to start"
    tell(job, metric(2, 7.0), metric(3, 9.0))
    job.refresh()
    assert state.remaining_seconds() == 37 * 2.0, "evaluations are not known yet"
    tell(job, *(metric(step, 3.0 + 2 * step) for step in range(4, 11)))
    job.refresh()
    assert state.remaining_seconds() == 30 * 2.0
    tell(job, evaluation(10, 4.0))
    job.refresh()
    assert state.remaining_seconds() == 30 * 2.0 + 3 * 4.0, "at 20, 30 and 40"
    tell(job, metric(11, 25.0))
    job.refresh()
    assert state.remaining_seconds() == 29 * 2.0 + 3 * 4.0, "an evaluation is no slow step"


def test_the_time_to_go_right_after_a_resume_is_that_of_the_checkpoint(job: Job) -> None:
    tell(job, started(), resolved(), *(metric(step, 2.0 * step) for step in range(1, 16)), evaluation(10, 4.0))
    tell(job, started(), resolved(10))
    state = job.refresh()
    assert state.remaining_seconds() == 30 * 2.0 + 3 * 4.0
    tell(job, metric(11, 9.0))
    job.refresh()
    assert state.remaining_seconds() == 29 * 2.0 + 3 * 4.0, "the first step alone says little"
    tell(job, metric(12, 10.0), metric(13, 11.0))
    job.refresh()
    assert state.remaining_seconds() == 27 * 1.0 + 3 * 4.0, "the new process's own pace"
    tell(job, *(metric(step, step - 2.0) for step in range(14, 41)))
    job.refresh()
    assert state.remaining_seconds() == 4.0, "the last evaluation"
    tell(job, evaluation(40, 4.0))
    job.refresh()
    assert state.remaining_seconds() == 0.0


def test_steps_without_a_time_say_nothing_of_the_time_to_go(job: Job) -> None:
    tell(job, started(), metric(1, None), metric(2, None))
    assert job.refresh().remaining_seconds() is None


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


def test_a_request_to_resume_lasts_until_a_new_process_or_a_stop(job: Job) -> None:
    job.record_process(WORKER)
    tell(job, started(), ev.Stopped(step=3))
    job.request_stop()
    job.request_resume()
    assert (job.status(False), job.status(True)) == ("queued", "stopping")
    assert Job(job.folder).status(False) == "queued"
    os.utime(job.folder / "resume", (1000, 1000))
    assert job.end_requested == 1000, "its process is to go"
    job.request_stop()
    assert (job.status(False), job.status(True)) == ("stopped", "stopped")
    job.request_resume()
    job.record_process(ProcessId(pid=4_000_001, created=2000.0))
    assert job.status(False) == "stopped"


def test_the_outline_of_a_log_adds_up_to_the_same_but_for_most_metrics(job: Job) -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)

    def at(second: int, step: int) -> ev.Metrics:
        return ev.Metrics(step=step, total_steps=9, epoch=0, loss=step, time=begun + timedelta(seconds=second))

    tell(job, started(at=begun.timestamp()), *(at(step, step) for step in range(1, 7)))
    tell(job, ev.Evaluation(step=6, loss=2, perplexity=1, tokens=1, time=begun + timedelta(seconds=8)))
    tell(job, started(at=begun.timestamp() + 1000), at(1001, 5), at(1002, 6), at(1003, 7))
    tell(job, ev.Note(message='says "type":"metrics"', time=begun + timedelta(seconds=1004)))
    with (job.folder / "events.jsonl").open("ab") as file:
        file.write(b'not json\n{"time":"2026-01-01T00:00:00Z","type":"metrics"}\n{"time":"20')
    whole, outline = job.refresh(), Outline(job.folder).refresh()
    assert [metrics.step for metrics in whole.metrics] == [1, 2, 3, 4, 5, 6, 7]
    assert [metrics.step for metrics in outline.metrics] == [1, 5, 7]
    assert outline.evaluations == whole.evaluations
    assert outline.notes == whole.notes
    assert outline.worked_seconds == whole.worked_seconds == 8 + 4


def test_events_that_were_forgotten_are_read_again(store: JobStore, job: Job) -> None:
    tell(job, started(), ev.Note(message="x"))
    assert store.get(job.name).refresh().count == 2
    for _ in range(LOADED):
        store.get(store.create(CONFIG).name)
    assert job.state.count == 0
    assert job.refresh().count == 2


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"data": {"dataset": "x"}, "unheard_of": 1}', "unheard_of is not a field of the config"),
        ('{"data": {"dataset": "x"}, "seed": "many"}', "seed must be a whole number"),
        ('{"data": {"data', "it is not JSON"),
        ("[]", "it must be an object"),
    ],
)
def test_a_config_that_cannot_be_read_says_why_and_does_not_wait(job: Job, text: str, words: str) -> None:
    assert (job.unreadable, job.status(False)) == (None, "queued")
    (job.folder / "config.json").write_text(text)
    with pytest.raises(JobError, match=f"The config of run {job.name} cannot be read: {words}"):
        job.run_config()
    assert job.unreadable
    assert [job.status(alive) for alive in (False, True)] == ["failed", "starting"]
    job.request_resume()
    assert job.status(False) == "failed"
    job.request_stop()
    assert job.status(False) == "stopped"
    assert job.datasets() == set()


def test_so_it_is_with_what_is_asked_of_a_run(store: JobStore, job: Job) -> None:
    publication = store.create_publication(job, PublishConfig(run=job.name))
    evaluation = store.create_evaluation(job, EvaluateConfig(run=job.name))
    for one, read in ((publication, publication.publish_config), (evaluation, evaluation.evaluate_config)):
        assert one.unreadable is None
        (one.folder / "config.json").write_text('{"run": "x", "unheard_of": 1}')
        with pytest.raises(JobError, match="1 cannot be read: unheard_of"):
            read()
        assert (bool(one.unreadable), one.status(False)) == (True, "failed")


def test_of_several_requests_to_stop_the_first_one_counts(job: Job) -> None:
    assert job.end_requested is None
    job.request_stop("too long")
    os.utime(job.folder / "stop", (1000, 1000))
    job.request_stop()
    job.request_stop("another reason")
    assert (job.end_requested, job.stop_reason) == (1000, "too long")


def test_created_is_when_the_request_was_written(job: Job) -> None:
    assert abs(datetime.now(UTC) - job.created) < timedelta(minutes=1)
