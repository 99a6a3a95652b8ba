"""In what precision a run computes, by what the GPU can do natively; torch is asked as it answers on such a GPU."""

import pytest
import torch

from ftapp.contract.config import FullConfig, LoraConfig, QloraConfig
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
