"""Trainings that cannot go on, each cause brought about for real: all end in words, with a kind and a way out."""

import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerControl, TrainerState, TrainingArguments

from ftapp.contract import events as ev
from ftapp.contract.changes import changed
from ftapp.contract.errors import AcceleratorError, NotFinite
from ftapp.contract.remedies import remedy
from ftapp.settings import Settings
from ftapp.studio import Studio
from ftapp.views import RunView
from ftapp.workers.reporting import MEASURING_SECONDS, Reporter
from tests.running import config_for, finish, wait_for


def failure(view: RunView) -> ev.Failed:
    assert view.status == "failed", (view.status, view.message)
    assert isinstance(view.state.end, ev.Failed)
    assert "Traceback" not in view.message + view.hint
    assert str(view.folder.parents[2]) not in view.message + view.hint
    return view.state.end


def altered(tiny_llama: Path, folder: Path, change: Any) -> Path:
    """The tiny model with other weights."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / file).write_bytes((tiny_llama / file).read_bytes())
    return folder


def test_a_base_model_with_damaged_weights_is_told_apart(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    def damage(model: Any) -> None:
        model.model.norm.weight[0] = torch.nan

    base = altered(tiny_llama, tmp_path / "damaged", damage)
    config = config_for(studio, base, tmp_path, evaluation={"steps": 1})
    view = finish(studio, studio.start_training(config))
    end = failure(view)
    assert end.kind == "not_finite"
    assert "not a finite number" in end.message
    assert "base model" in end.message + end.hint
    assert end.changes == {}, "no learning rate would help"
    assert math.isnan(view.state.metrics[0].loss), "a NaN loss is news"
    assert view.state.checkpoints == [], "what is no number is not kept"


@pytest.fixture
def reporter(tmp_path: Path) -> Iterator[Reporter]:
    before = signal.getsignal(signal.SIGTERM)
    yield Reporter(None, tmp_path / "stop")
    signal.signal(signal.SIGTERM, before)


def log(reporter: Reporter, step: int, loss: float, grad_norm: float, **options: Any) -> bool:
    """One step's figures, as the trainer gives them; whether the step may be kept as a checkpoint."""
    args = TrainingArguments(output_dir="unused", learning_rate=0.25, use_cpu=True)
    args.fp16 = options.get("fp16", False)
    control = TrainerControl(should_save=True)
    reporter.on_log(args, TrainerState(global_step=step), control, {"loss": loss, "grad_norm": grad_norm})
    return control.should_save


def test_figures_that_stop_being_numbers_end_the_run_with_a_lower_learning_rate(
    studio: Studio, tiny_llama: Path, tmp_path: Path, reporter: Reporter
) -> None:
    assert log(reporter, 1, 2.0, 1.0)
    assert not log(reporter, 2, 2.0, math.inf)
    assert not log(reporter, 3, math.nan, math.nan)
    assert log(reporter, 4, 2.0, 1.0), "it has recovered"
    assert not log(reporter, 5, math.inf, 1.0)
    assert not log(reporter, 6, 2.0, math.nan)
    with pytest.raises(NotFinite, match=r"loss 2\.0, gradient norm inf.*0\.25 in this run"):
        log(reporter, 7, 2.0, math.inf)
    config = config_for(studio, tiny_llama, tmp_path, optim={"learning_rate": 0.25})
    assert remedy("not_finite", config, None) == {"optim.learning_rate": 0.025}


def test_a_gradient_scaler_may_look_for_its_scale(reporter: Reporter) -> None:
    assert all(log(reporter, step, 2.0, math.inf, fp16=True) for step in range(1, 20))
    with pytest.raises(NotFinite, match="gradient"):
        log(reporter, 20, 2.0, math.inf, fp16=True)
    assert log(reporter, 21, 2.0, 1.0, fp16=True)
    assert not log(reporter, 22, math.nan, math.nan, fp16=True)
    assert not log(reporter, 23, math.nan, math.nan, fp16=True)
    with pytest.raises(NotFinite, match="The loss is not"):
        log(reporter, 24, math.nan, math.nan, fp16=True)


def test_a_model_that_does_not_fit_into_fp16_is_not_called_damaged(reporter: Reporter) -> None:
    assert not any(log(reporter, step, math.nan, math.nan, fp16=True) for step in (1, 2))
    with pytest.raises(NotFinite, match="this GPU has no bf16") as caught:
        log(reporter, 3, math.nan, math.nan, fp16=True)
    assert "damaged" not in caught.value.message
    assert "capability 8.0" in caught.value.hint


def test_a_checkpoint_is_never_long_ago(reporter: Reporter) -> None:
    args = TrainingArguments(output_dir="unused", use_cpu=True)

    def saves(minutes: float, takes: float) -> bool:
        reporter.saved(takes)
        reporter._saved_at -= 60 * minutes
        control = TrainerControl()
        reporter.on_step_end(args, TrainerState(global_step=7, max_steps=9), control)
        return control.should_save

    assert saves(11, takes=1)
    assert not saves(9, takes=1)
    assert not saves(11, takes=60), "a minute of writing in eleven would be too much"
    assert saves(34, takes=60)


