"""In what precision a run computes, by what the GPU can do natively; torch is asked as it answers on such a GPU."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftapp.contract.config import FullConfig, LoraConfig, QloraConfig
from ftapp.contract.errors import AcceleratorError
from ftapp.workers import models


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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    on = models.hardware()
    assert (on.device, on.name, on.dtype) == ("cuda", name, dtype)
    assert native or not on.flash, "no packing on older ones"
    assert models.training_dtype(LoraConfig(), on) == models.training_dtype(QloraConfig(), on) == dtype
    assert models.training_dtype(FullConfig(), on) == torch.float32, "master weights"


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
