"""TRL's trainer with this app's order of rows, held-out loss and answers on the way; only train.py makes one."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import SCALER_NAME
from trl import SFTTrainer

from ftapp.contract import events as ev
from ftapp.workers.order import EpochOrder
from ftapp.workers.reporting import Reporter
from ftapp.workers.rows import TokenRows
from ftapp.workers.tokens import IGNORED


class Trainer(SFTTrainer):  # type: ignore[misc]
    """One that measures by answer tokens instead of by batches, and tells the reporter."""

    def __init__(self, reporter: Reporter, rows: TokenRows, **options: Any) -> None:
        super().__init__(**options)
        self._say, self._rows = reporter, rows

    def _get_train_sampler(self, *_: Any) -> EpochOrder:
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochOrder(self._rows.lengths, size, self.args.data_seed, lambda: self.state.epoch or 0.0)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Token-weighted loss of the held-out rows, NaN if it was broken off; same keys as the trainer's own."""
        began, whole = time.monotonic(), True
        self._say.say(ev.Phase(name="evaluating"))
        was_training = self.model.training
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            batches = self.get_eval_dataloader()
            for batch in batches:
                inputs = self._prepare_inputs(batch)
                self._forget_repeated(inputs, len(self._rows.held_out or ()), self.args.eval_batch_size)
                tokens = int((inputs["labels"][:, 1:] != IGNORED).sum())
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(self.model, inputs)
                sums += torch.tensor([float(loss) * tokens, tokens], dtype=torch.float64)
                if self._say.measuring_must_end(self.args):
                    whole = False
                    batches.end()
                    break
            if whole and not self._say.stopped and self.is_world_process_zero():
                self._answer()
        self.model.train(was_training)
        if not whole:
            self._say.pause(time.monotonic() - began)
            self._say.say(ev.Phase(name="training"))
            self._say.say(ev.Note(message=f"The measurement at step {self.state.global_step} was broken off."))
            return {f"{metric_key_prefix}_loss": math.nan}  # which is never the best
        if self.args.world_size > 1:
            device_sums = sums.to(self.args.device)
            torch.distributed.all_reduce(device_sums)
            sums = device_sums.cpu()
        loss, tokens = float(sums[0] / sums[1]), int(sums[1])
        perplexity = math.exp(loss) if loss < 700 else math.inf
        seconds = time.monotonic() - began
        self._say.say(
            ev.Evaluation(step=self.state.global_step, loss=loss, perplexity=perplexity, tokens=tokens, seconds=seconds)
        )
        self._say.say(ev.Phase(name="training"))
        self._say.pause(seconds)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self._metrics["eval"].clear()
        self.log(metrics)
        if not self._say.unplanned:  # one more than the run would have had: early stopping must not count it
            self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        if batch_samples:
            self._forget_repeated(batch_samples[-1], len(self._rows.lengths), self.args.train_batch_size)
        return super()._get_num_items_in_batch(batch_samples, device)

    def _forget_repeated(self, inputs: dict[str, Any], count: int, size: int) -> None:
        """Rows that fill up the last batch of `count` rows so that every rank has `size`: they were there already."""
        # accelerate knows the remainder, too, but not where it has skipped batches for a resume
        remainder = count % (size * self.args.world_size)
        if self.args.world_size == 1 or not self.accelerator.gradient_state.end_of_dataloader or not remainder:
            return
        labels, starts = inputs["labels"], inputs.get("cu_seq_lens_q")  # the latter where rows are laid end to end
        rows = labels.shape[0] if starts is None else len(starts) - 1
        mine = max(0, remainder - self.args.process_index * rows)
        if mine < rows:
            labels[(slice(mine, None),) if starts is None else (slice(None), slice(int(starts[mine]), None))] = IGNORED

    def _answer(self) -> None:
        """The model's greedy answers to a few held-out prompts, as far as it is now."""
        model, tokenizer = self.accelerator.unwrap_model(self.model), self.processing_class
        for shown in self._rows.shown:
            ids = torch.tensor([shown.ids], device=model.device)
            with self.compute_loss_context_manager():
                out = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=shown.room,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            self._say.say(
                ev.Sample(step=self.state.global_step, prompt=shown.prompt, answer=answer, reference=shown.reference)
            )

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.accelerator.scaler is not None:
            super()._load_scaler(checkpoint)
        elif checkpoint and (Path(checkpoint) / SCALER_NAME).is_file():
            words = "This run computed in fp16 before it was interrupted, and does not now: the figures may differ."
            self._say.say(ev.Note(level="warning", message=words))

    def _save_checkpoint(self, *arguments: Any) -> None:
        began = time.monotonic()
        super()._save_checkpoint(*arguments)
        self._say.saved(time.monotonic() - began)
