"""The streaming merge against PEFT's own in fp32: every shape, scale and layout; what it refuses; what it needs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ftapp.contract.errors import ModelError
from ftapp.workers.in_memory import merge_in_memory
from ftapp.workers.merge import NotStreamable, merge
from tests.models import make, tokenizer


def adapter(base: Path, folder: Path, **options: Any) -> Path:
    """A random adapter, as PEFT saves it."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    given = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False, **options}
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **given))
    for name, parameter in tuned.named_parameters():
        if "modules_to_save" in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    tuned.save_pretrained(folder)
    return folder


def peft_merge(base: Path, tuned: Path) -> dict[str, torch.Tensor]:
    """PEFT's own merge in fp32, cast to the base's dtype."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, tuned).merge_and_unload()
    return {name: tensor.to(torch.bfloat16) for name, tensor in merged.state_dict().items()}


def files(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def check(base: Path, tuned: Path, out: Path) -> dict[str, torch.Tensor]:
    """Ours equals PEFT's, tensor by tensor, and loads again; returns it."""
    told: list[tuple[int, int]] = []
    merge(base, tuned, out, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    expected, mine, before = peft_merge(base, tuned), files(out), files(base)
    assert set(mine) == set(before)
    changed = 0
    for name, tensor in mine.items():
        same = expected.get(name, expected.get(f"transformer.{name}"))
        assert same is not None, name
        assert tensor.dtype == before[name].dtype
        equal(name, tensor, same)
        changed += not torch.equal(tensor, before[name])
    assert changed > 0
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    for name, tensor in loaded.state_dict().items():
        equal(name, tensor, expected[name])
    return mine


def equal(name: str, one: torch.Tensor, other: torch.Tensor) -> None:
    """The same but for few values: fp32 sums that differ in their last bit may round to bf16 values one step apart."""
    torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-5, msg=lambda text: f"{name}: {text}")
    assert int((one != other).sum()) <= max(2, one.numel() // 1000), name


@pytest.mark.parametrize("shards", ["5GB", "60KB"], ids=["one", "several"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3", "mistral", "phi3", "gpt2"])
def test_equal_to_pefts_own(tmp_path: Path, kind: str, tied: bool, shards: str) -> None:
    base = make(kind, tmp_path / "base", shards, tied=tied)
    assert (len(list(base.glob("*.safetensors"))) > 1) == (shards == "60KB")
    check(base, adapter(base, tmp_path / "adapter"), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors.index.json").exists() == (shards == "60KB")


OPTIONS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 8}, "alpha_pattern": {"^model.*v_proj": 3}},
    "names": {"target_modules": ["q_proj", "down_proj"]},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_scale_and_part(tmp_path: Path, name: str) -> None:
    base = make("llama", tmp_path / "base")
    check(base, adapter(base, tmp_path / "adapter", **OPTIONS[name]), tmp_path / "out")


def test_in_blocks_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftapp.workers.merge.BLOCK", 1000)
    for kind in ("llama", "gpt2"):
        base = make(kind, tmp_path / kind)
        check(base, adapter(base, tmp_path / f"{kind}-adapter"), tmp_path / f"{kind}-out")


@pytest.mark.parametrize(("options", "words"), [({"use_dora": True}, "use_dora"), ({"bias": "all"}, "biases")])
def test_what_it_does_not_cover_is_left_to_peft(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    base = make("llama", tmp_path / "base")
    with pytest.raises(NotStreamable, match=words):
        merge(base, adapter(base, tmp_path / "adapter", **options), tmp_path / "out", lambda *_: None)


def test_experts_are_merged_by_peft_in_memory(tmp_path: Path) -> None:
    base = make("mixtral", tmp_path / "base")
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    tuned = adapter(base, tmp_path / "adapter", target_modules=["q_proj"], target_parameters=experts)
    with pytest.raises(NotStreamable, match="target_parameters"):
        merge(base, tuned, tmp_path / "out", lambda *_: None)
    tokenizer().save_pretrained(tuned)
    merge_in_memory(base, tuned, tmp_path / "whole", "tiny mixtral")
    expected, before = peft_merge(base, tuned), AutoModelForCausalLM.from_pretrained(base).state_dict()
    changed = 0
    for name, tensor in AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype="auto").state_dict().items():
        equal(name, tensor, expected[name])
        changed += "experts" in name and not torch.equal(tensor.float(), before[name].float())
    assert changed == 4, "two of each of two layers"


def test_one_side_of_a_tied_pair_is_refused(tmp_path: Path) -> None:
    base = make("qwen3", tmp_path / "base")
    tuned = adapter(base, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ModelError, match="share one weight"):
        merge(base, tuned, tmp_path / "out", lambda *_: None)


def test_a_weight_that_overflows_is_told(tmp_path: Path) -> None:
    base = make("llama", tmp_path / "base", dtype=torch.float16)
    tuned = adapter(base, tmp_path / "adapter", lora_alpha=1e9)
    with pytest.raises(ModelError, match="not finite"):
        merge(base, tuned, tmp_path / "out", lambda *_: None)


def test_a_base_cut_short_is_told(tmp_path: Path) -> None:
    base = make("llama", tmp_path / "base")
    tuned = adapter(base, tmp_path / "adapter")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not as long as its header says"):
        merge(base, tuned, tmp_path / "out", lambda *_: None)


def test_an_adapter_of_another_base_is_not_merged(tmp_path: Path) -> None:
    tuned = adapter(make("llama", tmp_path / "base"), tmp_path / "adapter")
    with pytest.raises(NotStreamable, match=r"no tensor for|has shape"):
        merge(make("gpt2", tmp_path / "other"), tuned, tmp_path / "out", lambda *_: None)


MEASURE = (
    "import resource, sys\n"
    "from pathlib import Path\n"
    "from ftapp.workers.merge import merge\n"
    "base, adapter, out = map(Path, sys.argv[1:])\n"
    "import torch; torch.zeros(1024, 1024) @ torch.zeros(1024, 1024)\n"
    "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "merge(base, adapter, out, lambda *_: None)\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
)


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=8, num_attention_heads=8, vocab_size=4096
    )
    base = tmp_path / "base"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base, max_shard_size="100MB")
    tuned = adapter(base, tmp_path / "adapter")
    command = [sys.executable, "-c", MEASURE, base, tuned, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert size > 250 * 2**20
    assert int(done.stdout) * 1024 < 100 * 2**20, "blocks of a weight, never a whole file"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"
