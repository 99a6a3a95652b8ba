"""The demo's tokenizer, its untrained model, and the loop that teaches the model the corpus."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ftapp.demo.corpus import conversation
from ftapp.demo.facts import Fact, load_facts

VOCABULARY = 2048
POSITIONS = 256
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
TOKENIZER_PASSES = 20

BATCH = 64
BATCHES_SORTED_TOGETHER = 32
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 60
DECAY_SHARE = 0.6  # of the steps, those at the end on which the learning rate falls to zero
MATRIX_WEIGHT_DECAY = 0.05
ADAMW_BETAS = (0.9, 0.98)
LARGEST_GRADIENT = 1.0
PROMPT_WEIGHT = 0.1  # of a prompt's token in the loss; an answer's counts 1


@dataclass(frozen=True)
class Batch:
    """Padded token ids, and what each token weighs in the loss."""

    ids: torch.Tensor
    weights: torch.Tensor


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the corpus, with the chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = Random(seed)
    facts = shuffled_forever(rng)
    talks = (conversation(facts, rng) for _ in range(TOKENIZER_PASSES * len(load_facts())))
    bpe.train_from_iterator((f"{m['role']}\n{m['content']}" for talk in talks for m in talk), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        bos_token=None,
        unk_token=None,
        model_max_length=POSITIONS,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The untrained model: a Llama of 3.74 million parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int, bfloat16: bool
) -> Iterator[float]:
    """Teaches `model` the corpus in `steps` batches, and yields the loss after each."""
    batches = corpus_batches(tokenizer, seed)
    optimizers = _optimizers(model)
    model.train()
    for step in range(steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = _loss(model, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        yield loss.item()
    model.eval()


def shuffled_forever(rng: Random) -> Iterator[Fact]:
    """The facts in shuffled rounds without end, each equally often."""
    facts = load_facts()
    while True:
        rng.shuffle(facts)
        yield from facts


def corpus_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Batches without end; the rows of one are about equally long."""
    rng = Random(seed)
    facts = shuffled_forever(rng)
    while True:
        talks = [conversation(facts, rng) for _ in range(BATCH * BATCHES_SORTED_TOGETHER)]
        tokens: Any = tokenizer.apply_chat_template(
            talks, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        rows = sorted(zip(tokens["input_ids"], tokens["assistant_masks"], strict=True), key=lambda row: len(row[0]))
        pieces = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        rng.shuffle(pieces)
        for piece in pieces:
            yield _padded(piece, tokenizer.pad_token_id)


def _padded(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), pad)
    weights = torch.zeros(len(rows), longest)
    for place, (row, answer_mask) in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        weights[place, : len(row)] = torch.tensor(answer_mask).clamp(min=PROMPT_WEIGHT)
    return Batch(ids, weights)


def _loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    logits = model(input_ids=batch.ids[:, :-1], use_cache=False).logits
    each = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (each * weights).sum() / weights.sum()


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
    return [
        torch.optim.Muon(matrices, weight_decay=MATRIX_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=ADAMW_BETAS, weight_decay=0.0),
    ]


def _learning_rate(step: int, steps: int) -> float:
    warming = (step + 1) / WARMUP_STEPS
    falling = (steps - step) / (DECAY_SHARE * steps)
    return PEAK_LEARNING_RATE * min(1.0, warming, falling)
