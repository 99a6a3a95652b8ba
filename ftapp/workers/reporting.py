"""The trainer's callback → events; it also carries requests to stop back to the trainer, and ends hopeless runs."""

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftapp.contract import events as ev
from ftapp.contract.errors import NoGradient, NotFinite
from ftapp.store.eventlog import EventLog

PATIENCE = 3
"""Steps in a row without a finite loss, or without any gradient, before a run is given up."""
SCALER_PATIENCE = 20
"""Steps in a row that fp16's gradient scaler may skip while it looks for its scale: each halves it."""
CHECKPOINT_SECONDS = 600.0
"""At least so often a checkpoint is written, whatever the measurements are: no more than that is ever lost …"""
CHECKPOINT_SHARE = 0.03
"""… unless writing them would take more than this share of the time."""
MEASURING_SECONDS = 60.0
"""That a measurement may still take once somebody has asked to stop."""


class StopAsked(Exception):
    """Somebody asked to stop before the first step; there is nothing to save."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Says what the trainer does; rank 0 writes, every rank listens for the stop."""

    def __init__(self, events: EventLog | None, stop_file: Path) -> None:
        self._events = events
        self._stop_file = stop_file
        self._terminated = False
        # several ranks would not all see it at the same place: they stop at their first step
        self._preparing = int(os.environ.get("WORLD_SIZE", "1")) == 1
        self._broken = 0
        self._still = 0
        self._first = 0.0
        self._began = time.monotonic()
        self._paused = 0.0
        self._last: tuple[int, float] | None = None
        self._saved_at = time.monotonic()
        self._saving_takes = 0.0
        self._asked_at: float | None = None
        self.stopped = self.unplanned = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True

    def say(self, event: ev.Event) -> None:
        """Write an event, on rank 0; raises StopAsked between the phases before training."""
        if self._events:
            self._events.append(event)
        if self._preparing and isinstance(event, ev.Phase) and (self._terminated or self._stop_file.exists()):
            raise StopAsked

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The first step is about to run."""
        self._preparing = False
        self.say(ev.Phase(name="training"))
        self._began = self._saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Stop if asked; measure and save at the last step too; save when the last checkpoint is long ago."""
        stop, hurry, save = self._agreed(args, self._stop_is_asked(), self._terminated, self._checkpoint_is_old())
        if save:
            control.should_save = True
        last = state.global_step >= state.max_steps
        due = args.eval_strategy != "no" and (control.should_evaluate or last)
        if stop:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
            self.unplanned = not due
            # the last weights are measured too, or an earlier checkpoint would be kept unasked
            due = not hurry and (due or args.load_best_model_at_end)
        control.should_evaluate = due
        if control.should_save:
            control.should_log = True  # whether a checkpoint can be gone on from is told by its last loss
        return control

    def _stop_is_asked(self) -> bool:
        if self._asked_at is None and (self._terminated or self._stop_file.exists()):
            self._asked_at = time.monotonic()
        return self._asked_at is not None

    def measuring_must_end(self, args: TrainingArguments) -> bool:
        """Whether there is no time for the rest of a measurement, asked of every rank after each of its batches."""
        late = self._stop_is_asked() and time.monotonic() - (self._asked_at or 0.0) > MEASURING_SECONDS
        return self._agreed(args, self._terminated or late)[0]

    def _checkpoint_is_old(self) -> bool:
        wait = max(CHECKPOINT_SECONDS, self._saving_takes / CHECKPOINT_SHARE)
        return time.monotonic() - self._saved_at > wait

    def _agreed(self, args: TrainingArguments, *wanted: bool) -> list[bool]:
        """What any rank wants: all take the same decisions at the same step, or the others wait for it forever."""
        if args.world_size == 1:
            return list(wanted)
        flags = torch.tensor([float(one) for one in wanted], device=args.device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """One line of the trainer's log → Metrics."""
        if "loss" not in logs:
            return
        if state.global_step == 1:
            self._first = logs["loss"]
        now = time.monotonic() - self._began - self._paused
        tokens = int(logs["num_tokens"]) if "num_tokens" in logs else None
        speed = None
        if tokens is not None and self._last and now > self._last[1]:
            speed = (tokens - self._last[0]) / (now - self._last[1])
        if tokens is not None:
            self._last = (tokens, now)
        self.say(
            ev.Metrics(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=float(state.epoch or 0.0),
                loss=logs["loss"],
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                tokens=tokens,
                tokens_per_second=speed,
                seconds=now,
                memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            )
        )
        if self._broke(args, state, logs["loss"], logs.get("grad_norm")):
            control.should_save = False  # nobody could go on from such weights

    def _broke(self, args: TrainingArguments, state: TrainerState, loss: float, grad_norm: float | None) -> bool:
        """Whether the weights may have taken harm at this step; raises NotFinite or NoGradient after several."""
        harmless = args.fp16 and math.isfinite(loss)
        broken = not (math.isfinite(loss) and math.isfinite(grad_norm or 0.0))
        self._broken = self._broken + 1 if broken else 0
        self._still = self._still + 1 if grad_norm == 0 else 0
        if self._broken >= (SCALER_PATIENCE if harmless else PATIENCE):
            what = "The gradient is" if math.isfinite(loss) else "The loss is"
            told = f"{what} not a finite number at step {state.global_step} (loss {loss}, gradient norm {grad_norm})."
            if not math.isfinite(self._first) and args.fp16:
                raise NotFinite(
                    f"{told} It never was one: this GPU has no bf16, and the base model most likely overflows in fp16.",
                    "Train on a GPU of compute capability 8.0 or newer, or choose another base model.",
                )
            if not math.isfinite(self._first):
                raise NotFinite(
                    f"{told} It never was one: the base model's own weights may be damaged.",
                    "Choose another base model; a lower learning rate cannot help.",
                )
            raise NotFinite(
                told, f"Lower the learning rate, {args.learning_rate:g} in this run, or add warm-up, and start again."
            )
        if self._still >= PATIENCE:
            raise NoGradient(
                f"The gradient has been 0 for {PATIENCE} steps at step {state.global_step}: nothing is being learned.",
                "Check that the answers are not empty and that the target modules exist in this model.",
            )
        return broken and not harmless

    def pause(self, seconds: float) -> None:
        """Time that was not spent on training."""
        self._paused += seconds

    def saved(self, seconds: float) -> None:
        """A checkpoint was written just now, and took so long."""
        self._saved_at, self._saving_takes = time.monotonic(), seconds

    def on_save(self, _: TrainingArguments, state: TrainerState, *__: Any, **___: Any) -> None:
        """A checkpoint is on disk."""
        self.say(ev.Checkpoint(step=state.global_step, name=f"checkpoint-{state.global_step}"))
