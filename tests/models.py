"""Real tiny models with random weights, for tests: python -m tests.models KIND FOLDER."""

import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token per byte, and three special ones."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(specials + alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(specials)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    fast.chat_template = template
    return fast


TIED = ("qwen3", "gemma3", "gpt2")
"""Kinds whose input and output share one weight unless it is said otherwise."""


def make(
    kind: str, folder: Path, shards: str = "5GB", dtype: torch.dtype = torch.bfloat16, tied: bool | None = None
) -> Path:
    """Write a tiny model of that kind, seeded, with its tokenizer; returns the folder."""
    tied = kind in TIED if tied is None else tied
    torch.manual_seed(0)
    fast = tokenizer(None if kind == "gpt2" else CHATML)
    shape = {**SHAPE, "vocab_size": len(fast), "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    model: PreTrainedModel
    match kind:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=tied, bos_token_id=None))
        case "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=16, tie_word_embeddings=tied, bos_token_id=None))
        case "mistral":
            model = MistralForCausalLM(MistralConfig(**shape, tie_word_embeddings=tied, bos_token_id=None))
        case "gemma3":
            model = Gemma3ForCausalLM(
                Gemma3TextConfig(**shape, head_dim=16, tie_word_embeddings=tied, bos_token_id=None, sliding_window=64)
            )
        case "phi3":
            model = Phi3ForCausalLM(Phi3Config(**shape, tie_word_embeddings=tied, bos_token_id=None))
        case "mixtral":
            model = MixtralForCausalLM(
                MixtralConfig(**shape, tie_word_embeddings=tied, bos_token_id=None, num_local_experts=4)
            )
        case "gpt2":
            model = GPT2LMHeadModel(
                GPT2Config(
                    n_embd=64,
                    n_layer=2,
                    n_head=4,
                    n_positions=256,
                    vocab_size=len(fast),
                    eos_token_id=0,
                    bos_token_id=0,
                    tie_word_embeddings=tied,
                )
            )
        case _:
            raise ValueError(kind)
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)
    fast.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
