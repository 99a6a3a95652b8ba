"""Models: load, quantise, attach the adapter; the only place that decides dtype and device."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ftapp.contract.config import AdapterConfig, FullConfig
from ftapp.contract.errors import ModelError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hardware:
    """Where this process computes, and in what precision."""

    device: Literal["cuda", "cpu"]
    name: str
    dtype: torch.dtype
    """Of frozen base weights and of the computation: bf16 where it is native, fp16 on older GPUs, fp32 on a CPU."""


def hardware() -> Hardware:
    """The accelerator of this process, or the CPU."""
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Hardware("cuda", torch.cuda.get_device_name(), torch.bfloat16 if native else torch.float16)
    return Hardware("cpu", "CPU", torch.float32)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder; raises ModelError."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The tokenizer in {folder} cannot be loaded: {_first_line(error)}.") from error
    return tokenizer


def load_base(folder: Path, name: str, on: Hardware, dtype: torch.dtype, quantised: bool = False) -> PreTrainedModel:
    """A causal language model from safetensors files, in `dtype` or in NF4 computing in `dtype`; raises ModelError."""
    options: dict[str, Any] = {"dtype": dtype}
    if quantised:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if on.device == "cuda":
        options["device_map"] = {"": torch.cuda.current_device()}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, **options
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"{name} cannot be loaded: {_first_line(error)}.",
            "Choose a causal language model with .safetensors files that transformers knows without remote code.",
        ) from error
    _keep_from_repacking(model)
    return model


def _keep_from_repacking(model: PreTrainedModel) -> None:
    # On CPUs with AVX512_BF16, bitsandbytes repacks a 4-bit weight at its first forward in eval mode, for a kernel
    # without autograd: a training that evaluates in between would learn next to nothing from then on.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def peft_config(method: AdapterConfig) -> PeftLoraConfig:
    """Our words for LoRA in PEFT's."""
    wanted = [name.strip() for name in method.target_modules.split(",") if name.strip()]
    return PeftLoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules="all-linear" if method.target_modules == "all-linear" else wanted,
        task_type="CAUSAL_LM",
    )


def training_dtype(method: AdapterConfig | FullConfig, on: Hardware) -> torch.dtype:
    """Of the weights while training: fp32 master weights for full fine-tuning, the hardware's own for a frozen base."""
    return torch.float32 if isinstance(method, FullConfig) else on.dtype


def attach_adapter(base: PreTrainedModel, adapter: Path) -> PeftModel:
    """A trained adapter on its base, for inference; raises ModelError when they do not fit."""
    try:
        return PeftModel.from_pretrained(base, adapter)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"The adapter in {adapter} does not fit its base: {_first_line(error)}.") from error


def stop_at(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let generation end at the tokenizer's stop token, besides those where the model ended before."""
    known = model.generation_config.eos_token_id
    before = known if isinstance(known, list) else [known] if known is not None else []
    model.generation_config.eos_token_id = list(dict.fromkeys([tokenizer.eos_token_id, *before]))
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype that a model's files are in; fp32 if they do not say."""
    config = json.loads((folder / "config.json").read_text())
    named = config.get("dtype") or config.get("torch_dtype") or config.get("text_config", {}).get("dtype")
    dtype = getattr(torch, str(named).removeprefix("torch."), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]
