"""A run as code: its config, the terminal's command, and a script for TRL and PEFT alone; pure text, for Studio."""

import shlex
from pathlib import PurePath

from ftapp.contract.base import Contract
from ftapp.contract.config import LEARNING_RATE, FullConfig, QloraConfig, RunConfig
from ftapp.contract.script_parts import (
    ARGUMENTS,
    DTYPE,
    GOING_ON,
    HEAD,
    KERNELS,
    QUANTISED,
    ROWS,
    START,
    STEPS,
    TRAIN,
)


class Code(Contract):
    """The same run three times."""

    config_json: str
    """What `python -m ftapp train` reads; save it as config.json."""
    command: str
    """The terminal's line, run where config.json lies."""
    script: str
    """Python; reads train.jsonl and held_out.jsonl beside it and needs no ftapp."""


def code(
    config: RunConfig, model: str, home: PurePath | None = None, adapter: str = "", revision: str | None = None
) -> Code:
    """The run as code; `model` is a Hub id or a folder, `home` is FTAPP_HOME where that is not the usual one.

    `adapter` is the folder of one to go on from, `revision` the base's that it was trained on.
    """
    prefix = f"FTAPP_HOME={shlex.quote(str(home))} " if home else ""
    return Code(
        config_json=config.model_dump_json(indent=2) + "\n",
        command=f"{prefix}python -m ftapp train config.json",
        script=_script(config, model, adapter, revision),
    )


def _script(config: RunConfig, model: str, adapter: str, revision: str | None) -> str:
    """Constants first, each a literal by repr(), so that no text of a person can become code; then the fixed parts."""
    method, optim, batch, duration, evaluation = (
        config.method, config.optim, config.batch, config.duration, config.evaluation,
    )  # fmt: skip
    data = config.data
    measured = data.eval_fraction > 0 or data.eval_dataset is not None
    rate = LEARNING_RATE[method.type] if optim.learning_rate == "auto" else optim.learning_rate
    constants = {
        "MODEL": model,
        "REVISION": config.model.revision or revision,
        "SEED": config.seed,
        "MAX_LENGTH": None if data.max_length == "auto" else data.max_length,
        "TRUNCATE": data.over_length == "truncate",
        "BATCH": batch.effective_size,
        "MICRO": max(n for n in range(1, 9) if batch.effective_size % n == 0)
        if batch.micro_size == "auto"
        else batch.micro_size,
        "EPOCHS": duration.epochs,
        "MAX_STEPS": duration.max_steps,
    }
    if adapter:
        constants["ADAPTER"] = adapter
    parts = [_head(config, adapter)]
    parts += [f"{name} = {value!r}" for name, value in constants.items()]
    parts += [ROWS, _model(config, adapter), STEPS]
    options = {
        "learning_rate": rate,
        "lr_scheduler_type": optim.lr_scheduler_type,
        "warmup_steps": optim.warmup_fraction,
        "weight_decay": optim.weight_decay,
        "max_grad_norm": optim.max_grad_norm,
        "report_to": config.tracking,
    }
    if batch.activation_checkpointing != "auto":
        options["activation_checkpointing"] = batch.activation_checkpointing
    if batch.packing is True:
        options["padding_free"] = True  # rows end to end instead of padded: needs flash-attn
    lines = [f"    {name}={value!r}," for name, value in options.items()]
    if batch.activation_checkpointing == "auto":
        lines.append("    activation_checkpointing=cuda,")
    if measured:
        every = "max(1, math.ceil(steps / 5))" if evaluation.steps == "auto" else repr(evaluation.steps)
        lines += [
            '    eval_strategy="steps",',
            f"    eval_steps={every},",
            f"    save_steps={every},",
            f"    load_best_model_at_end={evaluation.keep_best!r},",
            '    metric_for_best_model="eval_loss",',
        ]
    else:
        lines.append('    save_strategy="no",')
    parts += [ARGUMENTS.replace("    (options)", "\n".join(lines)), _train(config, adapter, measured)]
    return "\n".join(parts)


def _head(config: RunConfig, adapter: str) -> str:
    packages, names, imports = "torch, transformers, trl, peft and datasets", "AutoModelForCausalLM, AutoTokenizer", ""
    if isinstance(config.method, QloraConfig):
        packages, names = f"bitsandbytes, {packages}", f"{names}, BitsAndBytesConfig"
    if not isinstance(config.method, FullConfig):
        imports = f"from peft import LoraConfig{', PeftModel' if adapter else ''}\n"
    if config.evaluation.early_stopping_patience:
        names += ", EarlyStoppingCallback"
    imports += f"from transformers import {names}"
    return HEAD.replace("(packages)", packages).replace("(imports)", imports)


def _model(config: RunConfig, adapter: str) -> str:
    method = config.method
    lines = [DTYPE]
    options = [f"dtype={'torch.float32' if isinstance(method, FullConfig) else 'dtype'}"]
    if isinstance(method, QloraConfig):
        lines.append(QUANTISED)
        options.append("quantization_config=four_bit")
    if config.batch.packing is True:
        options.append('attn_implementation="flash_attention_2"')
    options.append('device_map={"": 0} if cuda else None')
    lines.append(
        f"model = AutoModelForCausalLM.from_pretrained(\n    MODEL, revision=REVISION, {', '.join(options)}\n)"
    )
    if isinstance(method, QloraConfig):
        lines.append(KERNELS)
    if isinstance(method, FullConfig):
        return "\n".join([*lines, "lora = None"])
    if adapter:
        lines.append(GOING_ON.replace("(dropout)", repr(method.dropout)))
        return "\n".join(lines)
    targets = [name.strip() for name in method.target_modules.split(",")]
    values = {
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": "all-linear" if targets == ["all-linear"] else targets,
        "task_type": "CAUSAL_LM",
    }
    if method.rslora:
        values["use_rslora"] = True
    if method.dora:
        values["use_dora"] = True
    if method.init != "default":
        values["init_lora_weights"] = method.init
    shown = "\n".join(f"    {name}={value!r}," for name, value in values.items())
    return "\n".join([*lines, f"lora = LoraConfig(\n{shown}\n)"])


def _train(config: RunConfig, adapter: str, measured: bool) -> str:
    method = config.method
    held_out = '"held_out.jsonl"' if measured else None
    text = TRAIN.replace("(held out)", f"token_rows({held_out})" if held_out else "None")
    base_changes = not isinstance(method, FullConfig) and method.init in ("pissa", "olora") and not adapter
    text = text.replace("(start)", START if base_changes else "")
    patience = config.evaluation.early_stopping_patience
    text = text.replace("(callbacks)", f"[EarlyStoppingCallback({patience})]" if patience else "None")
    text = text.replace(
        "(conversion)", ', path_initial_model_for_weight_conversion="./initial"' if base_changes else ""
    )
    return text.replace("(result)", "model" if isinstance(method, FullConfig) else "adapter")
