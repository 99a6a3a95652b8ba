"""Merge an adapter into its base, shard in, shard out: peak memory is a few times the largest tensor."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from ftapp.contract.errors import ModelError

Progress = Callable[[int, int], None]
"""Bytes written, bytes in all."""

PREFIX = "base_model.model."


class NotStreamable(Exception):
    """An adapter that this arithmetic does not cover; PEFT can merge it in memory."""


@dataclass(frozen=True)
class _Adapter:
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def modules(self) -> set[str]:
        return {name.removeprefix(PREFIX).rsplit(".lora_A", 1)[0] for name in self.tensors if ".lora_A." in name}

    def delta(self, module: str) -> torch.Tensor:
        """s · B · A in fp32, shape (outputs, inputs), transposed where the base stores (inputs, outputs)."""
        down = self.tensors[f"{PREFIX}{module}.lora_A.weight"].float()
        up = self.tensors[f"{PREFIX}{module}.lora_B.weight"].float()
        rank = down.shape[0]
        scale = self.config["lora_alpha"] / (rank**0.5 if self.config.get("use_rslora") else rank)
        delta = (up @ down).mul_(scale)
        return delta.T if self.config.get("fan_in_fan_out") else delta


def merge(base: Path, adapter: Path, out: Path, progress: Progress) -> None:
    """Write base + adapter to `out` as safetensors in the base's own dtype; raises NotStreamable or ModelError.

    W + s·B·A (arXiv:2106.09685, §4.1), with s = alpha/rank, or alpha/√rank for rsLoRA (arXiv:2312.03732).
    """
    loaded = _read_adapter(adapter)
    shards = sorted(base.glob("model*.safetensors"))
    if not shards:
        raise ModelError(f"{base} has no model*.safetensors files.", "Choose a base in safetensors format.")
    if "quantization_config" in json.loads((base / "config.json").read_text()):
        raise NotStreamable("the base is stored quantised")
    places = _places(shards, loaded)
    out.mkdir(parents=True, exist_ok=True)
    done, total = 0, sum(path.stat().st_size for path in shards)
    for shard in shards:
        for written in _merge_shard(shard, out / shard.name, loaded, places):
            done += written
            progress(min(done, total), total)
    for path in base.iterdir():
        if path.suffix in (".json", ".jinja", ".model", ".txt") and path.is_file() and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
    for path in adapter.iterdir():
        if path.suffix in (".json", ".jinja", ".model", ".txt") and not path.name.startswith("adapter_"):
            shutil.copyfile(path, out / path.name)


def _read_adapter(folder: Path) -> _Adapter:
    config = json.loads((folder / "adapter_config.json").read_text())
    for key in ("use_dora", "target_parameters", "trainable_token_indices", "lora_bias", "modules_to_save"):
        if config.get(key):
            raise NotStreamable(f"the adapter uses {key}")
    if config.get("bias", "none") != "none":
        raise NotStreamable("the adapter trains biases")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise NotStreamable("the adapter has ranks or alphas of its own per module")
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    strange = [name for name in tensors if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    if strange:
        raise NotStreamable(f"the adapter holds {strange[0]}")
    return _Adapter(config, tensors)


def _places(shards: list[Path], adapter: _Adapter) -> dict[str, str]:
    """Tensor name in the base's files → the adapter's module that changes it; every module must find its tensor."""
    names: set[str] = set()
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            names.update(file.keys())
    places: dict[str, str] = {}
    for module in adapter.modules():
        wanted = f"{module}.weight"
        # some files leave out the first part of a module's path, such as GPT-2's "transformer."
        found = [name for name in (wanted, wanted.split(".", 1)[-1]) if name in names]
        if not found:
            raise NotStreamable(f"the base's files have no tensor for {module}")
        places[found[0]] = module
    return places


def _merge_shard(shard: Path, out: Path, adapter: _Adapter, places: dict[str, str]) -> Iterator[int]:
    header, start = _header(shard)
    tensors = sorted(
        ((name, entry) for name, entry in header.items() if name != "__metadata__"),
        key=lambda item: item[1]["data_offsets"][0],
    )
    with _whole(out) as target, shard.open("rb") as source, safe_open(shard, framework="pt") as file:
        source.seek(0)
        target.write(source.read(start))
        yield start
        for name, entry in tensors:
            begin, end = entry["data_offsets"]
            if name in places:
                weight = file.get_tensor(name)
                delta = adapter.delta(places[name])
                if delta.shape != weight.shape:
                    raise NotStreamable(f"{name} has shape {tuple(weight.shape)}, its delta {tuple(delta.shape)}")
                merged = delta.add_(weight).to(weight.dtype).contiguous()
                if not torch.isfinite(merged).all():
                    raise ModelError(
                        f"Merging {name} gives values that are not finite.", "Train again, at a lower rate."
                    )
                target.write(merged.view(torch.uint8).numpy().data)
            else:
                source.seek(start + begin)
                _copy(source, target, end - begin)
            yield end - begin


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    while length:
        data = source.read(min(length, 16 * 2**20))
        if not data:
            raise ModelError("A weights file of the base is shorter than its header says.", "Download it again.")
        target.write(data)
        length -= len(data)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
