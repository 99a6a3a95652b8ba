"""Any error → a Failed event: its kind, plain words without secrets, and what to change; needs no torch."""

import errno
import math
import os
import re
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

from ftapp.contract import events as ev
from ftapp.contract.errors import FailureKind, FtappError
from ftapp.contract.remedies import in_words, remedy
from ftapp.store.jobs import Job

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the account's share of it or the largest file it takes is used up."""

PLENTY = 2**30
"""Bytes; with so many free, a limit other than the disk's size was met."""

# torch and safetensors write without Python's OSError: what they say is all there is
DISK = re.compile(
    r"no space left on device|disk quota exceeded|file too large|os error (28|27|122)\b"
    r"|PytorchStreamWriter failed|unexpected pos \d+ vs",
    re.IGNORECASE,
)
MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|std::bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|\bENOMEM\b|can't start new thread",
    re.IGNORECASE,
)
ACCELERATOR = re.compile(
    r"CUDA error|CUDA driver|CUDA initialization|NCCL error|CUBLAS_STATUS|CUDNN_STATUS|no kernel image|nvidia driver",
    re.IGNORECASE,
)
LIBRARY = re.compile(r"\blib[\w.+-]+\.so\b|undefined symbol|DLL load failed", re.IGNORECASE)


def failed(error: BaseException, job: Job | None = None) -> ev.Failed:
    """An error as the last word of a job, if it is one of a job; else of a chat or a preview."""
    kind = _kind(error)
    message, hint = _words(error, kind, job.folder if job else Path())
    told = ev.Failed(
        kind=kind,
        message=_clean(message),
        hint=_clean(hint),
        traceback=_clean("".join(traceback.format_exception(error))),
    )
    return _with_changes(told, job) if job and job.folder.parent.name == "runs" else told


def _with_changes(told: ev.Failed, job: Job) -> ev.Failed:
    try:
        config, state = job.run_config(), job.refresh()
    except FtappError:
        return told
    if told.kind == "not_finite" and state.metrics and not math.isfinite(state.metrics[0].loss):
        return told  # no number before the first update: the learning rate is not the cause
    loading = state.phase is not None and state.phase.name == "loading"
    changes = remedy(told.kind, config, state.resolved, loading)
    hint = in_words(changes) if told.kind == "memory" else told.hint
    return told.model_copy(update={"changes": changes, "hint": hint})


def _kind(error: BaseException) -> FailureKind:
    for one in _chain(error):
        text = str(one)
        match one:
            case OSError(errno=number) if number in NO_SPACE:
                return "disk"
            case OSError(errno=errno.ENOMEM) | MemoryError():
                return "memory"
            case FtappError() if one.kind not in ("other", "model"):
                return one.kind
            case ImportError() | OSError() if LIBRARY.search(text):
                return "accelerator"
            case _ if type(one).__name__ == "AcceleratorError" and not MEMORY.search(text):
                return "accelerator"
            case _ if not isinstance(one, FtappError) and DISK.search(text):
                return "disk"
            case _ if not isinstance(one, FtappError) and MEMORY.search(text):
                return "memory"
            case _ if not isinstance(one, FtappError) and ACCELERATOR.search(text):
                return "accelerator"
    return error.kind if isinstance(error, FtappError) else "other"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _words(error: BaseException, kind: FailureKind, folder: Path) -> tuple[str, str]:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    shown = f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__
    match kind:
        case "disk":
            publication = folder.parent.name == "publications"
            return _disk(
                folder, "nothing half-written is left." if publication else "the last whole checkpoint is kept."
            )
        case "memory":
            return "Out of memory.", "End other programs that use memory, or choose a smaller model."
        case "accelerator" if not isinstance(error, FtappError):
            return (
                f"The accelerator or torch's libraries do not work: {shown}",
                "Restart the machine, check the driver (nvidia-smi) and that torch was installed for it.",
            )
    match error:
        case FtappError():
            return error.message, error.hint
        case KeyboardInterrupt():
            return "Ended by an interrupt.", "Start it again."
        case SystemExit():
            return "The worker ended early.", "See the log."
        case _:
            return shown, "This is a fault of the app or of a library: the log has the details."


def _disk(folder: Path, kept: str) -> tuple[str, str]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return "The disk is full or not writable.", f"Free some space; {kept}"
    if free >= PLENTY:
        message = f"The disk took no more of a file, though {free / 2**30:.1f} GiB are free."
        return message, f"Raise the limit on file sizes or the account's quota; {kept}"
    return f"The disk is full: {free / 2**20:.1f} MiB are left.", f"Free some space; {kept}"


def _clean(text: str) -> str:
    token = os.environ.get("HF_TOKEN")
    return text.replace(token, "(token)") if token else text
