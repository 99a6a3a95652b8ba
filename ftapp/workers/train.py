"""Train: from a run's config and rows to an adapter or a model, and what is said on the way."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import PartialState
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel, set_seed

from ftapp import host
from ftapp.contract import events as ev
from ftapp.contract.config import TARGETS, FullConfig, ModelConfig, QloraConfig, RunConfig, remarks
from ftapp.contract.errors import ModelError
from ftapp.contract.memory import AUTO_LENGTH_LIMIT, CONTEXT, Machine, estimate, resolve
from ftapp.contract.parameters import target_problem
from ftapp.contract.refusals import refusal
from ftapp.store.accelerator import wait_until_free
from ftapp.store.adapters import adapter_folder, disagreements, measured_before, pinned_revision
from ftapp.store.checkpoints import best_step, last_whole, step_of
from ftapp.store.datasets import DatasetStore
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.store.weights import fingerprint, model_in
from ftapp.workers import models, sources
from ftapp.workers.arguments import early_stopping, total_steps, trainer_arguments
from ftapp.workers.continuing import Before, text_hash
from ftapp.workers.order import step_cost
from ftapp.workers.reporting import Reporter, StopAsked
from ftapp.workers.rows import TokenRows
from ftapp.workers.tokens import Encoder, context_of, load_tokenizer
from ftapp.workers.trainer import Trainer

MICRO_BATCH_TOKENS = {"cpu": 64, "cuda": 2048}
"""What a micro-batch costs beside its tokens, in tokens, about: starting the kernels, reading the weights."""
INITIAL = "initial"
"""Where an adapter is kept that starts from the base's own weights, while it is trained."""


def train(job: Job, events: EventLog | None) -> ev.Event:
    """Run the job's config to its end; returns Finished or Stopped, raises FtappError."""
    try:
        return _train(job, Reporter(events, job.folder / "stop"))
    except StopAsked:
        before = last_whole(job.folder / "checkpoints")
        kept = next((name for name in ("adapter", "model") if (job.folder / name).is_dir()), None)
        best = best_step(before) if before and kept and job.run_config().evaluation.keep_best else None
        return ev.Stopped(step=step_of(before) if before else 0, artifact=kept, best_step=best)


