"""Losses and greedy answers of a model for many rows at a time, padded on the left; the evaluation asks."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from ftapp.workers.tokens import IGNORED, TokenRow

T = TypeVar("T")
MOST_ROWS = 64
MOST_TOKENS = 16_384
"""Tokens in memory at once, padding included, for a start: halved where they do not fit."""
MOST_LOGITS = 2**27
"""Numbers: 0.5 GiB in fp32."""


class Interrupted(Exception):
    """Somebody asked to stop."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens, and how many tokens its answer may have."""

    ids: list[int]
    room: int


@dataclass(frozen=True)
class Written:
    """An answer as tokens, without the one that ends it."""

    ids: list[int]
    stopped: bool


class Asker:
    """One model; `stopped` is asked between any two steps, and raises Interrupted there."""

    def __init__(
        self, model: PreTrainedModel | PeftModel, stop_ids: Sequence[int], pad_id: int, stopped: Callable[[], bool]
    ) -> None:
        self._model, self._stop_ids, self._pad_id, self._stopped = model, list(stop_ids), pad_id, stopped
        self._plain: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
        parameters = inspect.signature(self._plain.forward).parameters
        self._positions = "position_ids" in parameters
        self._keeps = "logits_to_keep" in parameters
        self._vocabulary = int(self._plain.config.get_text_config().vocab_size)
        # a state that is carried along would have seen the padding
        self._most_rows = 1 if self._plain._is_stateful else MOST_ROWS

    def losses(self, rows: Sequence[TokenRow], done: Callable[[int], None]) -> list[tuple[float, int]]:
        """Each row's loss, nats, summed over the learned tokens, and their number."""
        tails = [_tail(row) if self._keeps else len(row.input_ids) for row in rows]

        def cost(members: list[int]) -> tuple[int, int]:
            longest = max(len(rows[n].input_ids) for n in members)
            return len(members) * longest, len(members) * max(tails[n] for n in members) * self._vocabulary

        order = sorted(range(len(rows)), key=lambda n: (-len(rows[n].input_ids), -tails[n]))
        found = self._in_batches(order, cost, lambda batch: self._loss([rows[n] for n in batch]), done)
        return [found[n] for n in range(len(rows))]

    def answers(self, prompts: Sequence[Prompt], done: Callable[[int], None]) -> list[Written]:
        """Each prompt's greedy answer."""

        def cost(members: list[int]) -> tuple[int, int]:
            longest = max(len(prompts[n].ids) for n in members)
            room = {prompts[n].room for n in members}
            # a batch ends where the room changes: nobody writes past the context
            return (len(members) * (longest + max(room)) if len(room) == 1 else 2**62), 0

        order = sorted(range(len(prompts)), key=lambda n: (-prompts[n].room, -len(prompts[n].ids)))
        found = self._in_batches(order, cost, lambda batch: self._write([prompts[n] for n in batch]), done)
        return [found[n] for n in range(len(prompts))]

    def _in_batches(
        self,
        order: list[int],
        cost: Callable[[list[int]], tuple[int, int]],
        work: Callable[[list[int]], list[T]],
        done: Callable[[int], None],
    ) -> dict[int, T]:
        """The work's result for each row; batches are halved from where one does not fit the memory."""
        found: dict[int, T] = {}
        most_rows = self._most_rows
        at = 0
        while at < len(order):
            if self._stopped():
                raise Interrupted
            batch = [order[at]]
            for number in order[at + 1 : at + most_rows]:
                tokens, logits = cost([*batch, number])
                if tokens > MOST_TOKENS or logits > MOST_LOGITS:
                    break
                batch.append(number)
            try:
                results = work(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                torch.cuda.empty_cache()
                most_rows = len(batch) // 2
                continue
            found |= dict(zip(batch, results, strict=True))
            at += len(batch)
            done(at)
        return found

    def _padded(self, rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self._pad_id)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, longest - len(row) :] = torch.tensor(row)
            mask[number, longest - len(row) :] = 1
        return {"input_ids": ids.to(self._model.device), "attention_mask": mask.to(self._model.device)}

    @torch.inference_mode()
    def _loss(self, rows: Sequence[TokenRow]) -> list[tuple[float, int]]:
        inputs: dict[str, Any] = self._padded([row.input_ids for row in rows])
        width = inputs["input_ids"].shape[1]
        if self._positions:
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        keep = width
        if self._keeps:
            keep = max(map(_tail, rows))
            inputs["logits_to_keep"] = keep
        logits = self._model(**inputs, use_cache=False).logits[:, -keep:-1]
        labels = torch.full((len(rows), width), IGNORED)
        for number, row in enumerate(rows):
            labels[number, width - len(row.labels) + 1 :] = torch.tensor(row.labels[1:])
        labels = labels[:, width - keep + 1 :].to(logits.device)
        found = []
        for one, wanted in zip(logits, labels, strict=True):  # row by row: fp32 copies of all would be large
            loss = torch.nn.functional.cross_entropy(one.float(), wanted, ignore_index=IGNORED, reduction="sum")
            found.append((float(loss), int((wanted != IGNORED).sum())))
        return found

    @torch.inference_mode()
    def _write(self, prompts: Sequence[Prompt]) -> list[Written]:
        inputs = self._padded([prompt.ids for prompt in prompts])
        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=prompts[0].room,
            eos_token_id=self._stop_ids,
            pad_token_id=self._pad_id,
        )
        criteria = StoppingCriteriaList([_Interrupt(self._stopped)])
        out = self._model.generate(**inputs, generation_config=config, stopping_criteria=criteria)
        if self._stopped():
            raise Interrupted
        return [self._cut(ids) for ids in out[:, inputs["input_ids"].shape[1] :].tolist()]

    def _cut(self, ids: list[int]) -> Written:
        for place, token in enumerate(ids):
            if token in self._stop_ids:
                return Written(ids[:place], True)
        return Written(ids, False)


class _Interrupt(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stopped(), device=input_ids.device, dtype=torch.bool)


def _tail(row: TokenRow) -> int:
    """Logits to keep: from the token before the first learned one to the last."""
    first = next(place for place, label in enumerate(row.labels) if place and label != IGNORED)
    return len(row.labels) - first + 1
