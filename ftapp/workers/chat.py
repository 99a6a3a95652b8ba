"""The worker's end of the chat pipe: holds one base and some of its adapters, answers one request at a time."""

import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from ftapp.contract import events as ev
from ftapp.contract.chat import Done, Error, Generate, Loaded, Loading, Ready, Reply, Stop, requests
from ftapp.contract.errors import FtappError
from ftapp.store.jobs import Job
from ftapp.workers.failures import failed
from ftapp.workers.generation import answer
from ftapp.workers.run_model import RunModel

log = logging.getLogger(__name__)

AS_TRAINED = {"1": True, "0": False}
"""What the third argument says of 4 bit; anything else: as in training."""


def chat(arguments: list[str], requests_in: IO[bytes], replies_out: IO[bytes]) -> int:
    """Serve the pipe until its other end closes; returns the exit code."""
    folder, checkpoint, four_bit = arguments

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
        say(Loading(name="Loading the model"))
        models = RunModel(
            Job(Path(folder)),
            checkpoint,
            AS_TRAINED.get(four_bit),
            lambda phase: say(Loading(name=_downloading(phase))),
        )
        say(Ready(device=models.device_name))
        while request := waiting.get():
            try:
                for reply in _replies(models, request, stopped):
                    say(reply)
            except FtappError as error:
                say(Error(message=error.message, hint=error.hint))
            except Exception as error:
                if failed(error).kind != "memory":
                    raise
                log.exception("out of memory")
                del error  # its traceback holds what is to be freed
                torch.cuda.empty_cache()
                say(
                    Error(message="Out of memory while answering.", hint="Ask one of the two alone, or clear the chat.")
                )
        return 0
    except BrokenPipeError:
        return 0
    except FtappError as error:
        say(Error(message=error.message, hint=error.hint, fatal=True))
    except Exception as error:
        log.exception("chat failed")
        told = failed(error)
        hint = "Free some, choose 4 bit, or a smaller model." if told.kind == "memory" else told.hint
        words = "The model does not fit into the memory that is free." if told.kind == "memory" else told.message
        say(Error(message=words, hint=hint, fatal=True))
    sys.stderr.flush()
    return 1


def _downloading(phase: ev.Phase) -> str:
    share = f": {100 * phase.done // phase.total} %" if phase.done and phase.total else ""
    return f"Downloading the model{share}"


def _replies(models: RunModel, request: Generate, stopped: threading.Event) -> Iterator[Reply]:
    run = Job(Path(request.run))
    config = run.run_config()
    models.use(run, request.checkpoint)
    if "base" in request.question.messages and not models.base_is_loaded:
        yield Loading(name="Loading the base beside it")
        _ = models.base
    yield Loaded(
        run=run.name,
        checkpoint=request.checkpoint,
        model=config.model.public_name,
        method=config.method.type,
        precision=models.precision,
        device=models.device_name,
        adapters=models.adapters,
    )
    yield from answer(models, request.question, stopped)
    yield Done()
