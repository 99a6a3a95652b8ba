"""The parts of the script that are the same for every run, but for what stands in parentheses; for script.py."""

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
