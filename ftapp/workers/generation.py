"""Answers of one or two voices at the same time from one model, a token each in turn; each as it would be alone."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ftapp.contract.chat import THINKING, Answered, Question, Reply, Sampling, Text, Voice
from ftapp.contract.errors import ModelError
from ftapp.workers.run_model import RunModel

PAUSE = 0.02
"""Seconds between two pieces of an answer: sooner nobody reads them, and each takes time from the model."""
THINK = "<think>"
HELD_BACK = 64
"""Tokens that may wait for the rest of a character."""


def answer(models: RunModel, question: Question, stopped: threading.Event) -> Iterator[Reply]:
    """Pieces of the answers as they are written, and Answered after each; raises ModelError, OutOfMemoryError."""
    options = {} if question.thinking is None else {THINKING: question.thinking}
    prompts = {
        voice: models.encoder.prompt(messages, tools=question.tools, **options)
        for voice, messages in sorted(question.messages.items())
    }
    sampling = question.sampling
    rooms = {voice: _room(models, len(prompt), sampling.max_new_tokens) for voice, prompt in prompts.items()}
    turns = _Turns(list(prompts), models, sampling.temperature > 0)
    writers = [
        _Writer(voice, models, prompt, rooms[voice], sampling, turns, stopped) for voice, prompt in prompts.items()
    ]
    written: queue.SimpleQueue[_Writer] = queue.SimpleQueue()
    going: list[_Writer] = []
    try:
        for writer in writers:
            writer.start(written.put)
            going.append(writer)
        while going:
            for writer in _next_of(written):
                ended = writer.ended  # asked first: what is written after this is taken next time
                if text := writer.text(ended):
                    yield Text(voice=writer.voice, text=text)
                if ended and writer in going:
                    going.remove(writer)
                    if writer.failure:
                        raise writer.failure
                    yield writer.answered()
            _pause(going)
    finally:
        stopped.set()
        for writer in writers:
            if writer.thread.ident is None:
                turns.leave(writer.voice)  # the machine had no thread for it: the other one must not wait
        for writer in writers:
            if writer.thread.ident is not None:
                writer.thread.join()
        models.switch(True)


def _next_of(written: "queue.SimpleQueue[_Writer]") -> list["_Writer"]:
    """Who has written since the last look, each once; waits for the first."""
    found = [written.get()]
    while not written.empty():
        found.append(written.get())
    return list(dict.fromkeys(found))


def _pause(going: list["_Writer"]) -> None:
    if len(going) == 1:
        going[0].thread.join(PAUSE)
    elif going:
        time.sleep(PAUSE)


def _room(models: RunModel, prompt: int, wanted: int) -> int:
    """How many tokens fit behind a prompt."""
    limit = getattr(models.tuned.config.get_text_config(), "max_position_embeddings", None)
    room = wanted if limit is None else min(wanted, limit - prompt)
    if room < 1:
        raise ModelError(
            f"The conversation has {prompt:,} tokens, the model's context is {limit:,}.",
            "Clear the conversation, or ask something shorter.",
        )
    return room


@dataclass(eq=False)
class _Writer:
    """One answer: a thread in the library's own `generate`."""

    voice: Voice
    models: RunModel
    prompt: list[int]
    room: int
    sampling: Sampling
    turns: "_Turns"
    stopped: threading.Event
    tokens: list[int] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0
    failure: BaseException | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"{self.voice}-answer")

    def start(self, written: Callable[["_Writer"], None]) -> None:
        tokenizer = self.models.encoder.tokenizer
        opened = tokenizer.decode(self.prompt[-8:]).rstrip().endswith(THINK)
        self._decoder = _Decoder(tokenizer)
        self._opening = f"{THINK}\n" if opened else ""
        self._began = time.monotonic()
        self._written = written
        self.thread.start()

    def _run(self) -> None:
        try:
            self.turns.wait(self.voice)
            self._generate()
        except BaseException as error:
            self.failure = error
            self.stopped.set()
        finally:
            self.turns.leave(self.voice)
            self.ended = True
            self._written(self)

    def _generate(self) -> None:
        model = self.models.tuned if self.voice == "tuned" else self.models.base
        ids = torch.tensor([self.prompt], device=model.device)
        torch.manual_seed(self.sampling.seed)
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                streamer=_Streamer(self, self._written),
                max_new_tokens=self.room,
                eos_token_id=self.models.stop_ids,
                pad_token_id=self.models.encoder.tokenizer.pad_token_id,
                stopping_criteria=StoppingCriteriaList([_Stopped(self.stopped)]),
                **_choosing(self.sampling),
            )

    def text(self, ended: bool) -> str:
        """What was written since the last call."""
        opening, self._opening = self._opening, ""
        return opening + self._decoder.text(self.tokens, ended)

    def answered(self) -> Answered:
        """How it went, after the end."""
        complete = self.tokens and self.tokens[-1] in self.models.stop_ids
        full = len(self.tokens) >= self.room
        last = self.last or time.monotonic()
        return Answered(
            voice=self.voice,
            reason="stop" if complete else "length" if full else "stopped",
            tokens=len(self.tokens),
            seconds=last - self._began,
            first_token_seconds=(self.first or last) - self._began,
        )


