"""A run taken up again goes on as if never interrupted, from a whole checkpoint, and only as the same run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import DatasetError, JobError, ModelError
from ftapp.processes.child import alive
from ftapp.settings import read_settings
from ftapp.store.checkpoints import all_checkpoints, is_whole, last_whole
from ftapp.store.eventlog import EventLog, tail
from ftapp.store.jobs import Job
from ftapp.store.pieces import trailer_of
from ftapp.studio import Studio
from ftapp.views import RunView
from tests.integration.conftest import Trained
from tests.running import config_for, finish, wait_for

ROOT = Path(__file__).parents[2]


def figures(view: RunView) -> list[tuple[int, float, float | None]]:
    return [(metrics.step, metrics.loss, metrics.grad_norm) for metrics in view.state.metrics]


@pytest.fixture(scope="module")
def finished(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same run as `trained`, once more, but measured and saved at other steps."""
    folder = tmp_path_factory.mktemp("again")
    studio = Studio(replace(trained.studio.settings, home=folder / "home"))
    config = config_for(studio, trained.base, folder, evaluation={"steps": 8, "keep_best": False})
    run = studio.start_training(config)
    view = finish(studio, run)
    assert view.status == "finished", view.message
    wait_for(lambda: not alive(Job(view.folder).process()), "its process has ended")
    return Trained(studio, run, trained.base)


@pytest.fixture
def killed(finished: Trained, home: Path) -> Trained:
    """A copy of that run as if it had been killed while it wrote its last checkpoint."""
    shutil.copytree(finished.studio.settings.home, home)
    folder = home / "local" / "runs" / finished.run
    shutil.rmtree(folder / "adapter")
    events, _ = tail(folder / "events.jsonl", 0)
    last = max(place for place, event in enumerate(events) if isinstance(event, ev.Checkpoint))
    (folder / "events.jsonl").unlink()
    log = EventLog(folder / "events.jsonl")
    for event in events[:last]:
        log.append(event)
    cut(folder / "checkpoints" / "checkpoint-22" / "optimizer.pt")
    return Trained(Studio(read_settings()), finished.run, finished.base)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def test_the_same_config_and_seed_give_the_same_run(trained: Trained, finished: Trained) -> None:
    one, other = (each.studio.run(each.run) for each in (trained, finished))
    assert figures(one) == figures(other)
    assert one.state.resolved
    assert other.state.resolved
    assert one.state.resolved.data_hash == other.state.resolved.data_hash != ""
    assert one.state.resolved.template_hash == other.state.resolved.template_hash != ""
    assert one.state.remaining_seconds() == 0
    assert all(evaluation.seconds for evaluation in one.state.evaluations)
    assert one.state.evaluations[-1].loss == other.state.evaluations[-1].loss


def test_a_resumed_run_is_the_run_that_was_not_interrupted(finished: Trained, killed: Trained) -> None:
    whole, studio = finished.studio.run(finished.run), killed.studio
    before = studio.run(killed.run)
    assert before.status == "lost"
    studio.resume(killed.run)
    view = finish(studio, killed.run)
    assert view.status == "finished", view.message
    messages = [note.message for note in view.state.notes]
    assert "Goes on from checkpoint-16." in messages
    assert any("checkpoint-22 was not written whole" in message for message in messages)
    assert view.state.resolved
    assert view.state.resolved.start_step == 16
    assert [step for step, *_ in figures(view)] == list(range(1, 23))
    for now, then in zip(figures(view), figures(whole), strict=True):
        assert now == pytest.approx(then, rel=1e-4)
    assert view.state.evaluations[-1].loss == pytest.approx(whole.state.evaluations[-1].loss, rel=1e-4)
    assert view.state.metrics[:16] == before.state.metrics[:16], "what came before the checkpoint stands as it was"
    for told in ("evaluations", "samples", "checkpoints"):
        steps = [event.step for event in getattr(view.state, told)]
        assert steps == [event.step for event in getattr(whole.state, told)], told
    assert is_whole(killed.folder / "checkpoints" / "checkpoint-22")


def test_a_run_in_fp16_goes_on_where_no_scaler_is_needed(killed: Trained) -> None:
    import torch

    scaler = torch.amp.GradScaler("cpu").state_dict()  # as a GPU without bf16 leaves it
    torch.save(scaler, killed.folder / "checkpoints" / "checkpoint-16" / "scaler.pt")
    killed.studio.resume(killed.run)
    view = finish(killed.studio, killed.run)
    assert view.status == "finished", view.message
    assert [note for note in view.state.notes if "computed in fp16 before" in note.message]


def start_app(home: Path, mount: Path) -> subprocess.Popen[bytes]:
    """The app as it is run in a Space with a volume; its watching starts when it serves."""
    env = os.environ | {"FTAPP_HOME": str(home), "FTAPP_VOLUME": str(mount), "FTAPP_PORT": "0"}
    return subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stderr=subprocess.DEVNULL)


def test_a_run_cut_with_its_machine_is_resumed_from_the_volume(finished: Trained, killed: Trained, home: Path) -> None:
    mount, whole, before = home.parent / "data", finished.studio.run(finished.run), killed.studio.run(killed.run)
    mount.mkdir()
    app = start_app(home, mount)
    try:
        wait_for(lambda: [p for p in mount.rglob("checkpoint-16.*.tar") if trailer_of(p)], "it is on the volume")
        wait_for(lambda: not list(home.glob(".keeping-*")), "so is all else")
    finally:
        app.kill()
        app.wait()
    shutil.rmtree(home)  # the Space restarts
    app = start_app(home, mount)
    try:
        studio = Studio(read_settings())
        wait_for(lambda: studio.history(), "it is taken back")
        back = studio.run(killed.run)
        assert (back.status, back.state.metrics) == ("lost", before.state.metrics)
        assert last_whole(back.folder / "checkpoints") == back.folder / "checkpoints" / "checkpoint-16"
        studio.resume(killed.run)
        view = finish(studio, killed.run)
        assert view.status == "finished", view.message
        for now, then in zip(figures(view), figures(whole), strict=True):
            assert now == pytest.approx(then, rel=1e-4)
        wait_for(lambda: list(mount.rglob("result.*.tar")), "the result is on the volume")
    finally:
        app.terminate()
        app.wait()


