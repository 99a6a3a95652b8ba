"""Runs that are there: listed from summaries that never lie, named, compared, deleted, and put in order."""

import json
import os
import threading
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
from safetensors.numpy import save_file

from ftapp.contract import events as ev
from ftapp.contract.config import parse_run_config
from ftapp.contract.errors import JobError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.publication import PublishConfig
from ftapp.people import Person
from ftapp.processes.child import alive, start_detached, stop_tree
from ftapp.settings import read_settings
from ftapp.store.jobs import Job, ProcessId
from ftapp.studio import Studio
from ftapp.ui import publication as publishing
from tests.running import end, wait_for, write_rows


@pytest.fixture
def studio(home: Path) -> Studio:
    return Studio(read_settings())


def restarted() -> Studio:
    """What a new web process sees."""
    return Studio(read_settings())


def add_run(studio: Studio, age: float = 0, **sections: Any) -> Job:
    """A run that nobody has started, created so many seconds ago."""
    job = studio._jobs.create(parse_run_config({"data": {"dataset": "sums"}} | sections))
    now = datetime.now().timestamp() - age
    os.utime(job.folder / "config.json", (now, now))
    return job


def settle(*jobs: Job) -> None:
    """As if nothing had happened to them for an hour."""
    for job in jobs:
        os.utime(job.folder, (1e9, 1e9))


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every log that is read from now on."""
    read: list[Path] = []
    opened = Path.open

    def note(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "events.jsonl":
            read.append(path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", note)
    return read


def test_a_row_says_what_became_of_the_run(studio: Studio) -> None:
    add_run(studio, 10, model={"id": "Qwen/Qwen3-0.6B"}, method={"type": "qlora"})
    end(add_run(studio, 20), ev.Finished(artifact="adapter"), losses=(3.0, 2.0, 2.5))
    end(add_run(studio, 30), ev.Failed(message="no", traceback="x" * 10_000))
    end(add_run(studio, 40))
    rows = studio.history()
    assert [row.status for row in rows] == ["queued", "finished", "failed", "lost"]
    assert (rows[0].model, rows[0].method, rows[0].rows, rows[0].step) == ("Qwen/Qwen3-0.6B", "qlora", 0, 0)
    assert (rows[1].best_eval_loss, rows[1].last_loss, rows[1].rows, rows[1].dataset) == (2.0, 3.5, 100, "sums")
    assert (rows[1].step, rows[1].total_steps, rows[1].seconds) == (3, 3, 13.0)
    assert [view.status for view in studio.runs()] == [row.status for row in rows]
    assert studio.runs()[2].message == "no"
    assert [(row.name, row.status) for row in studio.history()] == [(row.name, row.status) for row in rows]


def test_strangers_are_not_listed(studio: Studio) -> None:
    job = add_run(studio)
    for name in (".draft.new", "no-config"):
        (studio.folder / "runs" / name).mkdir()
    (studio.folder / "runs" / "file").write_text("")
    assert [row.name for row in studio.history()] == [view.name for view in studio.runs()] == [job.name]


def spoil(job: Job) -> Job:
    """Let its config be one that this version cannot read."""
    path = job.folder / "config.json"
    written = path.stat().st_mtime
    path.write_text('{"unheard_of": 1}')
    os.utime(path, (written, written))
    return job


def test_a_run_whose_config_cannot_be_read_is_listed_says_why_and_can_be_deleted(studio: Studio) -> None:
    finished, broken = end(add_run(studio, 30), ev.Finished(artifact="adapter")), add_run(studio, 40)
    (finished.folder / "adapter").mkdir()
    stopped = end(add_run(studio, 20), ev.Stopped(step=2))
    write_checkpoint(stopped.folder / "checkpoints" / "checkpoint-2", 2)
    for job in (finished, broken, stopped):
        settle(spoil(job))
    last = add_run(studio, 10)
    for one in (studio, restarted(), restarted()):
        rows = one.history()
        assert [row.status for row in rows] == ["queued", "stopped", "finished", "failed"]
        assert [(row.method, row.model, row.dataset) for row in rows[1:]] == [("", "", "")] * 3
        assert rows[2].best_eval_loss == 2.0
        views = one.runs()
        assert [view.status for view in views] == [row.status for row in rows]
        for view in views[1:]:
            assert f"The config of run {view.name} cannot be read: " in view.message
            assert "another version of the app" in view.hint
            assert not view.has_result
            with pytest.raises(JobError, match="cannot be read"):
                one.resume(view.name) if view.status != "finished" else one.evaluation_config(view.name)
        assert one.chat_runs() == []
        assert [hit.id for hit in one.recent_models()] == ["demo"]
        assert [waiting.job.name for waiting in one.scheduler.queue()] == [last.name]
        with pytest.raises(JobError, match="cannot be read"):
            one.compare([last.name, broken.name])
    config = last.folder / "config.json"
    (finished.folder / "config.json").write_bytes(config.read_bytes())  # as a version that can read it would
    assert {row.name for row in restarted().history() if row.method} == {last.name, finished.name}
    for job in (finished, broken, stopped):
        studio.delete_run(job.name)
    assert [row.name for row in studio.history()] == [last.name]


def test_a_run_that_cannot_be_read_holds_up_nobody(studio: Studio, tmp_path: Path) -> None:
    broken, behind = add_run(studio, 20), add_run(studio, 10)
    spoil(broken)
    info = studio.add_dataset(write_rows(tmp_path / "rows.jsonl"), "rows.jsonl")
    studio.delete_dataset(info.id)
    studio.scheduler.tick()
    assert behind.process()
    assert broken.process() is None
    stop_tree(behind.process())
    assert studio.run(broken.name).status == "failed"


def test_one_that_waits_again_once_it_can_be_read_was_not_forgotten(studio: Studio) -> None:
    job = add_run(studio)
    text = (job.folder / "config.json").read_text()
    settle(spoil(job))
    assert studio.history()[0].status == "failed"
    (job.folder / "config.json").write_text(text)
    assert [(row.status, row.dataset) for row in studio.history()] == [("queued", "sums")]
    assert [waiting.job.name for waiting in studio.scheduler.queue()] == [job.name]


def test_an_evaluation_or_a_publication_that_cannot_be_read_breaks_no_page(studio: Studio) -> None:
    job = end(add_run(studio, 10), ev.Finished(artifact="adapter"))
    evaluation = studio._jobs.create_evaluation(job, EvaluateConfig(run=job.name))
    studio.scheduler.enqueue(evaluation)
    behind = add_run(studio)
    spoil(evaluation)
    studio.scheduler.tick()
    assert behind.process(), "the queue goes on"
    stop_tree(behind.process())
    [seen] = studio.evaluations(job.name)
    assert (seen.status, "evaluation 1 cannot be read" in seen.message) == ("failed", True)
    end(publication := studio._jobs.create_publication(job, PublishConfig(run=job.name)), ev.Finished(artifact="x"))
    spoil(publication)
    [told] = studio.publications(job.name)
    assert "publication 1 cannot be read" in publishing.head(told)
    assert publishing.result(studio, told) == ""
    assert "Finished" in publishing.earlier([told])
    with pytest.raises(JobError, match="cannot be read"):
        studio.publish_again(job.name, "1")


def test_an_ended_run_is_read_once_even_by_other_processes(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    done = end(add_run(studio, 10), ev.Finished(artifact="adapter"))
    lost, waits = end(add_run(studio, 20)), add_run(studio)
    settle(done, lost)
    read = count_readings(monkeypatch)
    rows = studio.history()
    assert sorted({path.parent.name for path in read}) == sorted([done.name, lost.name, waits.name])
    for one in (studio, restarted(), restarted()):
        del read[:]
        assert one.history() == rows
        assert [view.status for view in one.runs()] == [row.status for row in rows]
        assert [waiting.job.name for waiting in one.scheduler.queue()] == [waits.name]
        assert {path.parent.name for path in read} <= {waits.name}


def test_a_summary_does_not_outlive_what_it_was_made_of(studio: Studio) -> None:
    job = end(add_run(studio), ev.Stopped(step=2))
    settle(job)
    assert studio.history()[0].status == "stopped"
    assert studio.scheduler.queue() == []
    other = restarted()
    other._jobs.get(job.name).request_resume()  # as the terminal would
    assert [waiting.job.name for waiting in studio.scheduler.queue()] == [job.name]
    assert studio.history()[0].status == "queued"
    end(job, ev.Finished(artifact="adapter"), losses=(3.0, 1.0))
    job.record_process(ProcessId(pid=4_000_001, created=2000.0))
    assert [row.status for one in (studio, other, restarted()) for row in one.history()] == ["finished"] * 3
    assert studio.history()[0].best_eval_loss == 1.0


def test_a_broken_or_foreign_summary_file_is_made_anew(studio: Studio) -> None:
    job = end(add_run(studio), ev.Finished(artifact="adapter"))
    settle(job)
    [row] = studio.history()
    file = studio.folder / ".summaries.json"
    for text in ("{", '{"x": {"stamp": "never"}}', "[]"):
        file.write_text(text)
        assert restarted().history() == [row]
    assert job.name in file.read_text()


def test_the_words_of_a_search_are_all_found(studio: Studio) -> None:
    qwen = add_run(studio, 1, model={"id": "Qwen/Qwen3-0.6B"})
    llama = end(add_run(studio, 2, model={"id": "meta/Llama"}, data={"dataset": "poems"}), ev.Failed(message="no"))
    studio.describe_run(llama.name, title="Third try", note="with more RHYMES ")

    def found(words: str) -> list[str]:
        return [row.name for row in studio.history(words)]

    assert found("") == [qwen.name, llama.name]
    assert found("qwen LORA") == [qwen.name]
    assert found("poems failed rhymes third") == [llama.name]
    assert found("qwen poems") == []


def test_a_title_and_a_note_stay_with_the_run(studio: Studio) -> None:
    job = add_run(studio)
    studio.describe_run(job.name, title=" First ", note="as it was")
    studio.describe_run(job.name, note="")
    [row] = restarted().history()
    assert (row.name, row.title, row.note) == (job.name, "First", "")
    assert job.folder.is_dir()
    with pytest.raises(JobError, match="There is no run called"):
        studio.describe_run("missing", title="x")


def test_a_run_is_deleted_with_its_files_but_not_while_it_works(studio: Studio, tmp_path: Path) -> None:
    job, other = end(add_run(studio), ev.Finished(artifact="adapter")), add_run(studio)
    with pytest.raises(JobError, match="waits or is at work"):
        studio.delete_run(other.name)
    process = start_detached(["sleep", "60"], os.environ, tmp_path / "log")
    publication = studio._jobs.create_publication(job, PublishConfig(run=job.name))
    publication.record_process(process)
    with pytest.raises(JobError, match="is being published"):
        studio.delete_run(job.name, publications=True)
    stop_tree(process)
    (publication.folder / "adapter").mkdir()
    with pytest.raises(JobError, match="has a publication with files on this machine"):
        studio.delete_run(job.name)
    assert job.folder.is_dir()
    studio.delete_run(job.name, publications=True)
    assert [path.name for path in (studio.folder / "runs").iterdir()] == [other.name]
    assert [row.name for row in studio.history()] == [other.name]


def test_a_publication_that_does_not_stop_is_ended_though_the_app_was_started_anew(
    studio: Studio, tmp_path: Path
) -> None:
    job = end(add_run(studio), ev.Finished(artifact="adapter"))
    publication = studio._jobs.create_publication(job, PublishConfig(run=job.name))
    publication.record_process(process := start_detached(["sleep", "60"], os.environ, tmp_path / "log"))
    psutil.Process(process.pid).suspend()
    studio.stop(job.name, "1")
    assert studio.publication(job.name, "1").status == "stopping"
    assert alive(process)
    os.utime(publication.folder / "stop", (1000, 1000))
    restarted().publications(job.name)
    assert not alive(process)
    assert studio.publication(job.name, "1").status == "stopped"


def test_a_comparison_shows_only_what_differs(studio: Studio) -> None:
    lora = end(add_run(studio, method={"type": "lora", "rank": 8}), ev.Finished(artifact="adapter"))
    full = end(add_run(studio, method={"type": "full"}, seed=7), losses=tuple(float(n) for n in range(2000)))
    compared = studio.compare([lora.name, full.name])
    assert [row.name for row in compared.runs] == [lora.name, full.name]
    assert compared.differences["method.rank"] == [8, None]
    assert compared.differences["seed"] == [42, 7]
    assert "data.dataset" not in compared.differences
    assert compared.curves[0].loss == [(1, 4.0), (2, 3.0)]
    assert compared.curves[0].eval_loss == [(1, 3.0), (2, 2.0)]
    assert len(compared.curves[1].loss) <= 502
    assert [point[0] for point in (compared.curves[1].loss[0], compared.curves[1].loss[-1])] == [1, 2000]
    assert studio.compare([lora.name]).differences == {}


def test_the_queue_is_put_in_order_and_stays_so(studio: Studio) -> None:
    jobs = [add_run(studio, 100 - number) for number in range(4)]
    stranger = Studio(read_settings(), Person("bob"))
    add_run(stranger, 98.5)
    first, second, third, fourth = (job.name for job in jobs)

    def order() -> list[str]:
        entries = restarted().queue()
        assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
        return [entry.name if entry.mine else "another's" for entry in entries]

    assert order() == [first, "another's", second, third, fourth], "everybody's first comes before anybody's second"
    studio.move(fourth, -100)
    assert order() == [fourth, "another's", first, second, third], "nobody moves another's run"
    studio.move(first, 1)
    assert order() == [fourth, "another's", second, first, third]
    studio.unqueue(second)
    assert second not in order()
    assert studio.run(second).status == "stopped"
    with pytest.raises(JobError, match="does not wait"):
        studio.move(second, 1)
    with pytest.raises(JobError, match="does not wait"):
        studio.unqueue(second)
    newest = add_run(studio)
    assert order()[-1] == newest.name


def write_checkpoint(folder: Path, step: int) -> None:
    """The files of a whole checkpoint, as small as they can be."""
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    for name in ("optimizer.pt", "scheduler.pt"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data", "")
    save_file({"a": numpy.zeros(1)}, folder / "adapter_model.safetensors")


def test_the_terms_of_a_resume(studio: Studio, tmp_path: Path) -> None:
    busy = add_run(studio)
    busy.record_process(process := start_detached(["sleep", "60"], os.environ, tmp_path / "log"))
    taken_out, stopped = add_run(studio), end(add_run(studio), ev.Stopped(step=2))
    studio.unqueue(taken_out.name)
    with pytest.raises(JobError, match="has no whole checkpoint"):
        studio.resume(stopped.name)
    write_checkpoint(stopped.folder / "checkpoints" / "checkpoint-2", 2)
    studio.resume(stopped.name)
    studio.resume(taken_out.name)
    assert [entry.name for entry in studio.queue()] == [stopped.name, taken_out.name]
    assert {studio.run(name).status for name in (stopped.name, taken_out.name)} == {"queued"}
    with pytest.raises(JobError, match="is not interrupted"):
        studio.resume(stopped.name)
    studio.unqueue(stopped.name)
    assert studio.run(stopped.name).status == "stopped"
    studio.unqueue(taken_out.name)
    stop_tree(process)


def test_the_first_in_the_queue_is_started_when_the_machine_is_free(studio: Studio, tmp_path: Path) -> None:
    busy, later, first = add_run(studio, 30), add_run(studio, 20), add_run(studio, 10)
    busy.record_process(process := start_detached(["sleep", "60"], os.environ, tmp_path / "log"))
    studio.move(first.name, -1)
    closing = threading.Event()
    thread = threading.Thread(target=restarted().scheduler.keep_ticking, args=(closing, 0.05))
    thread.start()
    assert studio.queue()[0].name == first.name
    stop_tree(process)
    wait_for(lambda: first.process(), "the first is started")
    closing.set()
    thread.join()
    assert later.process() is None
    stop_tree(first.process())


def test_a_start_whose_worker_cannot_be_launched_says_that_the_run_waits(studio: Studio) -> None:
    first = add_run(studio, 10)
    first.output.mkdir()  # no worker can write there
    with pytest.raises(JobError, match=r"waits in the queue\. The worker could not be started") as refused:
        studio.start_training(studio.demo_config())
    assert "tries again by itself" in refused.value.hint
    assert len(studio.queue()) == 2


def test_the_duration_is_estimated_from_past_runs(studio: Studio, tmp_path: Path) -> None:
    info = studio.add_dataset(write_rows(tmp_path / "sums.jsonl", count=100), "sums.jsonl")
    settings = {"model": {"id": "demo"}, "duration": {"epochs": 4}}
    config = parse_run_config({**settings, "data": {"dataset": info.id, "eval_fraction": 0.25}})
    assert studio.duration(config, 1000) is None
    losses = tuple(2.0 for _ in range(11))  # 50 tokens a second, and 10 s before
    end(add_run(studio, 5, method={"type": "full"}, model={"id": "demo"}), losses=losses)
    assert studio.duration(config, 1000) is None, "another method"
    other = end(add_run(studio, 4, model={"id": "x/thousand"}), losses=losses)
    assert (scaled := studio.duration(config, 1000)) is not None
    ratio = studio.parameters(config.model, config.method).total / 1000
    assert scaled.tokens == 3000
    assert scaled.low < 60 * ratio + 11 < scaled.high
    assert "another model, scaled" in scaled.basis
    end(add_run(studio, 6, model={"id": "demo"}), losses=losses[:2])
    assert (tried := studio.duration(config, 1000)) is not None
    assert "from two steps of this model with lora on CPU" in tried.basis
    assert tried.low < 71 < tried.high
    end(add_run(studio, 3, model={"id": "demo"}), losses=losses)
    assert (same := studio.duration(config, 1000)) is not None
    assert same.low < 71 < same.high
    assert same.high / same.low < 1.5
    assert "an earlier run of this model with lora on CPU" in same.basis
    assert same.dollars_low is None
    short = config.model_copy(update={"duration": config.duration.model_copy(update={"max_steps": 5})})
    assert (few := studio.duration(short, 1000)) is not None
    assert few.tokens == 5 * 16 * 10
    unknown = config.model_copy(update={"model": config.model.model_copy(update={"id": str(tmp_path)})})
    assert studio.duration(unknown, 1000) is None
    studio.delete_run(other.name)
