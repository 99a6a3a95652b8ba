"""What a run makes of the GPU it finds: its precision, its kernels; torch is asked as it answers on such a GPU."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bitsandbytes
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations import sdpa_attention

from ftapp.contract.config import FullConfig, LoraConfig, QloraConfig
from ftapp.contract.errors import AcceleratorError
from ftapp.contract.memory import Plan
from ftapp.studio import Studio
from ftapp.workers import models
from ftapp.workers.arguments import trainer_arguments
from ftapp.workers.failures import failed
from ftapp.workers.rows import TokenRows
from ftapp.workers.tokens import Encoder
from tests.models import tokenizer
from tests.running import config_for


def answer_as(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> None:
    """Let torch answer as on that GPU; what `hardware` changes for it is changed back after the test."""
    native = capability >= (8, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)


@pytest.mark.parametrize(
    ("name", "capability", "dtype"),
    [
        ("Tesla T4", (7, 5), torch.float16),
        ("NVIDIA L4", (8, 9), torch.bfloat16),
        ("NVIDIA H100", (9, 0), torch.bfloat16),
    ],
)
def test_bf16_only_where_it_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    native = capability >= (8, 0)
    answer_as(monkeypatch, name, capability)
    on = models.hardware()
    assert (on.device, on.name, on.dtype) == ("cuda", name, dtype)
    assert native or not on.flash, "no packing on older ones"
    assert models.training_dtype(LoraConfig(), on) == models.training_dtype(QloraConfig(), on) == dtype
    assert models.training_dtype(FullConfig(), on) == torch.float32, "master weights"


@pytest.mark.parametrize(("capability", "grouped"), [((7, 5), False), ((8, 9), True)])
def test_an_old_gpu_gets_repeated_heads_for_its_fused_attention(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], grouped: bool
) -> None:
    answer_as(monkeypatch, "GPU", capability)
    models.hardware()
    attention, asked = torch.nn.functional.scaled_dot_product_attention, []

    def listening(*tensors: Any, **options: Any) -> torch.Tensor:
        asked.append((tensors[1].shape[1], options.get("enable_gqa", False)))
        return attention(*tensors, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", listening)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, vocab_size=8, attn_implementation="sdpa"))
    model(torch.tensor([[1, 2, 3]]))
    assert asked == [(2, True) if grouped else (4, False)]


def test_one_process_trains_on_one_gpu_of_several(
    monkeypatch: pytest.MonkeyPatch, studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    config = config_for(studio, tiny_llama, tmp_path)
    job = studio._jobs.create(config)
    rows = TokenRows(job, config, Encoder(tokenizer(), "tiny"), 256, lambda _: None)
    plan = Plan(micro_size=8, activation_checkpointing=False, row_tokens=rows.longest, accumulates=False)
    answer_as(monkeypatch, "GPU", (8, 9))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = models.Hardware("cuda", "GPU", torch.float32)
    try:
        arguments = trainer_arguments(job, config, gpu, 1, rows, plan, packing=False)
        assert str(arguments.device) == "cuda:0"
        assert (arguments.n_gpu, arguments.train_batch_size) == (1, 8)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    cpu = models.Hardware("cpu", "CPU", torch.float32)
    assert trainer_arguments(job, config, cpu, 1, rows, plan, packing=False).n_gpu == 0


@pytest.fixture
def load_in_four_bits(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> Callable[[], Any]:
    """Load the tiny model as on a GPU, of which the CPU does the work."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    gpu = models.Hardware("cuda", "Tesla T4", torch.float16)
    return lambda: models.load_base(tiny_llama, "tiny", gpu, torch.float16, quantised=True)


def test_a_bitsandbytes_that_cannot_use_the_gpu_is_named(
    monkeypatch: pytest.MonkeyPatch, load_in_four_bits: Callable[[], Any]
) -> None:
    assert load_in_four_bits().is_loaded_in_4bit

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("\nCUDA SETUP ERROR: Missing dependency: libcudart.so\n\nTo fix this, make sure that")

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", broken)
    with pytest.raises(AcceleratorError, match=r"cannot use Tesla T4: CUDA SETUP ERROR.*libcudart\.so\."):
        load_in_four_bits()


@pytest.mark.parametrize(("free", "kind"), [(2**28, "memory"), (2**33, "other")])
def test_a_gpu_that_is_full_while_it_quantises_is_told(
    monkeypatch: pytest.MonkeyPatch, load_in_four_bits: Callable[[], Any], free: int, kind: str
) -> None:
    quantise, calls = bitsandbytes.functional.quantize_4bit, []

    def fills(*tensors: Any, **options: Any) -> Any:
        calls.append(tensors)
        if len(calls) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return quantise(*tensors, **options)

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", fills)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2**34))
    with pytest.raises(RuntimeError) as caught:
        load_in_four_bits()
    assert failed(caught.value).kind == kind


def no_compiler() -> None:
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")


def no_headers() -> None:
    subprocess.check_call([sys.executable, "-c", "raise SystemExit(1)"])


@pytest.mark.parametrize(
    ("compiles", "words"), [(no_compiler, "Failed to find C compiler"), (no_headers, "the C compiler failed")]
)
def test_what_triton_needs_is_missed_before_a_training(
    monkeypatch: pytest.MonkeyPatch, compiles: Callable[[], Any], words: str
) -> None:
    active = SimpleNamespace(get_current_device=compiles)  # where there is no GPU, Triton itself is not installed
    monkeypatch.setitem(
        sys.modules, "triton", SimpleNamespace(runtime=SimpleNamespace(driver=SimpleNamespace(active=active)))
    )
    models.check_triton(models.Hardware("cpu", "CPU", torch.float32))
    gpu = models.Hardware("cuda", "NVIDIA L4", torch.bfloat16)
    with pytest.raises(AcceleratorError, match=words) as caught:
        models.check_triton(gpu)
    assert "gcc and python3-dev" in caught.value.hint
    active.get_current_device = lambda: 0
    models.check_triton(gpu)
    monkeypatch.setitem(sys.modules, "triton", None)
    models.check_triton(gpu)