def test_a_dataset_that_has_changed_is_refused_before_anything_starts(killed: Trained) -> None:
    studio, dataset = killed.studio, killed.studio.run(killed.run).config.data.dataset
    with (killed.folder / "dataset.json").open() as file:
        record = json.load(file)
    (killed.folder / "dataset.json").write_text(json.dumps({**record, "used": 90}))
    with pytest.raises(DatasetError, match="90 of its rows were used then, 96 now"):
        studio.resume(killed.run)
    (killed.folder / "dataset.json").write_text(json.dumps({**record, "edits": ["drop_duplicates"]}))
    with pytest.raises(DatasetError, match="other fixes"):
        studio.resume(killed.run)
    studio.delete_dataset(dataset)
    with pytest.raises(DatasetError, match="no dataset"):
        studio.resume(killed.run)
    assert studio.run(killed.run).status == "lost"


BREAKS: dict[str, Callable[[Path], None]] = {
    "optimizer cut": lambda folder: cut(folder / "optimizer.pt"),
    "optimizer empty": lambda folder: (folder / "optimizer.pt").write_bytes(b""),
    "optimizer's start lost": lambda folder: (folder / "optimizer.pt").write_bytes(
        (folder / "optimizer.pt").read_bytes()[512:]
    ),
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "no schedule": lambda folder: (folder / "scheduler.pt").unlink(),
    "random state cut": lambda folder: cut(folder / "rng_state.pth"),
    "weights cut": lambda folder: cut(folder / "adapter_model.safetensors"),
    "header cut": lambda folder: (folder / "adapter_model.safetensors").write_bytes(
        (folder / "adapter_model.safetensors").read_bytes()[:40]
    ),
    "weights empty": lambda folder: (folder / "adapter_model.safetensors").write_bytes(b""),
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "state cut": lambda folder: cut(folder / "trainer_state.json"),
    "no state": lambda folder: (folder / "trainer_state.json").unlink(),
    "marked": lambda folder: (folder / "checkpoint-is-incomplete.txt").touch(),
    "weights that gave no number": lambda folder: (folder / "trainer_state.json").write_text(
        json.dumps({"global_step": 22, "log_history": [{"loss": 1.0}, {"loss": float("nan")}]})
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_checkpoint_that_is_not_whole_is_passed_over(finished: Trained, tmp_path: Path, broken: str) -> None:
    folder = shutil.copytree(finished.folder / "checkpoints", tmp_path / "checkpoints")
    (folder / "checkpoint-notes").mkdir()
    assert [path.name for path in all_checkpoints(folder)] == ["checkpoint-22", "checkpoint-16"]
    assert last_whole(folder) == folder / "checkpoint-22"
    BREAKS[broken](folder / "checkpoint-22")
    assert last_whole(folder) == folder / "checkpoint-16"


def test_a_run_without_a_whole_checkpoint_cannot_be_resumed(killed: Trained) -> None:
    for checkpoint in all_checkpoints(killed.folder / "checkpoints"):
        cut(checkpoint / "trainer_state.json")
    with pytest.raises(JobError, match="no whole checkpoint"):
        killed.studio.resume(killed.run)


def test_other_rows_or_another_template_are_refused_and_other_libraries_noted(killed: Trained) -> None:
    from ftapp.workers.continuing import Before

    job = Job(killed.folder)
    first = job.refresh().started
    assert first
    versions = {**first.versions, "torch": "1.13.1", "peft": "0.1.0", "trl": first.versions["trl"] + ".post1"}
    log = EventLog(killed.folder / "events.jsonl")
    log.append(first.model_copy(update={"versions": versions, "world_size": 4}))
    log.append(first)
    resolved = job.refresh().resolved
    assert resolved
    before = Before(job)
    with pytest.raises(ModelError, match="chat template has changed"):
        before.check("0" * 64, resolved.data_hash)
    with pytest.raises(DatasetError, match=f"rows have changed since this run began \\({resolved.data_hash[:8]} then"):
        before.check(resolved.template_hash, "0" * 64)
    assert resolved.weights_hash
    before.check_weights(resolved.weights_hash, None)
    with pytest.raises(ModelError, match="weights have changed since this run began"):
        before.check_weights("0" * 64, None)
    with pytest.raises(ModelError, match=f"not those on which {job.name} trained its adapter"):
        Before(Job(killed.folder.with_name("another"))).check_weights("0" * 64, job)
    notes = before.check(resolved.template_hash, resolved.data_hash)
    assert [note.level for note in notes] == ["warning"] * 3
    log.append(resolved.model_copy(update={"values": {"model.revision": "a1b2"}}))
    assert Before(job).model(ModelConfig(id="owner/name")).revision == "a1b2"
    assert Before(job).model(ModelConfig(id="demo")).revision is None
    assert ["torch was 1.13.1" in notes[0].message, "peft was 0.1.0" in notes[1].message] == [True, True]
    assert "4 processes trained before, 1 now" in notes[2].message
