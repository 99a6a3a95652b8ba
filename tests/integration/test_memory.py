"""The estimate's activations against what autograd really keeps: every tensor of a step on a real model is counted."""

from itertools import product
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ftapp.contract.config import RunConfig
from ftapp.contract.memory import Machine, Plan, moments, read_model
from tests.allocations import Allocations

ROWS, TOKENS = 2, 64
SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "bos_token_id": None,
}
GPT2 = {"n_embd": 128, "n_layer": 4, "n_head": 2, "n_positions": 64, "vocab_size": 64, "bos_token_id": 0}
NO_DROPOUT = {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "eos_token_id": 0}
BUILD = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=64, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, **NO_DROPOUT)),
}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora"},
    "dora": {"type": "lora", "dora": True},
    "lora-dropout": {"type": "lora", "dropout": 0.1},
    "dora-dropout": {"type": "lora", "dora": True, "dropout": 0.1},
    "full": {"type": "full"},
}
CASES = [
    *product(["lora", "dora", "full"], [True, False], [True, False]),
    ("lora-dropout", False, False),  # dropout keeps a mask of 1 byte a number on a GPU and of 4 on a CPU
    ("dora-dropout", True, False),
    ("dora-dropout", False, False),
]


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize(("method", "mixed", "checkpointing"), CASES)
def test_activations_are_what_a_step_keeps(kind: str, method: str, mixed: bool, checkpointing: bool) -> None:
    """`mixed` is the arithmetic of a GPU, done by a CPU: 16-bit frozen weights, fp32 trained ones, autocast."""
    torch.manual_seed(0)
    base = BUILD[kind]()
    shapes = {name: tuple(tensor.shape) for name, tensor in base.state_dict().items()}
    known = read_model(shapes, 0, base.config.to_dict())
    if mixed and method != "full":
        base.to(torch.bfloat16)
    trained = base
    if method != "full":
        more = {"use_dora": METHODS[method].get("dora", False), "lora_dropout": METHODS[method].get("dropout", 0.0)}
        trained = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM", **more))
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    trained.train()
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    ids = torch.randint(1, 60, (ROWS, TOKENS))
    mask = torch.ones_like(ids)
    mask[0, -9:] = 0
    counted = Allocations()
    gradients = [parameter.grad for parameter in trained.parameters() if parameter.requires_grad]
    counted.know([*trained.parameters(), *trained.buffers(), *gradients])
    with counted:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            hidden = base.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        hidden.float().mean().backward()

    config = RunConfig.model_validate({"data": {"dataset": "rows"}, "method": METHODS[method]})
    plan = Plan(micro_size=ROWS, activation_checkpointing=checkpointing, row_tokens=TOKENS, accumulates=True)
    machine = Machine(kind="cuda" if mixed else "cpu", name="")
    predicted = max(activations for _, activations, _ in moments(known, config, plan, machine))
    assert 0.85 < predicted / counted.peak < 1.35, (predicted, counted.peak)
