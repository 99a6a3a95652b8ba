"""python -m ftapp.workers VERB JOB_DIR: open the event log, say Started, then import what is heavy, inside one try."""

import gc
import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from ftapp.contract import events as ev
from ftapp.contract.chat import Error
from ftapp.contract.errors import StorageError
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.workers.failures import failed

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
"""Those that shape the result; their versions are on record."""
PIPES = ("chat", "preview")
"""Verbs that answer over a pipe; the others do one job and end."""
RESERVE_BYTES = 256 * 1024
"""Kept in a file while the job works and given back to say why it failed when the disk is full."""


def main(verb: str, folder: Path) -> int:
    """Do one job, telling it in events.jsonl; exit code 0 if it finished or stopped as asked.

    Of several ranks only the first tells what it does; each other one leaves its last word to whoever started it.
    """
    job = Job(folder)
    rank = int(os.environ.get("RANK", "0"))
    events = EventLog(folder / ("events.jsonl" if rank == 0 else f".rank-{rank}.jsonl"))
    reserve = folder / f".reserve-{rank}"
    try:
        reserve.write_bytes(b"\0" * RESERVE_BYTES)
        _say(events, _started())
        worker = _worker(verb)
        end = getattr(worker, verb)(job, events if rank == 0 else None)
        reserve.unlink(missing_ok=True)
        _say(events, end)
        return 0
    except BaseException as error:
        reserve.unlink(missing_ok=True)
        told = failed(error, job)
        sys.stderr.write(told.traceback or "")  # without the token, which an address in it may hold
        _say(events, told)
        return 1


def _worker(verb: str) -> Any:
    """The verb's module, with all that is heavy; a process starts and ends in two thirds of the time that way."""
    # what is imported stays: the collector would look through it again and again, and once more at the end
    gc.disable()
    # bitsandbytes wraps fallbacks that nobody calls in torch.compile, which would load the whole compiler for them
    before = os.environ.get("TORCHDYNAMO_DISABLE", "")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        return import_module(f"ftapp.workers.{verb}")
    finally:
        os.environ["TORCHDYNAMO_DISABLE"] = before
        gc.freeze()
        gc.enable()


def _started() -> ev.Started:
    me = psutil.Process()
    return ev.Started(
        pid=me.pid,
        process_created=me.create_time(),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        versions={name: version(name) for name in LIBRARIES},
    )


def _say(events: EventLog, event: ev.Event) -> None:
    try:
        events.append(event)
    except StorageError as error:
        sys.stderr.write(f"{error}\n")


def serve(verb: str, arguments: list[str]) -> int:
    """Answer requests over stdin and stdout; libraries that print are sent to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        worker = _worker(verb)
        return int(getattr(worker, verb)(arguments, sys.stdin.buffer, replies))
    except BaseException as error:
        traceback.print_exc()
        failure = failed(error)
        replies.write(Error(message=failure.message, hint=failure.hint, fatal=True).model_dump_json().encode() + b"\n")
        replies.flush()
        return 1


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    sys.exit(serve(name, rest) if name in PIPES else main(name, Path(rest[0])))
