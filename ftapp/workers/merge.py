"""Merge an adapter into its base, shard in, shard out: what is in memory at once does not grow with the model."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ftapp.contract.errors import ModelError
from ftapp.store.weights import weight_files
from ftapp.workers.shards import Shard, to_bytes

Progress = Callable[[int, int], None]
"""Bytes written, bytes in all; may raise to end the merge."""

PREFIX = "base_model.model."
LORA = re.compile(r"(.+)\.lora_(embedding_)?([AB])(\.weight)?")
BLOCK = 2**19
"""Values of a weight that are computed at once, in fp32: few enough to stay in a processor's cache."""
PAPERS = re.compile(r"(?!adapter_).*\.(json|jinja|model|txt)|(LICENSE|NOTICE|USE_POLICY).*", re.IGNORECASE)
NOT_HANDLED = ("use_dora", "target_parameters", "trainable_token_indices", "lora_bias", "megatron_config", "use_qalora")


class NotStreamable(Exception):
    """An adapter that this arithmetic does not cover; PEFT can merge it in memory."""


def merge(base: Path, adapter: Path, out: Path, progress: Progress) -> None:
    """Write base + adapter to `out` as safetensors in the base's own dtype; raises NotStreamable or ModelError.

    W + s·B·A (arXiv:2106.09685, §4.1), with s = alpha/rank, or alpha/√rank for rsLoRA (arXiv:2312.03732).
    """
    shards = [Shard(path) for path in weight_files(base)]
    if not shards:
        raise ModelError(f"{base.name} has no .safetensors files.", "Choose a base in safetensors format.")
    config = json.loads((base / "config.json").read_text())
    if "quantization_config" in config:
        raise NotStreamable("the base is stored quantised")
    changes = _changes(_Adapter(adapter), {name: shard for shard in shards for name in shard.names()}, config)
    out.mkdir(parents=True, exist_ok=True)
    done, total = 0, sum(shard.path.stat().st_size for shard in shards)
    for shard in shards:
        for written in _write(shard, out / shard.path.name, changes):
            done += written
            progress(min(done, total), total)
    _copy_papers(base, adapter, out)


