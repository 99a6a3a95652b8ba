"""Train: the only translation of our config into TRL's words."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from ftapp.contract import events as ev
from ftapp.contract.config import FullConfig, QloraConfig, RunConfig
from ftapp.contract.errors import DatasetError
from ftapp.contract.examples import Example
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.workers import models, sources
from ftapp.workers.reporting import Reporter
from ftapp.workers.rows import TokenRows
from ftapp.workers.tokens import AUTO_LENGTH_LIMIT, IGNORED, Encoder

AUTO_MICRO_LIMIT = 8
AUTO_EVALUATIONS = 5
SHOWN_TOKENS = 64
"""How long the answers to held-out prompts may get that are shown at each evaluation."""
POINTS = 4000
"""Metrics events of a run, about: longer runs say every n-th step."""
LEARNING_RATE = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}


def train(job: Job, events: EventLog | None) -> ev.Event:
    """Run the job's config to its end; returns Finished or Stopped, raises FtappError."""
    config = job.run_config()
    say = Reporter(events, job.folder / "stop")
    on = models.hardware()
    world = int(os.environ.get("WORLD_SIZE", "1"))

    folder, revision = sources.find_files(
        config.model, os.environ.get("HF_TOKEN"), lambda: say.say(ev.Phase(name="downloading"))
    )
    say.say(ev.Phase(name="loading"))
    name = config.model.public_name
    encoder = Encoder(models.load_tokenizer(folder), name)
    for note in encoder.notes:
        say.say(ev.Note(message=note))
    dtype = models.training_dtype(config.method, on)
    model = models.load_base(folder, name, on, dtype, quantised=isinstance(config.method, QloraConfig))

    say.say(ev.Phase(name="tokenising"))
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or AUTO_LENGTH_LIMIT
    rows = TokenRows(job, config, encoder, min(limit, AUTO_LENGTH_LIMIT), say.say)
    arguments = _arguments(job, config, on, world, rows)

    total = sum(p.numel() for p in model.parameters())
    if isinstance(config.method, QloraConfig):
        total = int(model.num_parameters())
    trainer = _Trainer(
        reporter=say,
        encoder=encoder,
        shown=rows.shown,
        model=model,
        args=arguments,
        train_dataset=rows.train,
        eval_dataset=rows.held_out,
        processing_class=encoder.tokenizer,
        peft_config=None if isinstance(config.method, FullConfig) else models.peft_config(config.method),
        callbacks=[say],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            # TRL leaves QLoRA's adapter in bf16, which fp16's gradient scaler refuses and small updates vanish in
            parameter.data = parameter.data.float()
    say.say(
        ev.Resolved(
            values={
                "model.revision": revision,
                "model.licence": sources.licence(folder),
                "data.max_length": rows.max_length,
                "optim.learning_rate": arguments.learning_rate,
                "batch.micro_size": arguments.per_device_train_batch_size,
                "batch.activation_checkpointing": arguments.activation_checkpointing,
                "evaluation.steps": int(arguments.eval_steps or arguments.save_steps),
                "dtype": str(dtype).removeprefix("torch."),
                "device": on.name,
            },
            train_rows=len(rows.train),
            eval_rows=len(rows.held_out) if rows.held_out is not None else 0,
            left_out_rows=rows.left_out,
            train_tokens=rows.train_tokens,
            trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            total_parameters=total,
            total_steps=_total_steps(config, len(rows.train)),
        )
    )
    checkpoint = last_checkpoint(job.folder / "checkpoints")
    if checkpoint:
        say.say(ev.Note(message=f"Goes on from {checkpoint.name}."))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    say.say(ev.Phase(name="saving"))
    artifact = "model" if isinstance(config.method, FullConfig) else "adapter"
    _save(trainer, job.folder / artifact, config, folder, revision)
    shutil.rmtree(job.folder / "tokens", ignore_errors=True)
    if say.stopped:
        return ev.Stopped(step=trainer.state.global_step, artifact=artifact)
    best = trainer.state.best_model_checkpoint
    return ev.Finished(artifact=artifact, best_step=int(best.rsplit("-", 1)[1]) if best else None)


def _total_steps(config: RunConfig, rows: int) -> int:
    steps = math.ceil(config.duration.epochs * math.ceil(rows / config.batch.effective_size))
    return min(steps, config.duration.max_steps or steps)


def _arguments(job: Job, config: RunConfig, on: models.Hardware, world: int, rows: TokenRows) -> SFTConfig:
    batch, optim, evaluation = config.batch, config.optim, config.evaluation
    if batch.effective_size % world:
        raise DatasetError(f"The batch size {batch.effective_size} cannot be shared by {world} devices.")
    share = batch.effective_size // world
    divisors = [size for size in range(1, min(AUTO_MICRO_LIMIT, share) + 1) if share % size == 0]
    micro = divisors[-1] if batch.micro_size == "auto" else batch.micro_size
    checkpointing = batch.activation_checkpointing
    if checkpointing == "auto":
        checkpointing = on.device == "cuda"
    steps = _total_steps(config, len(rows.train))
    every = max(1, math.ceil(steps / AUTO_EVALUATIONS)) if evaluation.steps == "auto" else evaluation.steps
    measured = rows.held_out is not None
    rate = optim.learning_rate
    return SFTConfig(
        output_dir=str(job.folder / "checkpoints"),
        seed=config.seed,
        data_seed=config.seed,
        # rows arrive as tokens and labels: nothing is left for TRL to prepare, cut or pack
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        pad_to_multiple_of=None if on.device == "cpu" else 8,
        train_sampling_strategy="group_by_length",
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
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=on.device == "cuda",
    )


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, with a held-out loss that is averaged over answer tokens instead of over batches."""

    def __init__(self, reporter: Reporter, encoder: Encoder, shown: list[Example], **options: Any) -> None:
        super().__init__(**options)
        self._say, self._encoder, self._shown = reporter, encoder, shown

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Token-weighted loss of the held-out rows; same keys as the trainer's own."""
        began = time.monotonic()
        self._say.say(ev.Phase(name="evaluating"))
        was_training = self.model.training
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                inputs = self._prepare_inputs(batch)
                tokens = int((inputs["labels"][:, 1:] != IGNORED).sum())
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(self.model, inputs)
                sums += torch.tensor([float(loss) * tokens, tokens], dtype=torch.float64)
            if self.is_world_process_zero():
                self._answer()
        self.model.train(was_training)
        if self.args.world_size > 1:
            device_sums = sums.to(self.args.device)
            torch.distributed.all_reduce(device_sums)
            sums = device_sums.cpu()
        loss, tokens = float(sums[0] / sums[1]), int(sums[1])
        perplexity = math.exp(loss) if loss < 700 else math.inf
        self._say.say(ev.Evaluation(step=self.state.global_step, loss=loss, perplexity=perplexity, tokens=tokens))
        self._say.say(ev.Phase(name="training"))
        self._say.pause(time.monotonic() - began)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self._metrics["eval"].clear()
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _answer(self) -> None:
        """The model's greedy answers to a few held-out prompts, as far as it is now."""
        model, tokenizer = self.accelerator.unwrap_model(self.model), self.processing_class
        for example in self._shown:
            asked, reference = example.messages[:-1], example.messages[-1].content
            ids = torch.tensor([self._encoder.prompt(asked)], device=model.device)
            with self.compute_loss_context_manager():
                out = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=SHOWN_TOKENS,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            self._say.say(
                ev.Sample(step=self.state.global_step, prompt=asked[-1].content, answer=answer, reference=reference)
            )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    for path in found:
        weights = list(path.glob("adapter_model.safetensors")) or list(path.glob("model*.safetensors"))
        state = (path / "trainer_state.json").is_file() and (path / "optimizer.pt").is_file()
        if weights and state and not (path / "checkpoint-is-incomplete.txt").exists():
            return path
    return None


def _save(trainer: _Trainer, folder: Path, config: RunConfig, base: Path, revision: str | None) -> None:
    """Write the result beside its place and move it there, so that a half-written one is never taken for whole."""
    if not trainer.is_world_process_zero():
        return
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    full = isinstance(config.method, FullConfig)
    models.stop_at(model, tokenizer)
    if full:
        model.to(models.stored_dtype(base))
    model.save_pretrained(draft)
    model.generation_config.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    (draft / "README.md").unlink(missing_ok=True)
    sources.name_base(draft / ("config.json" if full else "adapter_config.json"), config.model, revision)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
