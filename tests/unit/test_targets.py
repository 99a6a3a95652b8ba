"""Target modules that a model does not have are told before the start: on the page, in the terminal, by the worker."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftapp.contract.config import TARGETS, FullConfig, LoraConfig, RunConfig
from ftapp.contract.errors import ConfigError
from ftapp.contract.parameters import Architecture, Shapes, target_problem, weights
from ftapp.settings import read_settings
from ftapp.studio import Studio
from ftapp.terminal.verbs import main
from ftapp.ui import configure_tab, fields, form

LAYER = "model.layers.0"
SHAPES: Shapes = {
    "model.embed_tokens.weight": (100, 8),
    f"{LAYER}.self_attn.q_proj.weight": (8, 8),
    f"{LAYER}.self_attn.q_proj.bias": (8,),
    f"{LAYER}.mlp.up_proj.weight": (32, 8),
    f"{LAYER}.mixer.conv1d.weight": (8, 1, 4),
    f"{LAYER}.norm.weight": (8,),
    "lm_head.weight": (100, 8),
}


def problem(targets: str, shapes: Shapes = SHAPES, **facts: Any) -> str:
    known = Architecture(**facts)
    return target_problem(weights(shapes, known), LoraConfig(target_modules=targets), known)


@pytest.mark.parametrize(
    "targets",
    ["all-linear", "q_proj", "q_proj, up_proj", "mlp.up_proj", f"{LAYER}.self_attn.q_proj", "embed_tokens", "conv1d",
     "model.language_model.layers.0.self_attn.q_proj", "q_proj,"],
)  # fmt: skip
def test_names_that_the_model_has_are_taken(targets: str) -> None:
    assert problem(targets) == ""


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("q_proj,foo", "no foo to adapt in this model; there are q_proj, up_proj"),
        ("foo_proj,bar", "no foo_proj, no bar"),
        ("proj", "no proj"),
        ("q_proj,norm", "no norm"),
        (f"{LAYER.replace('0', '7')}.self_attn.q_proj", "no model.layers.7"),
        ("lm_head", "lm_head is the output head"),
        ("q_proj,lm_head", "leave it out"),
        ("all-linear,q_proj", "stands alone"),
        (",", "names no module"),
    ],
)
def test_names_that_it_has_not_are_told(targets: str, words: str) -> None:
    assert words in problem(targets)


def test_a_tied_head_that_the_files_leave_out_is_refused_too() -> None:
    assert "output head" in problem("lm_head", {name: shape for name, shape in SHAPES.items() if "head" not in name})


def test_a_model_without_linear_layers_has_nothing_to_adapt() -> None:
    assert "no linear layer" in problem("all-linear", {"model.norm.weight": (8,)})


def test_experts_are_called_by_the_names_that_peft_knows() -> None:
    shapes = {**SHAPES, f"{LAYER}.mlp.experts.gate_up_proj": (4, 8, 16), f"{LAYER}.mlp.experts.down_proj": (4, 8, 8)}
    assert "no gate_up_proj" in problem("gate_up_proj", shapes, model_type="qwen3_moe", experts=4)
    assert problem("gate_proj,up_proj,down_proj", shapes, model_type="qwen3_moe", experts=4) == ""
    assert "there are down_proj, gate, gate_proj, q_proj, up_proj" in problem(
        "x", shapes, model_type="qwen3_moe", experts=4
    )


@pytest.mark.parametrize("facts", [{"quantised": True}, {"model_type": "hrm_text"}])
def test_nothing_is_said_where_the_files_have_other_names_than_the_model(facts: dict[str, Any]) -> None:
    assert problem("q_proj,foo", **facts) == ""
    assert problem("lm_head", **facts)


def test_full_fine_tuning_has_no_targets() -> None:
    assert target_problem([], FullConfig(), Architecture()) == ""


@pytest.fixture
def studio(home: Any) -> Studio:
    return Studio(read_settings())


@pytest.mark.parametrize("targets", ["q_proj,foo", "lm_head", "foo_proj"])
def test_a_run_with_such_names_is_refused_and_marked_on_the_page(studio: Studio, targets: str) -> None:
    plain = studio.demo_config().model_dump()
    config = RunConfig.model_validate(plain | {"method": {"type": "lora", "target_modules": targets}})
    with pytest.raises(ConfigError) as caught:
        studio.start_training(config)
    assert list(caught.value.problems) == [TARGETS]
    assert studio.runs() == []
    values = form.config_to_values(config, fields.FIELDS)
    *_, marked = configure_tab.check(studio, {}, *(values[name] for name in fields.NAMES))
    assert marked == caught.value.problems


def test_the_terminal_refuses_them_as_a_wrong_config(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    method = {"type": "lora", "target_modules": "q_proj,foo"}
    file.write_text(json.dumps({"model": {"id": "demo"}, "data": {"dataset": "demo"}, "method": method}))
    assert main(["train", str(file)]) == 2
    assert "there is no foo to adapt" in capsys.readouterr().err
