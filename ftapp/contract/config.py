"""What a run is: its config, each value declared once for every face and worker."""

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ftapp.contract.base import ADVANCED, BASIC, Auto, Contract, Line
from ftapp.contract.refusals import config_error, of_field


class ModelConfig(Contract):
    """The base model."""

    id: Line = Field("demo", min_length=1, max_length=500, title="Base model", json_schema_extra=BASIC)
    """`demo` for the model that ships with the app, a Hub id such as `Qwen/Qwen3-0.6B`, or a local folder."""

    revision: Line | None = Field(None, max_length=200, title="Revision", json_schema_extra=ADVANCED)
    """Branch, tag or commit of a Hub model; empty means the newest commit of the main branch."""

    adapter: Line | None = Field(None, min_length=1, max_length=200, title="Go on from", json_schema_extra=ADVANCED)
    """An earlier run whose adapter is trained further, on the same base model; empty starts a new adapter."""

    @property
    def public_name(self) -> str:
        """The name as a stranger may read it: the Hub id, or a folder's last part, never a path."""
        return PurePath(self.id).name if PurePath(self.id).is_absolute() else self.id

    @property
    def on_hub(self) -> bool:
        """Whether others can get this model by its name."""
        return self.id != "demo" and not PurePath(self.id).is_absolute()


class DataConfig(Contract):
    """The rows and how they become tokens."""

    dataset: Line = Field(min_length=1, max_length=1000, title="Dataset", json_schema_extra=BASIC)
    """A dataset from the Dataset tab; in the terminal also the path of a file."""

    eval_fraction: float = Field(0.1, ge=0.0, le=0.5, title="Held-out share", json_schema_extra=BASIC)
    """Share of the rows kept out of training to measure the loss on; 0 trains on everything."""

    eval_dataset: Line | None = Field(
        None, min_length=1, max_length=1000, title="Held-out dataset", json_schema_extra=ADVANCED
    )
    """A dataset of its own to measure the loss on, instead of a share; training rows with its prompts are left out."""

    max_length: Annotated[int, Field(ge=16, le=1_048_576)] | Auto = Field(
        "auto", title="Maximum length", json_schema_extra=ADVANCED
    )
    """Longest row in tokens; `auto` takes the longest row, within the model's context and 4096."""

    over_length: Literal["drop", "truncate"] = Field("drop", title="Rows that are too long", json_schema_extra=ADVANCED)
    """`drop` leaves them out and says how many; `truncate` cuts their end, which may cut answers."""


class AdapterConfig(Contract):
    """What LoRA and QLoRA have in common."""

    rank: int = Field(16, ge=1, le=1024, title="Rank", json_schema_extra=BASIC)
    """Size of the adapter: 16 to 32 is enough for most data."""

    alpha: float = Field(32.0, gt=0, le=4096, title="Alpha", json_schema_extra=ADVANCED)
    """Strength of the adapter: its output is scaled by alpha / rank. Twice the rank is usual."""

    dropout: float = Field(0.0, ge=0.0, lt=1.0, title="Dropout", json_schema_extra=ADVANCED)
    """Share of the adapter's inputs zeroed in training; 0 unless the held-out loss rises on few rows."""

    target_modules: Line = Field("all-linear", min_length=1, title="Target modules", json_schema_extra=ADVANCED)
    """`all-linear` adapts every linear layer but the output head; or names such as `q_proj,v_proj`."""

    rslora: bool = Field(False, title="rsLoRA", json_schema_extra=ADVANCED)
    """Scale the adapter by alpha / √rank instead of alpha / rank; for high ranks, with a smaller alpha."""

    dora: bool = Field(False, title="DoRA", json_schema_extra=ADVANCED)
    """Train the length of each weight's rows apart from their direction: slower, sometimes a little better."""

    init: Literal["default", "gaussian", "pissa", "olora"] = Field(
        "default", title="Initialisation", json_schema_extra=ADVANCED
    )
    """`default` and `gaussian` start at no change; `pissa` and `olora` start from the base's own weights, and the
    saved adapter has twice the rank so that it fits the base as it was."""

    @model_validator(mode="after")
    def _init_fits(self) -> "AdapterConfig":
        if self.init in ("pissa", "olora") and self.dora:
            raise of_field("init", f"{self.init} cannot be used with DoRA; choose default or gaussian")
        return self


