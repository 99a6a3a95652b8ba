"""Merge an adapter by PEFT, the whole model in memory: for what the streaming merge does not cover."""

import math
from pathlib import Path

import torch

from ftapp import host
from ftapp.contract.errors import ModelError
from ftapp.store.weights import tensors
from ftapp.workers import models
from ftapp.workers.tokens import load_tokenizer

RESERVE = 1.3
"""Memory that a merge needs, against the weights."""


def merge_in_memory(base: Path, adapter: Path, out: Path, name: str) -> None:
    """Write base + adapter to `out` in the base's own dtype; raises ModelError if the memory is not there."""
    shapes, stored = tensors(base)
    whole = 4 * sum(math.prod(shape) for shape in shapes.values())
    free = host.memory().free
    if free < stored * RESERVE:
        raise ModelError(
            f"This adapter can only be merged in memory: that takes {stored * RESERVE / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free.",
            "Free some memory, or publish the adapter.",
        )
    own = models.stored_dtype(base)
    dtype = torch.float32 if free > (whole + stored) * RESERVE else own
    model = models.load_base(base, name, models.Hardware("cpu", "CPU", dtype), dtype)
    merged = models.attach_adapter(model, adapter).merge_and_unload(safe_merge=True).to(own)
    tokenizer = load_tokenizer(adapter)
    models.stop_at(merged, tokenizer)
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
