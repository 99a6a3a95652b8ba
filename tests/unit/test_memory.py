"""Parameters and memory from the names and shapes in the files' headers: counts, parts, `auto`, verdicts, changes."""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ftapp.contract.changes import changed
from ftapp.contract.config import FullConfig, LoraConfig, RunConfig
from ftapp.contract.errors import ModelError
from ftapp.contract.memory import (
    Machine,
    Model,
    Plan,
    estimate,
    longest_row,
    predict,
    read_model,
    resolve,
    verdict,
)
from ftapp.contract.parameters import Architecture, Parameters, count_parameters, weights
from ftapp.store.weights import fingerprint, tensors
from ftapp.ui import outlook

SHAPES = {
    "model.embed_tokens.weight": (100, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.q_proj.bias": (8,),
    "model.layers.0.mlp.up_proj.weight": (32, 8),
    "model.layers.0.norm.weight": (8,),
    "lm_head.weight": (100, 8),
}
TOTAL = 800 + 64 + 8 + 256 + 8 + 800


def counted(method: LoraConfig | FullConfig) -> Parameters:
    return count_parameters(weights(SHAPES, Architecture()), method, Architecture())


def write(path: Path, header: bytes) -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def test_full_fine_tuning_trains_everything() -> None:
    found = counted(FullConfig())
    assert (found.total, found.trainable) == (TOTAL, TOTAL)


def test_lora_adds_rank_times_inputs_and_outputs() -> None:
    found = counted(LoraConfig(rank=4))
    assert (found.total, found.trainable) == (TOTAL, 4 * (8 + 8) + 4 * (32 + 8))


@pytest.mark.parametrize(("targets", "trainable"), [("q_proj", 32), ("q_proj, up_proj", 112), ("proj", 0)])
def test_lora_on_named_modules(targets: str, trainable: int) -> None:
    assert counted(LoraConfig(rank=2, target_modules=targets)).trainable == trainable


def test_shapes_are_read_from_every_shard(tmp_path: Path) -> None:
    for number, (name, shape) in enumerate(SHAPES.items()):
        header = {"__metadata__": {"format": "pt"}, name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
        write(tmp_path / f"model-{number}.safetensors", json.dumps(header).encode())
    assert tensors(tmp_path) == (SHAPES, 0)


def test_only_the_files_that_transformers_loads_count(tmp_path: Path) -> None:
    def stored(file: str, name: str) -> None:
        header = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
        write(tmp_path / file, json.dumps(header).encode())

    stored("model-1.safetensors", "a")
    stored("consolidated.safetensors", "b")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    before = fingerprint(tmp_path)
    assert tensors(tmp_path) == ({"a": (2,)}, 8)
    stored("consolidated.safetensors", "c")
    assert fingerprint(tmp_path) == before
    stored("model-1.safetensors", "A")
    assert fingerprint(tmp_path) != before
    stored("model.safetensors", "d")
    assert tensors(tmp_path) == ({"d": (2,)}, 8)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\x04" + b"\0" * 7 + b"nope", b"\x02" + b"\0" * 7 + b"[]"])
def test_a_broken_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        tensors(tmp_path)


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no \.safetensors"):
        tensors(tmp_path)


def qwen(hidden: int, inner: int, layers: int, vocab: int = 151_936) -> Model:
    """The headers of a Qwen3 of that size."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for number in range(layers):
        module = {
            **{f"self_attn.{name}_proj": (hidden, hidden) for name in "qo"},
            **{f"self_attn.{name}_proj": (hidden // 2, hidden) for name in "kv"},
            **{f"self_attn.{name}_norm": (64,) for name in "qk"},
            **{f"mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")},
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in module.items()}
    config = {
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 128,
        "head_dim": 64,
        "vocab_size": vocab,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": True,
    }
    return read_model(shapes, 0, config)


CHECKPOINTING = "batch.activation_checkpointing"
SMALL, LARGE = qwen(1024, 3072, 28), qwen(4096, 12_288, 36)


def gpu(gib: float) -> Machine:
    return Machine(kind="cuda", name="a GPU", total=int(gib * 2**30), free=int(gib * 2**30))


def config(method: str = "lora", **changes: Any) -> RunConfig:
    values = {"data.dataset": "rows", "method.type": method, **changes}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, field = name.split(".")
        sections.setdefault(section, {})[field] = value
    return RunConfig.model_validate(sections)


def test_the_held_parts_are_the_arithmetic_of_the_method() -> None:
    total = sum(group.total for group in SMALL.groups)
    linear = sum(group.total for group in SMALL.groups if group.kind == "linear")
    lora = predict(SMALL, config("lora"), gpu(80), 512).estimate
    trained = count_parameters(SMALL.groups, LoraConfig(), SMALL.facts).trainable
    assert (lora.weights, lora.adapter) == (2 * total, 4 * trained)
    assert (lora.gradients, lora.optimizer) == (4 * trained, 8 * trained)
    qlora = predict(SMALL, config("qlora"), gpu(80), 512).estimate
    assert qlora.weights == int(linear * (0.5 + 1 / 64 + 1 / 4096)) + 2 * (total - linear)
    full = predict(SMALL, config("full"), gpu(80), 512).estimate
    assert full.weights + full.adapter + full.gradients + full.optimizer == 16 * total


def test_auto_checkpoints_only_by_need_and_takes_the_largest_batch_that_fits() -> None:
    roomy, narrow = (resolve(LARGE, config(), gpu(gib), 2048) for gib in (400, 24))
    assert (roomy.micro_size, roomy.activation_checkpointing) == (8, False)
    assert narrow.activation_checkpointing
    assert estimate(LARGE, config(), narrow, gpu(24)).peak <= 0.9 * 24 * 2**30
    larger = narrow.model_copy(update={"micro_size": narrow.micro_size * 2})
    assert estimate(LARGE, config(), larger, gpu(24)).peak > 0.9 * 24 * 2**30
    without = narrow.model_copy(update={"micro_size": 1, "activation_checkpointing": False})
    assert estimate(LARGE, config(), without, gpu(24)).peak > 0.9 * 24 * 2**30


def test_what_was_chosen_is_not_resolved() -> None:
    chosen = config(**{"batch.micro_size": 16, "batch.activation_checkpointing": True})
    plan = resolve(SMALL, chosen, gpu(1), 512)
    assert (plan.micro_size, plan.activation_checkpointing) == (16, True)
    assert resolve(SMALL, config(**{"batch.effective_size": 6}), gpu(80), 512).micro_size == 6
    assert resolve(SMALL, config(**{"batch.effective_size": 12}), gpu(80), 512, world=4).micro_size == 3


def test_the_longest_row_is_the_shortest_of_what_limits_it() -> None:
    assert longest_row(config(), SMALL.facts, None) == 4096
    assert longest_row(config(), SMALL.facts, 300) == 300
    assert longest_row(config(**{"data.max_length": 128}), SMALL.facts, 300) == 128
    assert longest_row(config(), Architecture(context=512), None) == 512


def test_more_of_anything_needs_more() -> None:
    plan = Plan(micro_size=2, activation_checkpointing=False, row_tokens=512, accumulates=True)
    machine, start = gpu(80), estimate(SMALL, config(), plan, gpu(80)).peak
    for longer in ({"micro_size": 4}, {"row_tokens": 1024}):
        assert estimate(SMALL, config(), plan.model_copy(update=longer), machine).peak > start
    for less in ({"activation_checkpointing": True}, {"micro_size": 1}):
        assert estimate(SMALL, config(), plan.model_copy(update=less), machine).peak < start
    assert estimate(SMALL, config(**{"method.rank": 64}), plan, machine).peak > start
    assert estimate(LARGE, config(), plan, machine).peak > start


def test_the_verdict_is_by_what_is_free() -> None:
    assert [verdict(peak, 100) for peak in (90, 91, 100, 101)] == ["fits", "tight", "tight", "does not fit"]
    assert verdict(1, None) == "unknown"


@pytest.mark.parametrize(
    ("wanted", "gib", "first"),
    [
        (config(**{"batch.micro_size": 8, "batch.activation_checkpointing": True}), 24, "batch.micro_size"),
        (config(**{"batch.micro_size": 1, "batch.activation_checkpointing": False}), 24, CHECKPOINTING),
        (config(), 16, "method.type"),
        (config("full"), 80, "method.type"),
    ],
)
def test_changes_are_enough_and_the_least_harmful_comes_first(wanted: RunConfig, gib: float, first: str) -> None:
    view = predict(LARGE, wanted, gpu(gib), 4096)
    assert view.verdict == "does not fit"
    assert next(iter(view.changes[0].values)) == first
    for change in view.changes:
        smaller = changed(wanted, change.values)
        assert smaller is not None
        again = predict(LARGE, smaller, gpu(gib), 4096)
        assert again.verdict != "does not fit"
        assert again.estimate.peak == change.peak
        assert change.words


def test_changes_are_put_together_when_none_is_enough_alone() -> None:
    chosen = config("qlora", **{"batch.micro_size": 8, "batch.activation_checkpointing": False})
    view = predict(LARGE, chosen, gpu(12), 4096)
    assert view.changes
    assert len(view.changes[0].values) > 1


METHODS = [*product(["lora", "qlora"], ["default", "gaussian", "pissa", "olora"]), ("full", "")]


@pytest.mark.parametrize("packing", ["auto", True, False])
@pytest.mark.parametrize("adapter", [None, "earlier"])
@pytest.mark.parametrize(("method", "init"), METHODS)
def test_every_change_that_is_offered_is_valid(method: str, init: str, adapter: str | None, packing: Any) -> None:
    chosen = {"model.adapter": adapter, "batch.packing": packing, "batch.micro_size": 8} | (
        {"method.init": init, "method.rank": 64} if init else {}
    )
    try:
        wanted = config(method, **chosen)
    except ValueError:
        return  # not valid to begin with
    offered = [change.values for gib in (10, 14, 18, 24) for change in predict(LARGE, wanted, gpu(gib), 4096).changes]
    assert offered
    assert [values for values in offered if changed(wanted, values) is None] == []
    assert any("batch.micro_size" in values for values in offered)
    assert any("method.type" in values for values in offered) or method == "qlora"


@pytest.mark.parametrize("adapter", [None, "earlier"])
def test_an_earlier_adapter_keeps_its_rank(adapter: str | None) -> None:
    chosen = {"batch.micro_size": 8, "batch.activation_checkpointing": True, "method.rank": 64}
    wanted = config("qlora", **chosen, **{"model.adapter": adapter})
    needed = predict(LARGE, wanted, gpu(80), 4096).estimate.peak
    view = predict(LARGE, wanted, gpu((needed - 1) / 2**30), 4096)
    assert any("method.rank" in change.values for change in view.changes) == (adapter is None)


def test_a_model_that_no_change_can_fit_gets_none() -> None:
    view = predict(LARGE, config(), gpu(2), 512)
    assert (view.verdict, view.changes) == ("does not fit", [])


def test_an_estimate_is_quick_enough_to_follow_typing() -> None:
    began = time.perf_counter()
    predict(LARGE, config(), gpu(2), 512)
    assert time.perf_counter() - began < 0.5


def test_experts_that_stay_in_sixteen_bits_are_told() -> None:
    experts = {"model.layers.0.mlp.experts.gate_up_proj": (64, 2048, 4096)}  # 2**29 of them
    shapes = {"model.embed_tokens.weight": (40, 8), "model.layers.0.self_attn.q_proj.weight": (8, 8), **experts}
    mixture = read_model(shapes, 0, {"model_type": "qwen3_moe", "num_experts": 64})
    view = predict(mixture, config("qlora"), gpu(80), 64)
    assert view.notes == ["QLoRA leaves the experts unquantised: they stay in 16 bit, 1.0 GiB of the model."]
    assert view.notes[0] in outlook.draw(view, True)
    assert predict(mixture, config("lora"), gpu(80), 64).notes == []
    assert predict(SMALL, config("qlora"), gpu(80), 64).notes == []


def test_old_gpt2_files_count_no_buffers() -> None:
    shapes = {"h.0.attn.bias": (1, 1, 16, 16), "h.0.attn.c_attn.weight": (8, 24), "wte.weight": (40, 8)}
    groups = weights(shapes, Architecture(model_type="gpt2"))
    assert count_parameters(groups, FullConfig(), Architecture()).total == 8 * 24 + 40 * 8


def test_a_tied_head_in_the_file_is_counted_once() -> None:
    shapes = {"model.embed_tokens.weight": (40, 8), "lm_head.weight": (40, 8)}
    for tied, total in ((True, 320), (False, 640)):
        facts = Architecture(tied=tied)
        assert count_parameters(weights(shapes, facts), FullConfig(), facts).total == total
