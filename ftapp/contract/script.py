"""A run as code: its config, the terminal's command, and a script for TRL and PEFT alone; pure text, for Studio."""

import shlex
from pathlib import PurePath

from ftapp.contract.base import Contract
from ftapp.contract.config import LEARNING_RATE, FullConfig, QloraConfig, RunConfig


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


HEAD = '''"""The run as a script of its own. It needs (packages).

Beside it lie the rows, as OpenAI's chat JSONL: train.jsonl and, if some are held out, held_out.jsonl.
Run it with: python train.py
"""

import json
import math
import os
import re

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch
from datasets import Dataset
(imports)
from trl import SFTConfig, SFTTrainer
'''

ROWS = '''
tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION)
PLAIN = (  # for a base model without a chat template
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '### Assistant:\\n' }}"
    "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{{ '\\n\\n' }}"
    "{% else %}{{ '### ' + m['role'].capitalize() + ':\\n' + m['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)
tokenizer.chat_template = tokenizer.chat_template or PLAIN
if tokenizer.pad_token_id is None:
    tokenizer.pad_token = tokenizer.eos_token
marked = re.search(r"\\{%-?\\s*generation\\s*-?%\\}", tokenizer.chat_template)


def encode(row):
    """A row as (input_ids, labels) pairs: the loss sees the assistant's answers, -100 hides the rest."""
    if "text" in row:
        ids = tokenizer(row["text"])["input_ids"]
        ids += [] if ids[-1:] == [tokenizer.eos_token_id] else [tokenizer.eos_token_id]
        return [(ids, ids)]
    tools, turns = row.get("tools"), [dict(turn, content=turn["content"] or "") for turn in row["messages"]]
    weights = [turn.pop("weight", 1) for turn in turns]  # 0: read, but not learned
    learned = [n for n, turn in enumerate(turns) if turn["role"] == "assistant" and weights[n] != 0]
    for call in [call for turn in turns for call in turn.get("tool_calls", [])]:
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    if marked and all(weights):
        # the template itself marks what the assistant says
        out = tokenizer.apply_chat_template(turns, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
        return [(out["input_ids"], [t if m else -100 for t, m in zip(out["input_ids"], out["assistant_masks"])])]

    def render(count, **options):
        return tokenizer.apply_chat_template(turns[:count], tools=tools, tokenize=False, **options)

    # else: what each answer adds to the text after its generation prompt
    texts = [(render(n, add_generation_prompt=True), render(n + 1)) for n in learned]
    whole = render(len(turns))
    if all(whole.startswith(before) and whole.startswith(after.rstrip()) for before, after in texts):
        return [mask(whole, [(len(before), len(after.rstrip())) for before, after in texts])]
    return [mask(after, [(len(before), len(after.rstrip()))]) for before, after in texts]  # a row for each answer


def mask(text, spans):
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    inside = [any(a <= start < end <= b for a, b in spans) for start, end in out["offset_mapping"]]
    return out["input_ids"], [t if learn else -100 for t, learn in zip(out["input_ids"], inside)]


# an answer ends with the first special token after its words: the model stops there
probe = encode({"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]})
special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
for token in reversed([label for label in probe[-1][1] if label != -100]):
    if token in special:
        stop = token
    elif tokenizer.decode([token]).strip():
        break
tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop)


def token_rows(path):
    rows = []
    for line in open(path, encoding="utf-8"):
        for ids, labels in encode(json.loads(line)):
            if TRUNCATE:
                ids, labels = ids[:limit], labels[:limit]
            if len(ids) <= limit and any(label != -100 for label in labels[1:]):  # else the row is left out
                rows.append({"input_ids": ids, "labels": labels})
    return Dataset.from_list(rows)

'''

DTYPE = """
cuda = torch.cuda.is_available()
dtype = torch.float32  # on a CPU; on a GPU bf16 where it is native, else fp16
if cuda:
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16"""

QUANTISED = """four_bit = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
)"""

KERNELS = """for module in model.modules():
    if hasattr(module, "support_avx512bf16_for_cpu"):  # after an evaluation it would take a kernel without gradients
        module.support_avx512bf16_for_cpu = False"""

GOING_ON = """saved = LoraConfig.from_pretrained(ADAPTER)
saved.lora_dropout, saved.inference_mode = (dropout), False
model = PeftModel.from_pretrained(model, ADAPTER, is_trainable=True, config=saved)
lora = None"""

STEPS = """
context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 4096
limit = MAX_LENGTH or min(context, 4096)
train = token_rows("train.jsonl")
steps = math.ceil(EPOCHS * math.ceil(len(train) / BATCH))
steps = min(steps, MAX_STEPS or steps)
"""

ARGUMENTS = """arguments = SFTConfig(
    output_dir="checkpoints",
    seed=SEED,
    data_seed=SEED,
    num_train_epochs=EPOCHS,
    max_steps=steps if MAX_STEPS else -1,
    per_device_train_batch_size=MICRO,  # lower it if the memory does not suffice
    per_device_eval_batch_size=MICRO,
    gradient_accumulation_steps=BATCH // MICRO,
    (options)
    dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokens already
    max_length=None,
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    use_cpu=not cuda,
    logging_steps=1,
    save_total_limit=2,
)
"""

START = """
trainer.model.save_pretrained("initial")  # this start changes the base's weights: what is saved is the difference"""

TRAIN = """
class Order:
    '''Batches of rows drawn at random, by length inside a batch: little padding. Depends on seed and epoch alone.'''

    lengths = torch.tensor([len(ids) for ids in train["input_ids"]])

    def __iter__(self):
        generator = torch.Generator().manual_seed(SEED + int((trainer.state.epoch or 0) + 1e-6))
        batches = list(torch.randperm(len(self), generator=generator).split(BATCH))
        first = next(number for number, batch in enumerate(batches) if int(self.lengths.argmax()) in batch)
        if first < len(batches) - 1:  # the longest row first: if it does not fit, that shows at once
            batches[0], batches[first] = batches[first], batches[0]
        for batch in batches:
            yield from batch[self.lengths[batch].argsort(descending=True, stable=True)].tolist()

    def __len__(self):
        return len(self.lengths)


class Trainer(SFTTrainer):
    def _get_train_sampler(self, *_):
        return Order()


trainer = Trainer(
    model=model,
    args=arguments,
    train_dataset=train,
    eval_dataset=(held out),
    processing_class=tokenizer,
    peft_config=lora,
    callbacks=(callbacks),
)(start)
for parameter in trainer.model.parameters():
    if parameter.requires_grad:
        parameter.data = parameter.data.float()
trainer.train()
trainer.model.save_pretrained("(result)"(conversion))
tokenizer.save_pretrained("(result)")
"""