def _train(job: Job, say: Reporter) -> ev.Event:
    config = job.run_config()
    on = models.hardware()
    models.check_triton(on)
    world = int(os.environ.get("WORLD_SIZE", "1"))

    before = Before(job)
    for found in before.notes:
        say.say(found)
    for remark in remarks(config):
        say.say(ev.Note(message=remark))
    earlier = Job(job.folder.parent / config.model.adapter) if config.model.adapter else None
    base = before.model(_pinned(config, earlier) if earlier else config.model)
    token = os.environ.get("HF_TOKEN")
    folder, revision = sources.find_files(base, token, say.say, weights=False)
    if earlier and revision != pinned_revision(earlier):
        raise ModelError(
            f"{earlier.name} trained its adapter on revision {pinned_revision(earlier)}, this config names {revision}.",
            "Leave the revision empty to take the adapter's.",
        )
    # the rows before the weights: what is wrong with them is told before a long download
    say.say(ev.Phase(name="tokenising"))
    name = config.model.public_name
    encoder = Encoder(load_tokenizer(folder), name)
    for remark in encoder.notes:
        say.say(ev.Note(message=remark))
    runs = job.folder.parent
    if known := measured_before(DatasetStore(runs.parent / "datasets"), config, runs):
        say.say(ev.Note(level="warning", message=known))
    limit = context_of(folder, name) or AUTO_LENGTH_LIMIT
    rows = TokenRows(job, config, encoder, min(limit, AUTO_LENGTH_LIMIT), say.say)
    if rows.longest > limit:
        words = f"The longest row has {rows.longest:,} tokens, {name} was made for {limit:,}: lower the maximum length."
        say.say(ev.Note(level="warning", message=words))
    template_hash = text_hash(str(encoder.tokenizer.chat_template))
    for difference in before.check(template_hash, rows.hash):
        say.say(difference)

    folder, _ = sources.find_files(base.model_copy(update={"revision": revision}), token, say.say)
    headers, weights_hash = model_in(folder), fingerprint(folder)
    before.check_weights(weights_hash, earlier)
    fresh = earlier is None and before.checkpoint is None
    if fresh and (problem := target_problem(headers.groups, config.method, headers.facts)):
        raise refusal({TARGETS: problem})
    wait_until_free(runs.parents[1], lambda words: say.say(ev.Phase(name=words)))
    say.say(ev.Phase(name="loading"))
    dtype = models.training_dtype(config.method, on)
    model = models.load_base(folder, name, on, dtype, quantised=isinstance(config.method, QloraConfig))
    packing = _packing(config, on, model)
    # where the trackers that are not asked for a place would else leave files
    os.environ |= {"TENSORBOARD_LOGGING_DIR": str(job.folder / "tensorboard"), "WANDB_DIR": str(job.folder)}
    machine = _of_every_rank(_machine(on), on, world)
    share, overhead = config.batch.effective_size // world, MICRO_BATCH_TOKENS[machine.kind]
    plan = resolve(
        headers, config, machine, rows.longest, world, lambda micro: step_cost(rows.lengths, share, micro, overhead)
    )
    predicted = estimate(headers, config, plan, machine)
    arguments = trainer_arguments(job, config, on, world, rows, plan, packing)
    total = sum(p.numel() for p in model.parameters())
    if isinstance(config.method, QloraConfig):
        total = int(model.num_parameters())
    trainable = _trainable(model, job, config, earlier)
    with _trained_in_fp32(trainable):
        trainer = Trainer(
            reporter=say,
            rows=rows,
            model=trainable,
            args=arguments,
            train_dataset=rows.train,
            eval_dataset=rows.held_out,
            processing_class=encoder.tokenizer,
            callbacks=[say, *early_stopping(config, before.checkpoint)],
        )
    say.say(
        ev.Resolved(
            values={
                "model.revision": revision,
                "model.licence": sources.licence(folder),
                "data.max_length": rows.max_length,
                **_adapted(trainer.model),
                "optim.learning_rate": arguments.learning_rate,
                "batch.micro_size": arguments.per_device_train_batch_size,
                "batch.packing": packing,
                "batch.activation_checkpointing": arguments.activation_checkpointing,
                "memory.predicted": predicted.allocated,
                "memory.predicted_peak": predicted.peak,
                "evaluation.steps": int(arguments.eval_steps or arguments.save_steps),
                "dtype": str(dtype).removeprefix("torch."),
                "device": on.name,
            },
            train_rows=len(rows.train),
            eval_rows=len(rows.held_out) if rows.held_out is not None else 0,
            longest_row=rows.longest_row,
            left_out_rows=rows.left_out,
            train_tokens=rows.train_tokens,
            trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            total_parameters=total,
            total_steps=total_steps(config, len(rows.train)),
            start_step=before.step,
            template_hash=template_hash,
            data_hash=rows.hash,
            weights_hash=weights_hash,
        )
    )
    trainer.train(resume_from_checkpoint=str(before.checkpoint) if before.checkpoint else None)

    say.say(ev.Phase(name="saving"))
    artifact = "model" if isinstance(config.method, FullConfig) else "adapter"
    _save(trainer, job.folder / artifact, config, folder, revision)
    if trainer.is_world_process_zero():
        for left in ("tokens", INITIAL):
            shutil.rmtree(job.folder / left, ignore_errors=True)
    best = trainer.state.best_model_checkpoint if arguments.load_best_model_at_end else None
    kept = step_of(Path(best)) if best else None
    if say.stopped:
        return ev.Stopped(step=trainer.state.global_step, artifact=artifact, best_step=kept)
    return ev.Finished(artifact=artifact, best_step=kept)


