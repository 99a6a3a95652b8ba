"""Is the merged model what was trained? Read it back from disk and compare it with base and adapter."""

import gc
import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftapp import host
from ftapp.contract import events as ev
from ftapp.contract.errors import DatasetError, ModelError
from ftapp.contract.examples import Example, Message, RowProblem
from ftapp.store.accelerator import held
from ftapp.store.datasets import DatasetStore
from ftapp.store.jobs import Job
from ftapp.store.weights import tensors
from ftapp.workers import models
from ftapp.workers.tokens import IGNORED, Encoder, TokenRow, load_tokenizer

ROWS, PROMPTS, NEW_TOKENS = 8, 4, 32
LONGEST, POSITIONS = 512, 32
"""Tokens of a row that are read, and places in its answer that are compared."""

NOTHING = 1e-3
"""Nats a token that rounding to 16 bit may cost whatever the training changed."""
OF_THE_CHANGE, MOST, AGREEMENT = 0.1, 0.1, 0.9
"""A merge may differ by so much of what the training changed, by so many nats; and must agree at so many places."""
RESERVE = 1.25
"""Memory that a loaded model needs while it computes, against its weights."""

WITHOUT_ROWS = (
    "Hello! Who are you?",
    "Write one sentence about the sea.",
    "What is 12 plus 30?",
    "Name three colours.",
)

Say = Callable[[ev.Event], None]


@dataclass
class _Said:
    """What base + adapter said."""

    logs: list[torch.Tensor] = field(default_factory=list)
    """Log-probabilities at the places compared, one tensor (places, vocabulary) for each row."""
    answers: list[list[int]] = field(default_factory=list)
    change: float = 0.0


class Verification:
    """The comparison of one merged model with the run that it came from."""

    def __init__(self, run: Job, base: Path, adapter: Path, merged: Path, say: Say) -> None:
        self._base, self._adapter, self._merged, self._say = base, adapter, merged, say
        self._name, self._home = run.run_config().model.public_name, run.folder.parents[2]
        self._encoder = Encoder(load_tokenizer(adapter), self._name)
        self._rows, self._prompts, self._held_out = _material(run, self._encoder)
        self._on, self._dtype = _where(base)

    def run(self) -> ev.Verified:
        """One model in memory after the other; raises ModelError if there is not enough for one."""
        with held(self._home) if self._on.device == "cuda" else nullcontext():
            return self._compare()

    def _compare(self) -> ev.Verified:
        total = 2 * len(self._rows)
        self._say(ev.Phase(name="verifying", done=0, total=total))
        said = self._ask_tuned(total)
        gc.collect()
        if self._on.device == "cuda":
            torch.cuda.empty_cache()
        merged = self._load(self._merged)
        same_place = places = 0
        divergence = 0.0
        for number, (row, log) in enumerate(zip(self._rows, said.logs, strict=True), 1):
            mine = self._logs(merged, row)
            divergence += _divergence(log, mine)
            same_place += int((log.argmax(-1) == mine.argmax(-1)).sum())
            places += log.shape[0]
            self._say(ev.Phase(name="verifying", done=len(self._rows) + number, total=total))
        answers = [self._answer(merged, prompt) for prompt in self._prompts]
        problems = _problems(self._base, self._adapter, self._merged, merged, self._encoder.tokenizer)
        mean, change = divergence / places, said.change / places
        allowed = min(MOST, max(NOTHING, OF_THE_CHANGE * change))
        return ev.Verified(
            passed=not problems and mean <= allowed and same_place / places >= AGREEMENT,
            rows=len(self._rows),
            held_out=self._held_out,
            positions=places,
            top1=same_place / places,
            divergence=mean,
            change=change,
            answers=len(answers),
            same_answers=sum(mine == other for mine, other in zip(answers, said.answers, strict=True)),
            precision=str(self._dtype).removeprefix("torch."),
            problems=problems,
        )

    def _ask_tuned(self, total: int) -> _Said:
        tuned = models.attach_adapter(self._load(self._base), self._adapter).eval()
        said = _Said()
        for number, row in enumerate(self._rows, 1):
            log = self._logs(tuned, row)
            with tuned.disable_adapter():
                said.change += _divergence(log, self._logs(tuned, row))
            said.logs.append(log)
            self._say(ev.Phase(name="verifying", done=number, total=total))
        said.answers = [self._answer(tuned, prompt) for prompt in self._prompts]
        return said

    def _load(self, folder: Path) -> PreTrainedModel:
        return models.load_base(folder, self._name, self._on, self._dtype).eval()

    @torch.no_grad()
    def _logs(self, model: PreTrainedModel | PeftModel, row: TokenRow) -> torch.Tensor:
        ids = torch.tensor([row.input_ids], device=model.device)
        learned = [place for place, label in enumerate(row.labels[1:]) if label != IGNORED]
        places = learned[:: math.ceil(len(learned) / POSITIONS)]
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return torch.log_softmax(logits[0, places].float(), -1).cpu()

    @torch.no_grad()
    def _answer(self, model: PreTrainedModel | PeftModel, prompt: list[int]) -> list[int]:
        ids = torch.tensor([prompt], device=model.device)
        out: Any = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=self._encoder.stop_id,
            pad_token_id=self._encoder.tokenizer.pad_token_id,
        )
        return list(out[0, len(prompt) :].tolist())


