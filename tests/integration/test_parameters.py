"""Parameters are counted as the libraries count them, on built models of many shapes: equality, not approximation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftapp.contract.config import FullConfig, LoraConfig
from ftapp.contract.parameters import MIXTRAL_LIKE, QWEN_LIKE, count_parameters, target_problem
from ftapp.store.weights import model_in

KINDS = ["llama", "llama-tied", "qwen3", "gemma3", "mistral", "phi3", "gpt2", "gpt2-bare"]
KINDS += ["qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "qwen2_moe"]
BUILD = """
import json, sys, warnings
from pathlib import Path
import torch, transformers as t
from peft import LoraConfig, get_peft_model
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN as patterns
warnings.filterwarnings("ignore")
t.logging.set_verbosity_error()
small = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=40, bos_token_id=None, eos_token_id=0, pad_token_id=0)
experts = dict(moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2)
latent = dict(q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, n_group=1,
    topk_group=1, n_shared_experts=1, first_k_dense_replace=1)
gpt2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=16, vocab_size=40, bos_token_id=0, eos_token_id=0)
configs = {
    "llama": t.LlamaConfig(**small),
    "llama-tied": t.LlamaConfig(**small, tie_word_embeddings=True),
    "qwen3": t.Qwen3Config(**small, head_dim=16, tie_word_embeddings=True),
    "gemma3": t.Gemma3TextConfig(**small, head_dim=16),
    "mistral": t.MistralConfig(**small),
    "phi3": t.Phi3Config(**small),
    "gpt2": t.GPT2Config(**gpt2),
    "gpt2-bare": t.GPT2Config(**gpt2),
    "qwen3_moe": t.Qwen3MoeConfig(**small, **experts, head_dim=16, mlp_only_layers=[1]),
    "mixtral": t.MixtralConfig(**small, num_local_experts=4),
    "gpt_oss": t.GptOssConfig(**small, num_local_experts=4, head_dim=16),
    "deepseek_v3": t.DeepseekV3Config(**{**small, "num_key_value_heads": 4}, **latent, n_routed_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=24),
    "qwen2_moe": t.Qwen2MoeConfig(**small, **experts, shared_expert_intermediate_size=24),
}
told = {}
for name, config in configs.items():
    model = t.AutoModelForCausalLM.from_config(config)
    folder = Path(sys.argv[1]) / name
    (model.transformer if name == "gpt2-bare" else model).save_pretrained(folder)
    total = sum(p.numel() for p in model.parameters())
    trained = {}
    for targets in ("all-linear", "q_proj,v_proj"):
        if targets != "all-linear" and not any(n.endswith(".v_proj") for n, _ in model.named_modules()):
            continue
        wanted = targets if targets == "all-linear" else targets.split(",")
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=wanted, task_type="CAUSAL_LM"))
        trained[targets] = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        model = adapted.unload()
    taken = []
    leaves = {n.rsplit(".", 1)[-1] for n, _ in model.named_modules()} | {"up_proj,gate_proj", "w1,w3", "w2"}
    paths = {n for n, _ in model.named_modules() if "layers.1." in n or "h.1." in n}
    for targets in sorted((leaves | paths) - {"", "lm_head"}):
        try:
            adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets.split(","), task_type="CAUSAL_LM"))
        except (ValueError, RuntimeError):
            continue
        taken.append(targets)
        model = adapted.unload()
    told[name] = [total, trained, taken]
known = {}
for kind, family in patterns.items():
    if kind == kind.lower():
        known.setdefault(family, []).append(kind)
print(json.dumps([told, known]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list], dict[str, list[str]]]:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("shapes")
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", BUILD, str(folder)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, *json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_the_built_model(built: tuple, kind: str) -> None:  # type: ignore[type-arg]
    folder, told, _ = built
    model = model_in(folder / kind)
    total, trained, _ = told[kind]
    assert count_parameters(model.groups, FullConfig(), model.facts).total == total
    for targets, count in trained.items():
        method = LoraConfig(rank=4, target_modules=targets)
        assert count_parameters(model.groups, method, model.facts).trainable == count, targets


@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_takes_is_not_refused(built: tuple, kind: str) -> None:  # type: ignore[type-arg]
    folder, told, _ = built
    model = model_in(folder / kind)
    _, _, taken = told[kind]
    assert len(taken) > 4
    for targets in ("all-linear", *taken):
        assert target_problem(model.groups, LoraConfig(target_modules=targets), model.facts) == "", targets
        mistyped = LoraConfig(target_modules=f"{targets},foo_proj")
        assert target_problem(model.groups, mistyped, model.facts), targets


def test_the_mixtures_that_peft_adapts_are_known(built: tuple) -> None:  # type: ignore[type-arg]
    known = built[2]
    assert set(known["mixtral"]) == MIXTRAL_LIKE
    assert set(known["qwen2_moe"]) == QWEN_LIKE
