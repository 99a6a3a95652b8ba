"""Tensor shapes + config → how much of the model is trained; pure arithmetic on the names and shapes of the weights."""

import re
from collections.abc import Mapping
from math import prod

from ftapp.contract.base import Contract
from ftapp.contract.config import AdapterConfig, FullConfig

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name, as the weights file has it → its shape."""

NOT_ADAPTED = re.compile(
    r"(^|\.)(lm_head|embed_out|output_projection|embed_tokens|wte|wpe|word_embeddings|shared|embed_positions)\."
)


class Parameters(Contract):
    """How many numbers a model has and how many of them are trained."""

    total: int
    """Of the base model."""
    trainable: int
    """Of the adapter, or the whole model for full fine-tuning."""


def count_parameters(shapes: Shapes, method: AdapterConfig | FullConfig) -> Parameters:
    """Total and trainable parameters; LoRA adds rank × (inputs + outputs) a matrix (arXiv:2106.09685, §4.1)."""
    total = sum(prod(shape) for shape in shapes.values())
    if isinstance(method, FullConfig):
        return Parameters(total=total, trainable=total)
    wanted = [name.strip() for name in method.target_modules.split(",")]
    trainable = 0
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if len(shape) != 2 or module == name:
            continue
        if method.target_modules == "all-linear":
            adapted = not NOT_ADAPTED.search(f"{module}.")
        else:
            adapted = any(module == target or module.endswith(f".{target}") for target in wanted)
        if adapted:
            trainable += method.rank * sum(shape)
    return Parameters(total=total, trainable=trainable)
