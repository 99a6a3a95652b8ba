"""Values of the config that go together, as a start to change from; the page and the terminal fill the form with them.

A preset sets only what the form shows and leaves the model, the data and the method as they are; a value that the
chosen method does not have is left out by `values_of`. Why each value:

quick look     sixty steps show whether the loss falls and the answers take shape, whatever the size of the dataset;
               a small adapter is enough for that. The constant rate keeps the cut from looking like an end. One
               measurement in ten steps makes a curve.
balanced       the defaults of this app: three epochs, rank 16 with alpha twice that, batches of 16, the method's rate.
               The rate falls linearly to zero: with cosine, short runs ended about 1.5 % higher in held-out loss.
best quality   a larger adapter has room for more; batches of 16 stay below 32, above which LoRA loses (LoRA Without
               Regret); five epochs, ended when two measurements in a row bring nothing, and the best weights kept, so
               that too many epochs cost time alone; a somewhat longer warm-up, since more weights start from nothing.
least memory   one row at a time, activations computed again, an adapter of rank 8, rows of at most 1024 tokens: each of
               these lowers the peak; the batch stays at 16, so that the learning is the same, only slower.
"""

from typing import Any

from ftapp.contract.base import Contract


class Preset(Contract):
    """A named start."""

    name: str
    title: str
    about: str
    """What it is for, in a sentence."""
    values: dict[str, Any]
    """Dotted config name → value."""


PRESETS = (
    Preset(
        name="quick",
        title="Quick look",
        about="Sixty steps with a small adapter: whether it learns at all, within minutes.",
        values={
            "method.rank": 8,
            "method.alpha": 16.0,
            "optim.learning_rate": "auto",
            "optim.lr_scheduler_type": "constant_with_warmup",
            "optim.warmup_fraction": 0.1,
            "batch.effective_size": 8,
            "batch.micro_size": "auto",
            "batch.activation_checkpointing": "auto",
            "duration.epochs": 1.0,
            "duration.max_steps": 60,
            "data.max_length": "auto",
            "evaluation.steps": 10,
            "evaluation.keep_best": False,
            "evaluation.early_stopping_patience": None,
        },
    ),
    Preset(
        name="balanced",
        title="Balanced",
        about="Three epochs with the usual values: the place to begin.",
        values={
            "method.rank": 16,
            "method.alpha": 32.0,
            "optim.learning_rate": "auto",
            "optim.lr_scheduler_type": "linear",
            "optim.warmup_fraction": 0.03,
            "batch.effective_size": 16,
            "batch.micro_size": "auto",
            "batch.activation_checkpointing": "auto",
            "duration.epochs": 3.0,
            "duration.max_steps": None,
            "data.max_length": "auto",
            "evaluation.steps": "auto",
            "evaluation.keep_best": True,
            "evaluation.early_stopping_patience": None,
        },
    ),
    Preset(
        name="quality",
        title="Best quality",
        about="A larger adapter and more epochs, ended when the held-out loss no longer falls.",
        values={
            "method.rank": 64,
            "method.alpha": 128.0,
            "optim.learning_rate": "auto",
            "optim.lr_scheduler_type": "linear",
            "optim.warmup_fraction": 0.05,
            "batch.effective_size": 16,
            "batch.micro_size": "auto",
            "batch.activation_checkpointing": "auto",
            "duration.epochs": 5.0,
            "duration.max_steps": None,
            "data.max_length": "auto",
            "evaluation.steps": "auto",
            "evaluation.keep_best": True,
            "evaluation.early_stopping_patience": 2,
        },
    ),
    Preset(
        name="memory",
        title="Least memory",
        about="One row at a time, activations computed again, a small adapter: slower, but it fits more often.",
        values={
            "method.rank": 8,
            "method.alpha": 16.0,
            "optim.learning_rate": "auto",
            "optim.lr_scheduler_type": "linear",
            "optim.warmup_fraction": 0.03,
            "batch.effective_size": 16,
            "batch.micro_size": 1,
            "batch.activation_checkpointing": True,
            "duration.epochs": 3.0,
            "duration.max_steps": None,
            "data.max_length": 1024,
            "evaluation.steps": "auto",
            "evaluation.keep_best": True,
            "evaluation.early_stopping_patience": None,
        },
    ),
)


def values_of(preset: Preset, method: str, measured: bool = True) -> dict[str, Any]:
    """A preset's values for a method (lora, qlora or full); early stopping only where held-out rows are measured."""
    adapter = method != "full"
    values = {name: value for name, value in preset.values.items() if adapter or not name.startswith("method.")}
    return values if measured else values | {"evaluation.early_stopping_patience": None}