@dataclass(frozen=True)
class _Delta:
    """s · B · A for one weight, by rows; transposed where the base stores (inputs, outputs)."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        shape = (self.up.shape[0], self.down.shape[1])
        return shape[::-1] if self.transposed else shape

    def rows(self, first: int, end: int) -> torch.Tensor:
        if self.transposed:
            return (self.up @ self.down[:, first:end]).mul_(self.scale).T
        return (self.up[first:end] @ self.down).mul_(self.scale)


class _Adapter:
    """An adapter's files; its tensors are read when their turn comes."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
        for key in NOT_HANDLED:
            if self.config.get(key):
                raise NotStreamable(f"the adapter uses {key}")
        if self.config.get("bias", "none") != "none":
            raise NotStreamable("the adapter trains biases")
        if self.config.get("init_lora_weights") in ("pissa", "olora", "corda", "loftq", "eva"):
            raise NotStreamable(f"the adapter was saved for a base changed by {self.config['init_lora_weights']}")
        self._file = Shard(folder / "adapter_model.safetensors")
        self.modules: dict[str, dict[str, str]] = {}
        """Module → its tensors by the last part of their names: A and B."""
        self.embeddings: set[str] = set()
        self.whole: dict[str, str] = {}
        """Tensor of the base → the one that replaces it (modules_to_save)."""
        for name in self._file.names():
            inner = name.removeprefix(PREFIX)
            if found := LORA.fullmatch(inner):
                self.modules.setdefault(found[1], {})[found[3]] = name
                if found[2]:
                    self.embeddings.add(found[1])
            elif inner.endswith(".base_layer.weight"):
                continue  # PEFT puts an unchanged copy of an adapted embedding beside it
            elif self.config.get("modules_to_save") and "lora_" not in inner:
                self.whole[inner.replace(".modules_to_save", "")] = name
            else:
                raise NotStreamable(f"the adapter holds {inner}")

    def delta(self, module: str, transposed: bool) -> _Delta:
        rank = self._of_module(module, "rank_pattern", self.config["r"])
        alpha = self._of_module(module, "alpha_pattern", self.config["lora_alpha"])
        scale = alpha / (rank**0.5 if self.config.get("use_rslora") else rank)
        names = self.modules[module]
        down, up = (self._file.rows(names[part]).float() for part in "AB")
        if down.shape[0] != rank:
            raise ModelError(f"{module} has rank {down.shape[0]}, the adapter's config says {rank}.")
        return _Delta(down, up, float(scale), transposed)

    def sides(self, module: str) -> tuple[int, int]:
        """Outputs and inputs."""
        names = self.modules[module]
        return self._file.shape(names["B"])[0], self._file.shape(names["A"])[1]

    def replacement(self, name: str) -> torch.Tensor:
        return self._file.rows(self.whole[name])

    def _of_module(self, module: str, pattern: str, default: float) -> float:
        # as peft.utils.other.get_pattern_key has it
        for key, value in (self.config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return float(value)
        return default


class _Changes:
    """What becomes of which tensor of the base."""

    def __init__(self, adapter: _Adapter, modules: dict[str, str], whole: dict[str, str], transposed: bool) -> None:
        self._adapter, self._modules, self._whole, self._transposed = adapter, modules, whole, transposed

    def delta(self, name: str) -> _Delta | None:
        module = self._modules.get(name)
        if module is None:
            return None
        return self._adapter.delta(module, self._transposed or module in self._adapter.embeddings)

    def replacement(self, name: str) -> torch.Tensor | None:
        return self._adapter.replacement(self._whole[name]) if name in self._whole else None


def _changes(adapter: _Adapter, shards: dict[str, Shard], config: dict[str, Any]) -> _Changes:
    """Every module of the adapter must find its tensor, and fit it."""
    tied = bool(config.get("tie_word_embeddings")) or not _stored("lm_head.weight", shards)
    whole = {found: name for name in adapter.whole if (found := _stored(name, shards))}
    missing = [name for name in adapter.whole if not _stored(name, shards)]
    shared = adapter.embeddings | {m for m in adapter.modules if m.endswith("lm_head")} | set(missing)
    shared |= {name for name in whole if re.search(r"(lm_head|embed_tokens|wte|embed_in)\.weight$", name)}
    if tied and shared and not (adapter.config.get("ensure_weight_tying") and not adapter.embeddings):
        raise ModelError(
            f"The adapter changes {sorted(shared)[0]}, but the base's input and output share one weight.",
            "Publish the adapter; merged, it would change both sides.",
        )
    if missing and not tied:
        raise NotStreamable(f"the base's files have no tensor {missing[0]}")
    modules: dict[str, str] = {}
    for module in adapter.modules:
        found = _stored(f"{module}.weight", shards)
        if not found:
            raise NotStreamable(f"the base's files have no tensor for {module}")
        modules[found] = module
    transposed = bool(adapter.config.get("fan_in_fan_out"))
    for name, module in modules.items():
        sides = adapter.sides(module)
        turned = transposed or module in adapter.embeddings
        if shards[name].shape(name) != (sides[::-1] if turned else sides):
            raise NotStreamable(f"{name} has shape {shards[name].shape(name)}, its adapter {sides}")
        if shards[name].dtype(name) is None:
            raise NotStreamable(f"{name} is stored as {shards[name].header[name]['dtype']}")
    return _Changes(adapter, modules, whole, transposed)


def _stored(name: str, names: Mapping[str, object]) -> str | None:
    """The tensor's name in the files; some leave out the first part of a module's path, such as GPT-2's."""
    return next((one for one in (name, name.split(".", 1)[-1]) if one in names), None)


def _write(shard: Shard, out: Path, changes: _Changes) -> Iterator[int]:
    with out.open("wb") as target:
        target.write(shard.head())
        yield shard.start
        for name in shard.names():
            if (delta := changes.delta(name)) is not None:
                yield from _add(shard, name, delta, target)
            elif (tensor := changes.replacement(name)) is not None:
                if tuple(tensor.shape) != shard.shape(name):
                    raise NotStreamable(f"{name} has shape {shard.shape(name)}, its replacement {tuple(tensor.shape)}")
                target.write(to_bytes(tensor.to(shard.dtype(name))))
                yield shard.size(name)
            else:
                yield from shard.copy(name, target)


def _add(shard: Shard, name: str, delta: _Delta, target: BinaryIO) -> Iterator[int]:
    """W + s·B·A, some rows at a time, in fp32."""
    count, width = shard.shape(name)
    step = max(1, BLOCK // max(1, width))
    for first in range(0, count, step):
        end = min(count, first + step)
        weight = shard.rows(name, first, end)
        merged = delta.rows(first, end).add_(weight).to(weight.dtype)
        # a sum is quick to look at; one that is too large may still be of finite values
        if not (torch.isfinite(merged.sum(dtype=torch.float32)) or torch.isfinite(merged).all()):
            raise ModelError(f"Merging {name} gives values that are not finite.", "Train again, at a lower rate.")
        target.write(to_bytes(merged))
        yield merged.numel() * merged.element_size()


def _copy_papers(base: Path, adapter: Path, out: Path) -> None:
    """Config and index as the base has them; tokenizer, template and stop tokens as the training left them."""
    for folder in (base, adapter):
        for path in folder.iterdir():
            if PAPERS.fullmatch(path.name) and path.is_file():
                shutil.copyfile(path, out / path.name)
    if (out / "chat_template.jinja").exists():  # a base's older place for the same
        (out / "chat_template.json").unlink(missing_ok=True)