class LoraConfig(AdapterConfig):
    """Low-rank adapters on a 16 or 32 bit base."""

    type: Literal["lora"] = Field("lora", title="Method", json_schema_extra=BASIC)
    """LoRA trains a small adapter and leaves the base as it is."""


class QloraConfig(AdapterConfig):
    """Low-rank adapters on a base quantised to 4 bit (NF4, double quantisation)."""

    type: Literal["qlora"] = Field("qlora", title="Method", json_schema_extra=BASIC)
    """QLoRA keeps the base in 4 bit: about a quarter of the memory, somewhat slower."""

    @model_validator(mode="after")
    def _init_leaves_the_base(self) -> "QloraConfig":
        if self.init in ("pissa", "olora"):
            raise of_field("init", f"{self.init} changes the base's weights, which QLoRA keeps in 4 bit; choose LoRA")
        return self


class FullConfig(Contract):
    """Every weight of the model is trained."""

    type: Literal["full"] = Field("full", title="Method", json_schema_extra=BASIC)
    """Full fine-tuning changes every weight: about 16 bytes of memory per parameter."""


TARGETS = "method.target_modules"
"""What is wrong with them can only be told with the model at hand."""

Method = Annotated[LoraConfig | QloraConfig | FullConfig, Field(discriminator="type")]


LEARNING_RATE = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}
"""What `auto` becomes, by method: an adapter wants about ten times the rate of full fine-tuning."""


class OptimConfig(Contract):
    """The optimizer: AdamW."""

    learning_rate: Annotated[float, Field(gt=0, le=1.0)] | Auto = Field(
        "auto", title="Learning rate", json_schema_extra=BASIC
    )
    """Step size, such as `2e-4`; `auto` takes 2e-4 for LoRA and QLoRA, 2e-5 for full fine-tuning."""

    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "linear", title="Schedule", json_schema_extra=ADVANCED
    )
    """How the learning rate falls over the run; `linear` and `cosine` end at 0."""

    warmup_fraction: float = Field(0.03, ge=0.0, le=0.5, title="Warm-up share", json_schema_extra=ADVANCED)
    """Share of the steps over which the learning rate rises from 0."""

    weight_decay: float = Field(0.0, ge=0.0, le=1.0, title="Weight decay", json_schema_extra=ADVANCED)
    """Pull of the weights towards 0 at each step."""

    max_grad_norm: float = Field(1.0, gt=0, le=1000, title="Gradient clipping", json_schema_extra=ADVANCED)
    """Gradients longer than this norm are shortened to it."""


class BatchConfig(Contract):
    """Rows per step."""

    effective_size: int = Field(16, ge=1, le=4096, title="Batch size", json_schema_extra=BASIC)
    """Rows that each optimizer step sees, over all devices; under 32 suits LoRA."""

    micro_size: Annotated[int, Field(ge=1, le=4096)] | Auto = Field(
        "auto", title="Micro-batch size", json_schema_extra=ADVANCED
    )
    """Rows in memory at once, per device; divides the batch size. Smaller needs less. `auto`: what fits, up to 8."""

    activation_checkpointing: bool | Auto = Field("auto", title="Activation checkpointing", json_schema_extra=ADVANCED)
    """Recompute activations instead of keeping them: much less memory, about 20 % slower. `auto`: if a GPU needs it."""

    packing: bool | Auto = Field("auto", title="Packing", json_schema_extra=ADVANCED)
    """Lay the rows of a micro-batch end to end instead of padding them; the steps see the same rows. It needs
    flash-attn and a GPU of compute capability 8.0; `auto`: where both are there."""

    @model_validator(mode="after")
    def _packing_has_rows(self) -> "BatchConfig":
        if self.packing is True and self.micro_size == 1:
            raise of_field("packing", "a micro-batch of 1 row has nothing to pack; raise the micro-batch size")
        return self

    @model_validator(mode="after")
    def _micro_divides_effective(self) -> "BatchConfig":
        if self.micro_size != "auto" and self.effective_size % self.micro_size:
            raise of_field(
                "micro_size", f"{self.micro_size} does not divide the batch size {self.effective_size} without a rest"
            )
        return self