def _pinned(config: RunConfig, earlier: Job) -> ModelConfig:
    """The base of the adapter to go on from; raises ConfigError or JobError where the config does not fit it."""
    if problems := disagreements(config, earlier):
        raise refusal(problems)
    return config.model.model_copy(update={"revision": config.model.revision or pinned_revision(earlier)})


def _packing(config: RunConfig, on: models.Hardware, model: PreTrainedModel) -> bool:
    """Whether rows are laid end to end, resolved; raises ModelError where that was asked for and would be wrong."""
    wanted = config.batch.packing
    if wanted is False:
        return False
    possible = on.flash and models.attend_by_flash(model)
    if wanted is True and not possible:
        raise ModelError(
            f"{config.model.public_name} cannot be trained with packing here: it needs flash-attn on a GPU of compute "
            "capability 8.0, and a model of attention layers only.",
            "Choose auto for packing.",
        )
    return possible


def _trainable(base: PreTrainedModel, job: Job, config: RunConfig, earlier: Job | None) -> PreTrainedModel | PeftModel:
    """The base itself, or the base with an adapter: a new one, or an earlier run's."""
    if isinstance(config.method, FullConfig):
        return base
    if earlier:
        return models.adapter_to_go_on_from(base, adapter_folder(earlier), config.method)
    set_seed(config.seed)
    model = models.new_adapter(base, config.method)
    if config.method.init in ("pissa", "olora") and int(os.environ.get("RANK", "0")) == 0:
        # these change the base's weights: the saved adapter is what training added to this start
        model.save_pretrained(job.folder / INITIAL)
    return model


@contextmanager
def _trained_in_fp32(model: torch.nn.Module) -> Iterator[None]:
    """What is trained has its values of before in fp32 afterwards."""
    # TRL's trainer rounds QLoRA's adapter to bf16, which fp16's gradient scaler refuses and small updates vanish in
    kept = [(parameter, parameter.data.float()) for parameter in model.parameters() if parameter.requires_grad]
    yield
    for parameter, values in kept:
        parameter.data = values.to(parameter.device)


def _adapted(model: Any) -> dict[str, str]:
    """What `method.target_modules` came to: how many layers of each name have an adapter; empty without one."""
    names = [name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    # of two adapted tensors of one module PEFT wraps one around the other
    counts = ", ".join(f"{count} {name}" for name, count in Counter(names).items() if name != "base_layer")
    return {"method.target_modules": counts} if counts else {}


def _machine(on: models.Hardware) -> Machine:
    """What this process could use in all, what it holds already included."""
    if on.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return Machine(
            kind="cuda", name=on.name, total=total, free=free + torch.cuda.memory_reserved() + CONTEXT["cuda"]
        )
    memory = host.memory()
    held = int(psutil.Process().memory_info().rss)
    return Machine(kind="cpu", name=on.name, total=memory.total, free=min(memory.total, memory.free + held))


def _of_every_rank(machine: Machine, on: models.Hardware, world: int) -> Machine:
    """The least that any rank has: they must resolve the batch alike, or some wait forever for steps of the others."""
    if world == 1:
        return machine
    device = PartialState(cpu=on.device == "cpu").device
    least = torch.tensor([machine.total, machine.free], dtype=torch.int64, device=device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    total, free = least.tolist()
    return machine.model_copy(update={"total": total, "free": free})


def _save(trainer: Trainer, folder: Path, config: RunConfig, base: Path, revision: str | None) -> None:
    """Write the result beside its place and move it there, so that a half-written one is never taken for whole."""
    if not trainer.is_world_process_zero():
        return
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    full = isinstance(config.method, FullConfig)
    models.stop_at(model, tokenizer)
    options: dict[str, Any] = {}
    if full:
        model.to(models.stored_dtype(base))
    elif (initial := folder.with_name(INITIAL)).is_dir():
        options["path_initial_model_for_weight_conversion"] = str(initial)
    model.save_pretrained(draft, **options)
    model.generation_config.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    (draft / "README.md").unlink(missing_ok=True)
    sources.name_base(draft / ("config.json" if full else "adapter_config.json"), config.model, revision)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
