"""Parameters are counted from the names and shapes of the weights, and those come from the files' headers."""

import json
from pathlib import Path

import pytest

from ftapp.contract.config import FullConfig, LoraConfig
from ftapp.contract.errors import ModelError
from ftapp.contract.memory import count_parameters
from ftapp.store.weights import tensor_shapes

SHAPES = {
    "model.embed_tokens.weight": (100, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.q_proj.bias": (8,),
    "model.layers.0.mlp.up_proj.weight": (32, 8),
    "model.layers.0.norm.weight": (8,),
    "lm_head.weight": (100, 8),
}
TOTAL = 800 + 64 + 8 + 256 + 8 + 800


def write(path: Path, header: bytes) -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def test_full_fine_tuning_trains_everything() -> None:
    counted = count_parameters(SHAPES, FullConfig())
    assert (counted.total, counted.trainable) == (TOTAL, TOTAL)


def test_lora_adds_rank_times_inputs_and_outputs() -> None:
    counted = count_parameters(SHAPES, LoraConfig(rank=4))
    assert (counted.total, counted.trainable) == (TOTAL, 4 * (8 + 8) + 4 * (32 + 8))


@pytest.mark.parametrize(("targets", "trainable"), [("q_proj", 32), ("q_proj, up_proj", 112), ("proj", 0)])
def test_lora_on_named_modules(targets: str, trainable: int) -> None:
    assert count_parameters(SHAPES, LoraConfig(rank=2, target_modules=targets)).trainable == trainable


def test_shapes_are_read_from_every_shard(tmp_path: Path) -> None:
    for number, (name, shape) in enumerate(SHAPES.items()):
        header = {"__metadata__": {"format": "pt"}, name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
        write(tmp_path / f"model-{number}.safetensors", json.dumps(header).encode())
    assert tensor_shapes(tmp_path) == SHAPES


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\x04" + b"\0" * 7 + b"nope", b"\x02" + b"\0" * 7 + b"[]"])
def test_a_broken_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        tensor_shapes(tmp_path)


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no \.safetensors"):
        tensor_shapes(tmp_path)