class DurationConfig(Contract):
    """How long to train."""

    epochs: float = Field(3.0, gt=0, le=1000, title="Epochs", json_schema_extra=BASIC)
    """How many times the training sees every row."""

    max_steps: int | None = Field(None, ge=1, le=10_000_000, title="Step limit", json_schema_extra=ADVANCED)
    """Stop after this many optimizer steps, whatever the epochs say; empty means no limit."""


class EvaluationConfig(Contract):
    """Measuring the loss on held-out rows while training."""

    steps: Annotated[int, Field(ge=1, le=1_000_000)] | Auto = Field(
        "auto", title="Evaluate every (steps)", json_schema_extra=ADVANCED
    )
    """Optimizer steps between two measurements, each with a checkpoint; `auto` makes about five over the run."""

    keep_best: bool = Field(True, title="Keep the best", json_schema_extra=ADVANCED)
    """End with the weights that had the lowest held-out loss instead of the last ones."""

    early_stopping_patience: int | None = Field(None, ge=1, le=1000, title="Early stopping", json_schema_extra=ADVANCED)
    """Stop after this many measurements without a lower held-out loss; empty means never."""


class RunConfig(Contract):
    """One training run, whole: what the web writes and the worker reads."""

    model: ModelConfig = Field(default_factory=ModelConfig, title="Model")
    """The base model."""
    data: DataConfig = Field(title="Data")
    """The rows."""
    method: Method = Field(default_factory=LoraConfig, title="Method")
    """LoRA, QLoRA or full fine-tuning."""
    optim: OptimConfig = Field(default_factory=OptimConfig, title="Optimizer")
    """The optimizer."""
    batch: BatchConfig = Field(default_factory=BatchConfig, title="Batch")
    """Rows per step."""
    duration: DurationConfig = Field(default_factory=DurationConfig, title="Duration")
    """How long to train."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, title="Evaluation")
    """Measuring while training."""
    seed: int = Field(42, ge=0, le=2**32 - 1, title="Seed", json_schema_extra=ADVANCED)
    """Same config, data and seed give the same run on the same machine."""
    tracking: Literal["none", "tensorboard", "trackio", "wandb"] = Field(
        "none", title="Tracking", json_schema_extra=ADVANCED
    )
    """Send the curves to an experiment tracker too, if its package is installed; wandb sends them to its servers."""

    @model_validator(mode="after")
    def _an_adapter_to_go_on_from_fits_the_method(self) -> "RunConfig":
        if self.model.adapter is None:
            return self
        if isinstance(self.method, FullConfig):
            raise of_field("model.adapter", "full fine-tuning has no adapter to go on from; choose LoRA or QLoRA")
        if self.method.init != "default":
            raise of_field("method.init", f"{self.method.init} starts a new adapter; choose default to go on from one")
        return self

    @model_validator(mode="after")
    def _early_stopping_needs_held_out_rows(self) -> "RunConfig":
        measured = self.data.eval_fraction > 0 or self.data.eval_dataset is not None
        if self.evaluation.early_stopping_patience is not None and not measured:
            raise of_field(
                "evaluation.early_stopping_patience", "early stopping needs held-out rows, but the held-out share is 0"
            )
        return self


def remarks(config: RunConfig) -> list[str]:
    """What a person should know of values that others leave without effect; nothing is refused for it."""
    optim = config.optim
    if optim.lr_scheduler_type == "constant" and optim.warmup_fraction:
        return [
            f"The schedule constant has no warm-up: the warm-up share of {optim.warmup_fraction:g} is not used. "
            "Choose constant_with_warmup to have one."
        ]
    return []


def parse_run_config(value: Any) -> RunConfig:
    """A RunConfig from plain JSON values; raises ConfigError with one problem per dotted field name."""
    try:
        return RunConfig.model_validate(value)
    except ValidationError as error:
        raise config_error(error) from None