def _choosing(sampling: Sampling) -> dict[str, Any]:
    """Sampling in the library's words; every one is said, so that no default of the model slips in."""
    choosing: dict[str, Any] = {"repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature == 0:
        return {**choosing, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    values = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    return {**choosing, "do_sample": True, **values}


class _Turns:
    """Lets one voice at a time use the model, the next one after each token: with its adapter and its random state."""

    def __init__(self, voices: list[Voice], models: RunModel, sampled: bool) -> None:
        self._voices, self._models, self._sampled = voices, models, sampled
        self._at = voices[0]
        self._changed = threading.Condition()

    def wait(self, voice: Voice) -> None:
        """Until it is this voice's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._at == voice)
        self._models.switch(voice == "tuned")

    def pass_on(self, voice: Voice) -> None:
        """Let the other one write a token, if there is another one."""
        if len(self._voices) == 1:
            return
        state = self._random_state() if self._sampled else None
        with self._changed:
            self._at = self._voices[(self._voices.index(voice) + 1) % len(self._voices)]
            self._changed.notify_all()
        self.wait(voice)
        if state is not None:
            self._restore(state)

    def leave(self, voice: Voice) -> None:
        """Write no more."""
        with self._changed:
            self._voices.remove(voice)
            if self._voices and self._at == voice:
                self._at = self._voices[0]
            self._changed.notify_all()

    def _random_state(self) -> torch.Tensor:
        return torch.cuda.get_rng_state() if self._models.tuned.device.type == "cuda" else torch.get_rng_state()

    def _restore(self, state: torch.Tensor) -> None:
        if self._models.tuned.device.type == "cuda":
            torch.cuda.set_rng_state(state)
        else:
            torch.set_rng_state(state)


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Takes the tokens as `generate` hands them over, the prompt first."""

    def __init__(self, writer: _Writer, written: Callable[[_Writer], None]) -> None:
        self._writer, self._written = writer, written
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._is_prompt:
            self._is_prompt = False
            return
        writer = self._writer
        writer.last = time.monotonic()
        writer.first = writer.first or writer.last
        writer.tokens += value.reshape(-1).tolist()
        self._written(writer)
        writer.turns.pass_on(writer.voice)

    def end(self) -> None:
        """Nothing is held back."""


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stopped.is_set(), device=input_ids.device, dtype=torch.bool)


class _Decoder:
    """Tokens → text as it grows: the tokens before are read along, and a character waits until it is whole."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._before = self._read = 0

    def text(self, tokens: list[int], all: bool) -> str:
        """What the tokens say beyond what was returned before; `all` also what is no whole character."""
        end = len(tokens)
        if end == self._read:
            return ""
        known = self._decoded(tokens[self._before : self._read])
        now = self._decoded(tokens[self._before : end])
        if now.endswith("\ufffd") and not all and end - self._read < HELD_BACK:
            return ""
        self._before, self._read = self._read, end
        return now[len(known) :]

    def _decoded(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
