"""python -m ftapp.workers VERB JOB_DIR: open the event log, say Started, then import what is heavy, inside one try."""

import errno
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
from ftapp.contract.errors import FtappError, StorageError
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
"""Those that shape the result; their versions are on record."""
PIPES = ("chat", "preview")
"""Verbs that answer over a pipe; the others do one job and end."""
RESERVE_BYTES = 256 * 1024
"""Kept in a file while the job works and given back to say why it failed when the disk is full."""


def main(verb: str, folder: Path) -> int:
    """Do one job, telling it in events.jsonl; exit code 0 if it finished or stopped as asked."""
    job = Job(folder)
    rank = int(os.environ.get("RANK", "0"))
    events = EventLog(folder / "events.jsonl") if rank == 0 else None
    reserve = folder / f".reserve-{rank}"
    try:
        reserve.write_bytes(b"\0" * RESERVE_BYTES)
        _say(events, _started())
        worker: Any = import_module(f"ftapp.workers.{verb}")
        end = getattr(worker, verb)(job, events)
        reserve.unlink(missing_ok=True)
        _say(events, end)
        return 0
    except KeyboardInterrupt:
        _say(events, ev.Failed(message="Ended by an interrupt.", hint="Start it again."))
        return 1
    except BaseException as error:
        traceback.print_exc()
        reserve.unlink(missing_ok=True)
        _say(events, _failure(error))
        return 1


def _started() -> ev.Started:
    me = psutil.Process()
    return ev.Started(
        pid=me.pid,
        process_created=me.create_time(),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        versions={name: version(name) for name in LIBRARIES},
    )


def _say(events: EventLog | None, event: ev.Event) -> None:
    if events:
        try:
            events.append(event)
        except StorageError as error:
            sys.stderr.write(f"{error}\n")


def _failure(error: BaseException) -> ev.Failed:
    """Any error as an event, in plain words, without secrets."""
    text = "".join(traceback.format_exception(error))
    match error:
        case FtappError():
            message, hint = error.message, error.hint
        case OSError(errno=errno.ENOSPC) | OSError(errno=errno.EDQUOT):
            message, hint = "The disk is full.", "Free some space; the last whole checkpoint is kept."
        case _ if "no space left on device" in str(error).lower():
            message, hint = "The disk is full.", "Free some space; the last whole checkpoint is kept."
        case _ if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
            message = "Out of memory."
            hint = "Halve the micro-batch size, turn activation checkpointing on, shorten the rows, or use QLoRA."
        case SystemExit():
            message, hint = "The worker ended early.", "See the log."
        case _:
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            message = f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__
            hint = "This is a fault of the app or of a library: the log has the details."
    return ev.Failed(message=_clean(message), hint=_clean(hint), traceback=_clean(text))


def _clean(text: str) -> str:
    token = os.environ.get("HF_TOKEN")
    return text.replace(token, "(token)") if token else text


def serve(verb: str, arguments: list[str]) -> int:
    """Answer requests over stdin and stdout; libraries that print are sent to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        worker: Any = import_module(f"ftapp.workers.{verb}")
        return int(getattr(worker, verb)(arguments, sys.stdin.buffer, replies))
    except BaseException as error:
        traceback.print_exc()
        failure = _failure(error)
        replies.write(Error(message=failure.message, hint=failure.hint, fatal=True).model_dump_json().encode() + b"\n")
        replies.flush()
        return 1


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    sys.exit(serve(name, rest) if name in PIPES else main(name, Path(rest[0])))
