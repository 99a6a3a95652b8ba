"""Models: load, quantise, attach the adapter; the only place that decides dtype and device."""

import json
import logging
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations import sdpa_attention
from transformers.utils import is_flash_attn_2_available

from ftapp.contract.config import AdapterConfig, FullConfig
from ftapp.contract.errors import AcceleratorError, ModelError
from ftapp.contract.parameters import ALL_LINEAR, targets
from ftapp.workers.tokens import first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hardware:
    """Where this process computes, and in what precision."""

    device: Literal["cuda", "cpu"]
    name: str
    dtype: torch.dtype
    """Of frozen base weights and of the computation: bf16 where it is native, fp16 on older GPUs, fp32 on a CPU."""
    flash: bool = False
    """Whether flash-attn's kernels are installed and run here."""


def hardware() -> Hardware:
    """The accelerator of this process, or the CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        recent = torch.cuda.get_device_capability() >= (8, 0)
        if not recent:
            # of torch's fused kernels only flash attention's takes grouped heads, and it needs 8.0: they are repeated,
            # or attention would hold every pair of tokens
            sdpa_attention.use_gqa_in_sdpa = lambda *_: False
        flash = recent and is_flash_attn_2_available()
        return Hardware("cuda", torch.cuda.get_device_name(), torch.bfloat16 if native else torch.float16, flash)
    _check_no_gpu_is_wasted(Path("/dev"))
    return Hardware("cpu", "CPU", torch.float32)


def _check_no_gpu_is_wasted(devices: Path) -> None:
    """Raises AcceleratorError where torch could use a GPU if its driver worked: a CPU would take days for its hours."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    if torch.version.cuda is None or hidden or not any(devices.glob("nvidia[0-9]*")):
        return
    try:
        torch.cuda.init()
        why = "it finds none"
    except (RuntimeError, AssertionError) as error:
        why = first_line(error)
    raise AcceleratorError(
        f"This machine has an NVIDIA GPU, but torch {torch.__version__} cannot use it: {why}.",
        "Restart the machine, check the driver with nvidia-smi; or set CUDA_VISIBLE_DEVICES= to train on the CPU.",
    )


def check_triton(on: Hardware) -> None:
    """Raises AcceleratorError where Triton, which computes a training's loss on a GPU, cannot compile its C module."""
    if on.device == "cpu":
        return
    try:
        import triton
    except ImportError:
        return  # TRL does without, too
    try:
        triton.runtime.driver.active.get_current_device()
    except (RuntimeError, AssertionError, OSError, subprocess.CalledProcessError) as error:
        compiled = isinstance(error, subprocess.CalledProcessError)
        why = "the C compiler failed, its words are in the log" if compiled else first_line(error)
        raise AcceleratorError(
            f"Triton, which computes the loss on {on.name}, cannot be used: {why}.",
            "Install a C compiler and Python's headers (on Debian and Ubuntu: gcc and python3-dev), and start again.",
        ) from error


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
        if quantised:
            _check_bitsandbytes(on, dtype)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, **options
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"{name} cannot be loaded: {first_line(error)}.",
            "Choose a causal language model with .safetensors files that transformers knows without remote code.",
        ) from error
    except RuntimeError as error:
        # whatever fails while weights are quantised, transformers raises this and leaves the cause in its log
        if on.device == "cuda" and "conversion of the weights" in str(error) and _is_nearly_full():
            raise torch.OutOfMemoryError(f"Out of memory while {name} was quantised.") from error
        raise
    _keep_from_repacking(model)
    return model


def _check_bitsandbytes(on: Hardware, dtype: torch.dtype) -> None:
    """Raises AcceleratorError where bitsandbytes cannot quantise on this GPU."""
    from bitsandbytes import functional  # without QLoRA it need not be there

    try:
        functional.quantize_4bit(torch.zeros(64, 64, device=torch.cuda.current_device(), dtype=dtype))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AttributeError, OSError) as error:
        raise AcceleratorError(
            f"bitsandbytes, which quantises for QLoRA, cannot use {on.name}: {first_line(error)}.",
            "See what python -m bitsandbytes says; or choose LoRA.",
        ) from error


def _is_nearly_full() -> bool:
    """Whether less than a tenth of the GPU's memory is left to this process."""
    free, total = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated() < total / 10


def attend_by_flash(model: PreTrainedModel) -> bool:
    """Switch to flash-attn's kernels, which keep rows that are laid end to end apart; False if the model cannot.

    Layers that carry a state along, such as linear attention or Mamba's, would let it leak from row to row.
    """
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or [])
    attention_only = kinds <= {"full_attention", "sliding_attention", "chunked_attention"} and not model._is_stateful
    if not (attention_only and model._supports_flash_attn):
        return False
    model.set_attn_implementation("flash_attention_2")
    return True


def _keep_from_repacking(model: PreTrainedModel) -> None:
    # On CPUs with AVX512_BF16, bitsandbytes repacks a 4-bit weight at its first forward in eval mode, for a kernel
    # without autograd: a training that evaluates in between would learn next to nothing from then on.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def peft_config(method: AdapterConfig) -> PeftLoraConfig:
    """Our words for LoRA in PEFT's."""
    return PeftLoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=ALL_LINEAR if method.target_modules == ALL_LINEAR else targets(method),
        task_type="CAUSAL_LM",
        use_rslora=method.rslora,
        use_dora=method.dora,
        init_lora_weights=True if method.init == "default" else method.init,
    )


def new_adapter(base: PreTrainedModel, method: AdapterConfig) -> PeftModel:
    """A fresh adapter to train, in fp32; raises ModelError when the method does not fit the base."""
    try:
        model = get_peft_model(base, peft_config(method))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"An adapter for {method.target_modules} cannot be made: {first_line(error)}.",
            "Choose other target modules.",
        ) from error
    thin = [n for n, p in model.named_parameters() if "lora_A" in n and p.shape[0] < method.rank]
    if thin:
        raise ModelError(
            f"{thin[0]} is too small for {method.init} at rank {method.rank}.", "Lower the rank, or choose default."
        )
    return model


def adapter_to_go_on_from(base: PreTrainedModel, adapter: Path, method: AdapterConfig) -> PeftModel:
    """A finished adapter on its base, to be trained further with the method's dropout; raises ModelError."""
    config = PeftLoraConfig.from_pretrained(adapter)
    config.lora_dropout, config.inference_mode = method.dropout, False
    try:
        return PeftModel.from_pretrained(base, adapter, is_trainable=True, config=config)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"The adapter in {adapter} does not fit its base: {first_line(error)}.") from error


def training_dtype(method: AdapterConfig | FullConfig, on: Hardware) -> torch.dtype:
    """Of the weights while training: fp32 master weights for full fine-tuning, the hardware's own for a frozen base."""
    return torch.float32 if isinstance(method, FullConfig) else on.dtype


def attach_adapter(base: PreTrainedModel, adapter: Path, name: str = "default") -> PeftModel:
    """A trained adapter on its base, for inference; raises ModelError when they do not fit."""
    try:
        return PeftModel.from_pretrained(base, adapter, adapter_name=name)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"The adapter in {adapter} does not fit its base: {first_line(error)}.") from error


def add_adapter(model: PeftModel, adapter: Path, name: str) -> None:
    """Another adapter beside those that are on a base, for inference; raises ModelError when it does not fit."""
    try:
        model.load_adapter(adapter, adapter_name=name)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"The adapter in {adapter} does not fit its base: {first_line(error)}.") from error


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