def _divergence(one: torch.Tensor, other: torch.Tensor) -> float:
    """Kullback-Leibler divergence from log-probabilities to others, summed over the places."""
    return max(0.0, float((one.exp() * (one - other)).sum()))  # rounding can make nothing less than nothing


def _where(base: Path) -> tuple[models.Hardware, torch.dtype]:
    """Where one of the models fits, and in what precision; raises ModelError if nowhere."""
    shapes, stored = tensors(base)
    values = sum(math.prod(shape) for shape in shapes.values())
    on = models.hardware()
    if on.device == "cuda" and torch.cuda.mem_get_info()[0] > 2 * values * RESERVE:
        return on, on.dtype
    free = host.memory().free
    on = models.Hardware("cpu", "CPU", torch.float32)
    if free > 4 * values * RESERVE:
        return on, torch.float32
    if free > stored * RESERVE:
        return on, models.stored_dtype(base)
    raise ModelError(
        f"The merged model cannot be checked: loading it takes {stored * RESERVE / 2**30:.1f} GiB of memory, "
        f"{free / 2**30:.1f} GiB are free.",
        "Free some memory, or publish the adapter.",
    )


def _material(run: Job, encoder: Encoder) -> tuple[list[TokenRow], list[list[int]], bool]:
    """Rows to read and prompts to answer: held-out ones, else rows of the training, else a few of our own."""
    config = run.run_config()
    try:
        training, held, overlap = DatasetStore(run.folder.parents[1] / "datasets").sides(config.data, config.seed)
        examples = list(islice(held if overlap.eval_rows else training, ROWS))
        held_out = overlap.eval_rows > 0
    except (DatasetError, OSError):  # it was deleted since
        examples, held_out = [], False
    rows = list(islice(_encoded(examples, encoder), ROWS))
    prompts = [encoder.prompt(example.messages[:-1])[-LONGEST:] for example in examples if len(example.messages) > 1]
    if not rows:
        asked = [[Message(role="user", content=text)] for text in WITHOUT_ROWS]
        prompts, held_out = [encoder.prompt(messages) for messages in asked], False
        rows = [TokenRow(prompt, prompt) for prompt in prompts]
    return rows, (prompts or [row.input_ids[: LONGEST // 4] for row in rows])[:PROMPTS], held_out


def _encoded(examples: list[Example], encoder: Encoder) -> Iterator[TokenRow]:
    for example in examples:
        try:
            found = encoder.encode(example)
        except RowProblem:
            continue
        for row in found:
            cut = TokenRow(row.input_ids[:LONGEST], row.labels[:LONGEST])
            if any(label != IGNORED for label in cut.labels[1:]):
                yield cut


def _problems(
    base: Path, adapter: Path, merged: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """What others would stumble over when they load the merged model."""
    found = []
    config = json.loads((merged / "config.json").read_text())
    if "quantization_config" in config:
        found.append("config.json asks for quantisation")
    if config.get("tie_word_embeddings") != json.loads((base / "config.json").read_text()).get("tie_word_embeddings"):
        found.append("tie_word_embeddings is not as in the base")
    if load_tokenizer(merged).chat_template != tokenizer.chat_template:
        found.append("the chat template is not that of the training")
    if not _stops(adapter) <= _stops(merged):
        found.append("generation_config.json lacks a stop token of the training")
    if (rows := model.get_input_embeddings().weight.shape[0]) < len(tokenizer):
        found.append(f"the tokenizer has {len(tokenizer)} tokens, the model {rows}")
    return found


def _stops(folder: Path) -> set[int]:
    known = json.loads((folder / "generation_config.json").read_text()).get("eos_token_id")
    return set(known if isinstance(known, list) else [known])
