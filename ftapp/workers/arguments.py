"""The only translation of a run's config into TRL's words; the training asks."""

import json
import math
from pathlib import Path

import torch
from transformers import EarlyStoppingCallback
from trl import SFTConfig

from ftapp.contract.config import LEARNING_RATE, RunConfig
from ftapp.contract.duration import evaluation_steps
from ftapp.contract.errors import DatasetError
from ftapp.contract.memory import Plan
from ftapp.store.jobs import Job
from ftapp.workers import models
from ftapp.workers.rows import TokenRows

POINTS = 4000
"""Metrics events of a run, about: longer runs say every n-th step."""


def trainer_arguments(
    job: Job, config: RunConfig, on: models.Hardware, world: int, rows: TokenRows, plan: Plan, packing: bool
) -> SFTConfig:
    """How TRL is to train; raises DatasetError if the batch cannot be shared by the devices."""
    batch, optim, evaluation = config.batch, config.optim, config.evaluation
    if batch.effective_size % world:
        raise DatasetError(f"The batch size {batch.effective_size} cannot be shared by {world} devices.")
    share = batch.effective_size // world
    micro, checkpointing = plan.micro_size, plan.activation_checkpointing
    steps = total_steps(config, len(rows.train))
    every = evaluation_steps(config, steps)
    measured = rows.held_out is not None
    rate = optim.learning_rate
    arguments = SFTConfig(
        output_dir=str(job.folder / "checkpoints"),
        seed=config.seed,
        data_seed=config.seed,
        # rows arrive as tokens and labels: nothing is left for TRL to prepare, cut or pack
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        padding_free=packing,
        pad_to_multiple_of=None if on.device == "cpu" or packing else 8,
        num_train_epochs=config.duration.epochs,
        max_steps=config.duration.max_steps if config.duration.max_steps and config.duration.max_steps <= steps else -1,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=max(1, share // micro),
        learning_rate=LEARNING_RATE[config.method.type] if rate == "auto" else rate,
        lr_scheduler_type=optim.lr_scheduler_type,
        warmup_steps=optim.warmup_fraction,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        use_cpu=on.device == "cpu",
        bf16=on.dtype == torch.bfloat16,
        fp16=on.dtype == torch.float16,
        activation_checkpointing=checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        logging_steps=max(1, steps // POINTS),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if measured else "no",
        eval_steps=every if measured else None,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=measured and evaluation.keep_best,
        metric_for_best_model="eval_loss" if measured else None,
        greater_is_better=False if measured else None,
        report_to=[] if config.tracking == "none" else [config.tracking],
        project="ftapp",
        trackio_static_space_id=False,  # else it makes a public Space
        run_name=job.name,
        disable_tqdm=True,
        dataloader_pin_memory=on.device == "cuda",
    )
    # one process trains on one GPU: with others in sight the trainer would take them all, which TRL refuses
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def total_steps(config: RunConfig, rows: int) -> int:
    """Optimizer steps of the whole run, of so many training rows."""
    steps = math.ceil(config.duration.epochs * math.ceil(rows / config.batch.effective_size))
    return min(steps, config.duration.max_steps or steps)


def early_stopping(config: RunConfig, checkpoint: Path | None) -> list[EarlyStoppingCallback]:
    """The callback that ends a run which gets no better, if that is wanted; from a checkpoint it goes on counting."""
    patience = config.evaluation.early_stopping_patience
    if not patience:
        return []
    callback = EarlyStoppingCallback(patience)
    if checkpoint:
        # the trainer would restore it only together with its own control, in which a stop still stands
        states = json.loads((checkpoint / "trainer_state.json").read_bytes()).get("stateful_callbacks", {})
        known = states.get("EarlyStoppingCallback", {}).get("attributes", {})
        callback.early_stopping_patience_counter = known.get("early_stopping_patience_counter", 0)
    return [callback]
