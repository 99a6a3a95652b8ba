"""Several processes that train one model together, on the CPU: they finish, stop and end as one."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ftapp.contract import events as ev
from ftapp.processes.child import alive
from ftapp.settings import read_settings
from ftapp.studio import Studio
from ftapp.views import RunView
from tests.integration.conftest import Trained
from tests.running import config_for, finish, wait_for, wait_for_step

LONG = {"duration": {"epochs": 500}, "evaluation": {"steps": 10}}


@pytest.fixture
def pair(home: Path) -> Studio:
    return Studio(replace(read_settings(), devices=2))


def family(view: RunView) -> list[psutil.Process]:
    """The process that started the ranks, and the ranks in their order."""
    started = wait_for(lambda: view.state.started, "the start")
    launcher = psutil.Process(psutil.Process(started.pid).ppid())
    return [launcher, *sorted(launcher.children(), key=lambda child: int(child.environ()["RANK"]))]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_two_ranks_train_what_one_trains(pair: Studio, trained: Trained, tmp_path: Path) -> None:
    run = pair.start_training(config_for(pair, trained.base, tmp_path))
    view, alone = finish(pair, run), trained.studio.run(trained.run)
    assert view.status == "finished", (view.message, view.state.end)
    assert view.state.started
    assert view.state.started.world_size == 2
    assert alone.state.resolved
    assert view.state.resolved
    assert view.state.resolved.total_steps == alone.state.resolved.total_steps
    assert [m.step for m in view.state.metrics] == [m.step for m in alone.state.metrics], "rank 0 alone tells"
    assert view.state.resolved.values["batch.micro_size"] == 4, "the batch of 8 is shared"
    for now, then in zip(view.state.metrics, alone.state.metrics, strict=True):
        assert now.loss == pytest.approx(then.loss, rel=1e-5), "no row is trained twice in an epoch"
    for evaluation, other in zip(view.state.evaluations, alone.state.evaluations, strict=True):
        assert evaluation.tokens == other.tokens, "no row is measured twice"
        assert evaluation.loss == pytest.approx(other.loss, rel=1e-5)
    assert len(view.state.samples) == len(alone.state.samples)
    assert view.has_result
    assert not (view.folder / "tokens").exists()


def test_two_ranks_stop_together_and_save(pair: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    run = pair.start_training(config_for(pair, tiny_llama, tmp_path, **LONG))
    processes = family(wait_for_step(pair, run, 2))
    pair.stop(run)
    view = finish(pair, run)
    assert view.status == "stopped"
    assert isinstance(view.state.end, ev.Stopped)
    assert view.has_result
    wait_for(lambda: gone(processes), "all processes have ended", 60)


def test_when_one_is_killed_all_end(pair: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    run = pair.start_training(config_for(pair, tiny_llama, tmp_path, **LONG))
    processes = family(wait_for_step(pair, run, 2))
    assert len(processes) == 3
    os.kill(processes[2].pid, signal.SIGKILL)
    wait_for(lambda: gone(processes), "all processes have ended", 60)
    view = finish(pair, run)
    assert (view.status, view.kind) == ("failed", "process")
    assert "Process 2 of the 2 that train together was ended by SIGKILL" in view.message


def test_two_ranks_that_were_stopped_go_on_as_if_they_had_not_been(
    pair: Studio, tiny_llama: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changes = {"duration": {"max_steps": 60, "epochs": 500}, "evaluation": {"steps": 30, "keep_best": False}}
    run = pair.start_training(config_for(pair, tiny_llama, tmp_path, **changes))
    wait_for_step(pair, run, 3)
    pair.stop(run)
    stopped = finish(pair, run).state.end
    assert isinstance(stopped, ev.Stopped)
    assert 3 <= stopped.step < 60
    wait_for(lambda: not alive(pair.run(run).job.process()), "its processes have ended", 60)
    pair.resume(run)
    alone = Studio(replace(pair.settings, home=tmp_path_factory.mktemp("alone"), devices=1))
    other = finish(alone, alone.start_training(config_for(alone, tiny_llama, tmp_path / "alone", **changes)))
    view = finish(pair, run)
    assert (view.status, other.status) == ("finished", "finished"), view.message
    assert view.state.resolved
    assert view.state.resolved.start_step == stopped.step
    told = [metrics.loss for metrics in view.state.metrics]
    assert told == pytest.approx([metrics.loss for metrics in other.state.metrics], rel=1e-5)
