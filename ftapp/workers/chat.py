"""The worker's end of the chat pipe: holds one base and one adapter, answers one request at a time."""

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from ftapp.contract.chat import Done, Error, Generate, Loading, Ready, Reply, Stop, Text, requests
from ftapp.contract.errors import FtappError, ModelError
from ftapp.store.jobs import Job
from ftapp.workers.run_model import RunModel

log = logging.getLogger(__name__)


class ChatModel:
    """Answers with a run's model, or with its base."""

    def __init__(self, run: Job) -> None:
        self._models = RunModel(run)
        self.encoder, self.device_name = self._models.encoder, self._models.device_name

    def answer(self, request: Generate, stopped: threading.Event) -> Iterator[Reply]:
        """Text pieces as they are written, then Done."""
        prompt = self.encoder.prompt(request.messages)
        model = self._models.tuned if request.tuned else self._models.base
        context = nullcontext() if request.tuned else self._models.without_adapter()
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        room = request.max_new_tokens if limit is None else min(request.max_new_tokens, limit - len(prompt))
        if room < 1:
            raise ModelError(
                f"The conversation has {len(prompt)} tokens, the model's context is {limit}.", "Clear the chat."
            )
        streamer = _Streamer(self.encoder.tokenizer, skip_prompt=True, skip_special_tokens=True)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if request.temperature > 0:
            sampling |= {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p, "top_k": 0}
        ids = torch.tensor([prompt], device=model.device)
        failure: list[BaseException] = []

        def work() -> None:
            try:
                torch.manual_seed(request.seed)
                with context, torch.inference_mode():
                    model.generate(
                        input_ids=ids,
                        attention_mask=torch.ones_like(ids),
                        streamer=streamer,
                        max_new_tokens=room,
                        eos_token_id=self._models.stop_ids,
                        pad_token_id=self.encoder.tokenizer.pad_token_id,
                        stopping_criteria=StoppingCriteriaList([_Stopped(stopped)]),
                        **sampling,
                    )
            except BaseException as error:
                failure.append(error)
                streamer.end()

        began = time.monotonic()
        worker = threading.Thread(target=work)
        worker.start()
        for piece in streamer:
            if piece:
                yield Text(text=piece)
        worker.join()
        if failure:
            raise failure[0]
        reason = "stopped" if stopped.is_set() else "stop" if streamer.last in self._models.stop_ids else "length"
        first = (streamer.first or time.monotonic()) - began
        yield Done(
            reason=reason,
            tokens=streamer.tokens,
            seconds=time.monotonic() - began,
            first_token_seconds=first,
        )


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stopped.is_set(), device=input_ids.device, dtype=torch.bool)


class _Streamer(TextIteratorStreamer):  # type: ignore[misc]
    """Counts what it streams."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tokens = 0
        self.last = -1
        self.first: float | None = None

    def put(self, value: torch.Tensor) -> None:
        if not (self.skip_prompt and self.next_tokens_are_prompt):
            self.first = self.first or time.monotonic()
            self.tokens += value.numel()
            self.last = int(value.reshape(-1)[-1])
        super().put(value)


def chat(arguments: list[str], requests_in: IO[bytes], replies_out: IO[bytes]) -> int:
    """Serve the pipe until its other end closes; returns the exit code."""
    run = Job(Path(arguments[0]))

    def say(reply: Reply) -> None:
        replies_out.write(reply.model_dump_json().encode() + b"\n")
        replies_out.flush()

    waiting: queue.Queue[Generate | None] = queue.Queue()
    stopped = threading.Event()

    def listen() -> None:
        for line in requests_in:
            request = requests.validate_json(line)
            if isinstance(request, Stop):
                stopped.set()
            else:
                stopped.clear()
                waiting.put(request)
        # whoever asked is gone: nobody would read the rest
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    try:
        say(Loading(name="loading the model"))
        model = ChatModel(run)
        say(Ready(device=model.device_name))
        while request := waiting.get():
            try:
                for reply in model.answer(request, stopped):
                    say(reply)
            except FtappError as error:
                say(Error(message=error.message, hint=error.hint))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                say(Error(message="Out of memory while answering.", hint="Clear the chat or ask for a shorter answer."))
        return 0
    except FtappError as error:
        say(Error(message=error.message, hint=error.hint, fatal=True))
    except torch.OutOfMemoryError:
        say(Error(message="The model does not fit into the memory that is free.", hint="Free some.", fatal=True))
    except BrokenPipeError:
        return 0
    except Exception as error:
        log.exception("chat failed")
        say(Error(message=f"{type(error).__name__}: {str(error)[:300]}", hint="The chat's log has more.", fatal=True))
    sys.stderr.flush()
    return 1
