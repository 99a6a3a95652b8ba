"""A run as code: the script, in a process that has no ftapp, trains with the losses of the app's own run."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.events import Resolved
from ftapp.contract.script import code
from ftapp.store.eventlog import EventLog
from ftapp.studio import Studio
from ftapp.views import RunView
from tests.integration.conftest import Trained
from tests.running import config_for, finish

LOSSES = """
import importlib.util, json, runpy
assert importlib.util.find_spec("ftapp") is None
history = runpy.run_path("train.py")["trainer"].state.log_history
print("LOSSES", json.dumps({line["step"]: line["loss"] for line in history if "loss" in line}))
"""
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MIXED = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {
        "messages": [
            {"role": "user", "content": "Which day?"},
            {"role": "assistant", "content": "Monday", "weight": 0},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Tuesday, then."},
        ]
    },
]


def assert_the_script_has_the_losses(studio: Studio, view: RunView, work: Path) -> None:
    work.mkdir()
    for path in studio.export_sides(view.config.data, view.config.seed):
        shutil.copy(path, work)
    (work / "train.py").write_text(studio.code(view.config).script)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", LOSSES], cwd=work, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = next(line for line in done.stdout.splitlines() if line.startswith("LOSSES"))
    losses = {int(step): loss for step, loss in json.loads(said.split(" ", 1)[1]).items()}
    assert list(losses) == [metrics.step for metrics in view.state.metrics]
    for metrics in view.state.metrics:
        assert losses[metrics.step] == pytest.approx(metrics.loss, rel=1e-4), metrics.step
    assert (work / "adapter" / "adapter_model.safetensors").is_file()


def test_the_script_has_the_losses_of_the_run(trained: Trained, tmp_path: Path) -> None:
    """Two epochs with evaluations between, and a template without marks."""
    assert_the_script_has_the_losses(trained.studio, trained.studio.run(trained.run), tmp_path / "alone")


def test_so_it_has_with_marks_answers_not_learned_and_an_unusual_adapter(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    (base / "chat_template.jinja").write_text(MARKED)
    plain = config_for(studio, base, tmp_path, duration={"epochs": 1}, batch={"micro_size": 4}).model_dump()
    file = tmp_path / "more.jsonl"
    rows = (tmp_path / "sums.jsonl").read_text().splitlines()
    file.write_text("\n".join([*rows[:46], *(json.dumps(row) for row in MIXED)]) + "\n")
    plain["data"]["dataset"] = studio.add_dataset(file, "more.jsonl").id
    plain["evaluation"]["early_stopping_patience"] = 2
    plain["method"] |= {"init": "pissa", "rslora": True, "dropout": 0.1}
    view = finish(studio, studio.start_training(parse_run_config(plain)))
    assert view.status == "finished", view.message
    assert_the_script_has_the_losses(studio, view, tmp_path / "alone")


def test_so_it_has_where_the_run_goes_on_from_an_adapter(trained: Trained, tmp_path: Path) -> None:
    plain = config_for(trained.studio, trained.base, tmp_path, duration={"max_steps": 4}).model_dump()
    plain["model"]["adapter"] = trained.run
    plain["method"]["dropout"] = 0.3
    view = finish(trained.studio, trained.studio.start_training(parse_run_config(plain)))
    assert view.status == "finished", view.message
    assert_the_script_has_the_losses(trained.studio, view, tmp_path / "alone")


def test_the_script_takes_the_revision_that_the_adapter_was_trained_on(studio: Studio) -> None:
    plain: dict[str, Any] = {"model": {"id": "Qwen/Qwen3-0.6B"}, "data": {"dataset": "sums"}}
    earlier = studio._jobs.create(parse_run_config(plain))
    resolved = Resolved(values={"model.revision": "c0ffee"}, train_rows=9, eval_rows=1)
    EventLog(earlier.folder / "events.jsonl").append(resolved)
    (earlier.folder / "adapter").mkdir()
    (earlier.folder / "adapter" / "adapter_config.json").write_text("{}")
    plain["model"]["adapter"] = earlier.name
    config = parse_run_config(plain)
    made = studio.code(config)
    assert "\nREVISION = 'c0ffee'\n" in made.script
    assert parse_run_config(json.loads(made.config_json)) == config
    plain["model"]["revision"] = "decade"
    assert "\nREVISION = 'decade'\n" in studio.code(parse_run_config(plain)).script


def test_the_config_and_the_command_are_the_runs_own(studio: Studio) -> None:
    config = studio.demo_config()
    made = studio.code(config)
    assert parse_run_config(json.loads(made.config_json)) == config
    assert made.command == f"FTAPP_HOME={studio.settings.home} python -m ftapp train config.json"


@pytest.mark.parametrize(
    "method", [{"type": "lora"}, {"type": "qlora"}, {"type": "full"}, {"type": "lora", "dora": True}]
)
@pytest.mark.parametrize("measured", [0.1, 0.0])
def test_no_text_of_a_person_becomes_code(method: dict[str, Any], measured: float) -> None:
    nasty = "x'\"\"\"\\ + __import__('os').abort() #{(options)}"
    config = RunConfig.model_validate(
        {
            "model": {"id": nasty, "revision": nasty},
            "data": {"dataset": nasty, "eval_fraction": measured},
            "method": method if method["type"] == "full" else {**method, "target_modules": nasty},
        }
    )
    tree = ast.parse(code(config, nasty).script)
    values = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    assert values["MODEL"] == values["REVISION"] == nasty
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "__import__" not in called