def test_a_stop_leaves_a_measurement_a_minute(reporter: Reporter, tmp_path: Path) -> None:
    args = TrainingArguments(output_dir="unused", use_cpu=True, eval_strategy="steps", load_best_model_at_end=True)

    def stops() -> TrainerControl:
        control = TrainerControl()
        return reporter.on_step_end(args, TrainerState(global_step=7, max_steps=9), control)

    assert not reporter.measuring_must_end(args)
    assert not stops().should_training_stop
    (tmp_path / "stop").touch()
    assert not reporter.measuring_must_end(args)
    control = stops()
    assert (control.should_training_stop, control.should_save, control.should_evaluate) == (True, True, True)
    assert control.should_log, "its last loss tells whether a checkpoint can be gone on from"
    assert reporter.unplanned
    args.load_best_model_at_end = False
    assert not stops().should_evaluate, "nobody would look at it"
    due = TrainerControl(should_evaluate=True)
    reporter.on_step_end(args, TrainerState(global_step=7, max_steps=9), due)
    assert due.should_evaluate, "it was due anyway"
    assert not reporter.unplanned
    args.load_best_model_at_end = True
    reporter._asked_at = (reporter._asked_at or 0.0) - MEASURING_SECONDS
    assert reporter.measuring_must_end(args)
    os.kill(os.getpid(), signal.SIGTERM)
    assert not stops().should_evaluate, "five seconds are for saving"


def test_a_model_that_passes_no_gradient_back_is_given_up(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    base = altered(tiny_llama, tmp_path / "mute", lambda model: model.lm_head.weight.zero_())
    view = finish(studio, studio.start_training(config_for(studio, base, tmp_path)))
    end = failure(view)
    assert (end.kind, end.changes) == ("no_gradient", {})
    assert view.state.metrics[-1].step == 3
    assert all(metrics.grad_norm == 0 for metrics in view.state.metrics)


def test_a_lack_of_memory_says_what_to_change(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    """The worker may take 700 MB more than before it loads the model; a step of 16 long rows wants far more."""
    rows = tmp_path / "long.jsonl"
    rows.write_text("".join(f'{{"prompt": "{i}", "completion": "{"word " * 1600}"}}\n' for i in range(20)))
    dataset = studio.add_dataset(rows, rows.name).id
    config = config_for(
        studio,
        tiny_llama,
        tmp_path,
        data={"dataset": dataset, "max_length": 8192, "eval_fraction": 0},
        batch={"effective_size": 16, "micro_size": 16},
    )
    run = studio.start_training(config)
    wait_for(lambda: (phase := studio.run(run).state.phase) and phase.name == "loading", "the model is loaded")
    started = studio.run(run).state.started
    assert started is not None
    worker = psutil.Process(started.pid)
    limit = worker.memory_info().vms + 700 * 10**6
    worker.rlimit(psutil.RLIMIT_AS, (limit, limit))
    end = failure(finish(studio, run))
    assert (end.kind, end.changes) == ("memory", {"batch.micro_size": 8})
    assert end.message == "Out of memory."
    assert any("was made for 256" in note.message for note in studio.run(run).state.notes), "told before"
    assert "8" in end.hint
    smaller = studio.start_changed(run)
    studio.kill(smaller)
    assert studio.run(smaller).config == changed(config, end.changes)
    assert studio.run(smaller).config.batch.model_dump(include={"effective_size", "micro_size"}) == {
        "effective_size": 16,
        "micro_size": 8,
    }


def test_a_full_disk_is_told_and_loses_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    """On a disk of 3 MiB the second checkpoint does not fit; without the right to mount it, no file may be large."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True
    ).returncode
    try:
        studio = Studio(Settings(disk / "home", "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
        config = config_for(studio, tiny_llama, tmp_path, "full", evaluation={"steps": 1})
        foreseen = studio.memory(config)
        assert foreseen.disk_free is not None
        assert foreseen.disk > 3 * 2**20
        assert (foreseen.disk_free < foreseen.disk) == mounted, "it is told before"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if mounted else 700_000, hard))
        run = studio.start_training(config)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        view = finish(studio, run)
        end = failure(view)
        assert end.kind == "disk"
        assert "disk" in end.message
        assert "iB" in end.message, "how much is free"
        assert "checkpoint is kept" in end.hint
        assert view.state.metrics, "what was said before is still there"
        assert studio.dataset(view.config.data.dataset).report.valid == 96
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


WRITERS = """
import resource, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from ftapp.workers.failures import failed
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
weights = {"weight": torch.zeros(50_000)}
writers = [
    lambda: torch.save(weights, sys.argv[1]),
    lambda: save_file(weights, sys.argv[1]),
    lambda: Path(sys.argv[1]).write_bytes(bytes(200_000)),
]
for write in writers:
    try:
        write()
    except Exception as error:
        print(failed(error).kind, type(error).__name__)
try:
    torch.empty(10**15)
except Exception as error:
    print(failed(error).kind, type(error).__name__)
"""


def test_each_library_that_writes_or_allocates_is_understood(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, tmp_path / "file"], capture_output=True, text=True, check=True
    )
    kinds = [line.split()[0] for line in done.stdout.splitlines()]
    assert kinds == ["disk", "disk", "disk", "memory"], done.stdout


def test_broken_libraries_of_the_accelerator_are_told(
    studio: Studio, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "libraries"
    broken.mkdir()
    (broken / "libc10.so").write_bytes(b"")
    config = config_for(studio, tiny_llama, tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(broken))
    run = studio.start_training(config)
    view = finish(studio, run)
    assert isinstance(view.state.end, ev.Failed)
    assert view.state.end.kind == "accelerator"
    assert "libc10.so" in view.message
    assert "driver" in view.hint


def test_a_gpu_whose_driver_is_broken_is_not_replaced_by_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftapp.workers.models import _check_no_gpu_is_wasted

    _check_no_gpu_is_wasted(tmp_path)
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(torch.version, "cuda", None)
    _check_no_gpu_is_wasted(tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _check_no_gpu_is_wasted(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(AcceleratorError, match="cannot use it"):
        _check_no_gpu_is_wasted(tmp_path)
