"""Training with real processes: every method learns; stop saves; a killed worker is told as lost and can be resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ftapp.contract import events as ev
from ftapp.contract.errors import DatasetError, ModelError
from ftapp.contract.publication import PublishConfig
from ftapp.store.accelerator import WAITING, held
from ftapp.store.checkpoints import best_step, last_whole
from ftapp.studio import Studio
from ftapp.views import JobView
from tests.integration.conftest import Trained
from tests.models import make
from tests.running import config_for, finish, wait_for, wait_for_step

LONG = {"duration": {"epochs": 500}, "evaluation": {"steps": 10}}


def losses(view: JobView) -> list[float]:  # type: ignore[type-arg]
    return [metrics.loss for metrics in view.state.metrics]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def assert_learned(view: JobView) -> None:  # type: ignore[type-arg]
    assert view.status == "finished", (view.message, view.state)
    assert mean(losses(view)[-3:]) < 0.97 * mean(losses(view)[:3])
    assert view.state.evaluations[-1].loss < view.state.evaluations[0].loss
    assert view.state.evaluations[-1].tokens > 0
    assert view.has_result
    assert {sample.step for sample in view.state.samples} == {e.step for e in view.state.evaluations}
    assert view.state.samples[0].reference.startswith("It is")


def test_lora_learns_and_says_everything(trained: Trained) -> None:
    view = trained.studio.run(trained.run)
    assert_learned(view)
    resolved = view.state.resolved
    assert resolved is not None
    assert resolved.train_rows + resolved.eval_rows == 96
    assert resolved.total_steps == view.state.metrics[-1].step == view.state.metrics[-1].total_steps
    assert resolved.trainable_parameters == trained.studio.parameters(view.config.model, view.config.method).trainable
    assert resolved.total_parameters == trained.studio.parameters(view.config.model, view.config.method).total
    assert resolved.values["data.max_length"] != "auto"
    assert resolved.values["method.target_modules"].startswith("2 q_proj, 2 k_proj")
    assert view.state.started is not None
    assert "torch" in view.state.started.versions
    config = (trained.folder / "adapter" / "adapter_config.json").read_text()
    assert str(trained.base.parent) not in config


def test_activations_that_are_computed_again_change_nothing(trained: Trained, tmp_path: Path) -> None:
    studio, alone = trained.studio, trained.studio.run(trained.run)
    batch = {"activation_checkpointing": True, "micro_size": 2}
    view = finish(studio, studio.start_training(config_for(studio, trained.base, tmp_path, batch=batch)))
    assert view.status == "finished", view.message
    assert view.state.resolved
    assert view.state.resolved.values["batch.activation_checkpointing"] is True
    assert losses(view) == pytest.approx(losses(alone), rel=1e-4)


def test_experts_get_an_adapter_too(studio: Studio, tmp_path: Path) -> None:
    config = config_for(studio, make("mixtral", tmp_path / "mixtral"), tmp_path, duration={"max_steps": 4})
    view = finish(studio, studio.start_training(config))
    assert view.status == "finished", (view.message, view.hint)
    told = view.state.resolved
    assert told
    assert told.trainable_parameters == studio.parameters(config.model, config.method).trainable
    assert "2 experts" in told.values["method.target_modules"]
    assert "base_layer" not in told.values["method.target_modules"]
    assert losses(view)[-1] < losses(view)[0]


@pytest.mark.parametrize("method", ["qlora", "full"])
def test_qlora_and_full_learn(studio: Studio, tiny_llama: Path, tmp_path: Path, method: str) -> None:
    view = finish(studio, studio.start_training(config_for(studio, tiny_llama, tmp_path, method)))
    assert_learned(view)
    number = studio.publish(PublishConfig(run=view.name, artifact="merged"))
    made = wait_for(lambda: (one := studio.publication(view.name, number)) and not one.active and one, "the merge")
    assert made.status == "finished", made.message
    folder = studio.artifact_folder(view.name, number)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    if method == "qlora":  # into the base as its files have it, in 16 bit, and not as it was trained on
        assert made.state.verified
        assert made.state.verified.passed
        assert {path.name for path in folder.glob("*.safetensors")} == {
            path.name for path in tiny_llama.glob("*.safetensors")
        }


def test_stop_saves_an_adapter_that_loads(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    run = studio.start_training(config_for(studio, tiny_llama, tmp_path, **LONG))
    wait_for_step(studio, run, 3)
    studio.stop(run)
    view = finish(studio, run)
    assert view.status == "stopped"
    assert isinstance(view.state.end, ev.Stopped)
    assert view.state.end.step >= 3
    # the last weights were measured like the others, and the best of all are kept
    best = min(view.state.evaluations, key=lambda evaluation: evaluation.loss)
    assert view.state.evaluations[-1].step == view.state.end.step
    assert view.state.end.best_step == best.step == best_step(last_whole(view.folder / "checkpoints"))
    kept = view.folder / "checkpoints" / f"checkpoint-{best.step}" / "adapter_model.safetensors"
    saved = load_file(view.folder / "adapter" / "adapter_model.safetensors")
    assert {name: tensor.tolist() for name, tensor in load_file(kept).items()} == {
        name: tensor.tolist() for name, tensor in saved.items()
    }
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), view.folder / "adapter")
    changed = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert changed
    assert all(p.abs().sum() > 0 for p in changed)


def test_a_killed_worker_is_lost_and_can_be_resumed(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    run = studio.start_training(config_for(studio, tiny_llama, tmp_path, **LONG))
    wait_for(lambda: studio.run(run).state.checkpoints, "a checkpoint")
    started = studio.run(run).state.started
    assert started is not None
    os.kill(started.pid, signal.SIGKILL)
    view = finish(studio, run)
    assert view.status == "lost"
    assert "killed" in view.message
    assert "checkpoint" in view.hint
    step = view.state.metrics[-1].step
    studio.resume(run)
    wait_for(lambda: (m := studio.run(run).state.metrics) and m[-1].step > step + 1, "steps after the kill")
    view = studio.run(run)
    assert view.status == "running"
    steps = [metrics.step for metrics in view.state.metrics]
    assert steps == sorted(set(steps)), "each step is told once"
    assert any("Goes on from checkpoint-" in note.message for note in view.state.notes)
    studio.kill(run)
    assert finish(studio, run).status == "stopped"


def test_a_second_run_waits_for_the_first(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    config = config_for(studio, tiny_llama, tmp_path, **LONG)
    first = studio.start_training(config)
    second = studio.start_training(config_for(studio, tiny_llama, tmp_path, duration={"max_steps": 2}))
    wait_for_step(studio, first, 1)
    assert studio.run(second).status == "queued"
    studio.kill(first)
    studio.scheduler.tick()
    assert finish(studio, second).status == "finished"


def test_the_worker_ignores_the_end_of_its_parent_and_stops_before_it_begins(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    run = studio.start_training(config_for(studio, tiny_llama, tmp_path, **LONG))
    started = wait_for(lambda: studio.run(run).state.started, "the start")
    assert os.getsid(started.pid) != os.getsid(0)
    assert not psutil.Process(started.pid).net_connections()

    studio.stop(run)  # it still loads its libraries: there is nothing to save yet
    view = finish(studio, run)
    assert (view.status, view.message) == ("stopped", "Stopped before the first step")
    assert view.state.metrics == []
    assert not view.has_result


def test_models_that_cannot_be_used_are_refused_before_a_run_exists(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    config = config_for(studio, tiny_llama, tmp_path, model={"id": str(tmp_path / "nothing")})
    with pytest.raises(ModelError, match="not a model's folder"):
        studio.start_training(config)
    with pytest.raises(DatasetError, match="no dataset called"):
        studio.start_training(config_for(studio, tiny_llama, tmp_path, data={"dataset": "nothing"}))
    assert studio.runs() == []


def test_a_model_that_transformers_does_not_know_fails_in_plain_words(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    import shutil

    strange = shutil.copytree(tiny_llama, tmp_path / "strange")
    text = (strange / "config.json").read_text()
    (strange / "config.json").write_text(text.replace('"llama"', '"unheard-of"'))
    view = finish(studio, studio.start_training(config_for(studio, strange, tmp_path)))
    assert view.status == "failed"
    assert "strange cannot be loaded" in view.message
    assert "Traceback" not in view.message + view.hint
    assert isinstance(view.state.end, ev.Failed)
    assert "Traceback" in view.state.end.traceback


def test_over_long_rows_are_left_out_and_counted(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    config = config_for(studio, tiny_llama, tmp_path, data={"max_length": 16}, duration={"max_steps": 1})
    view = finish(studio, studio.start_training(config))
    assert view.status == "failed"
    assert "fits into 16 tokens" in view.message


def test_early_stopping_ends_a_run_that_gets_no_better(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    config = config_for(
        studio, tiny_llama, tmp_path, optim={"learning_rate": 1e-30}, duration={"epochs": 10},
        evaluation={"steps": 2, "early_stopping_patience": 1},
    )  # fmt: skip
    view = finish(studio, studio.start_training(config))
    assert view.status == "finished", view.message
    assert [evaluation.step for evaluation in view.state.evaluations] == [2, 4]
    assert view.state.metrics[-1].step == 4 < view.state.metrics[-1].total_steps
    from ftapp.workers.arguments import early_stopping

    [callback] = early_stopping(config, view.folder / "checkpoints" / "checkpoint-4")
    assert callback.early_stopping_patience_counter == 1, "a resumed run goes on counting"


def test_the_terminal_tries_two_steps_and_says_how_long_the_whole_would_take(
    studio: Studio, tiny_llama: Path, tmp_path: Path, home: Path
) -> None:
    config = config_for(studio, tiny_llama, tmp_path, duration={"epochs": 50})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "ftapp", "train", str(tmp_path / "config.json"), "--two-steps"]
    done = subprocess.run(command, env=os.environ | {"FTAPP_HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The whole run: " in done.stdout
    assert "from two steps of this model with lora" in done.stdout
    [tried] = studio.runs()
    assert tried.state.metrics[-1].step == tried.state.metrics[-1].total_steps == 2


def test_a_run_waits_while_a_publication_is_checked_on_the_accelerator(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    config = config_for(studio, tiny_llama, tmp_path, duration={"max_steps": 2})
    with held(studio.settings.home):
        run = studio.start_training(config)
        wait_for(lambda: (phase := studio.run(run).state.phase) and phase.name == WAITING, "the wait")
    assert finish(studio, run).status == "finished"
