"""What the machine has, asked of the driver: no torch, no context on the accelerator."""

import os
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pynvml

from ftapp import host
from ftapp.contract.config import BatchConfig
from ftapp.contract.memory import Machine


@dataclass(frozen=True)
class Gpu:
    """One accelerator."""

    index: int
    name: str
    total: int
    """Memory, bytes."""
    free: int
    """Memory, bytes."""
    capability: tuple[int, int] = (0, 0)
    """CUDA compute capability, such as (8, 0)."""


def devices() -> int:
    """Accelerators that a worker of ours would see: those of the driver, less what CUDA_VISIBLE_DEVICES hides."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(gpus())
    if chosen is None:
        return count
    names = [name.strip() for name in chosen.split(",")]
    # CUDA stops at the first name that it does not know, and sees one slice (MIG) of an accelerator only
    known = list(takewhile(lambda name: name and not name.startswith("-"), names))
    return min(count, 1 if chosen.startswith("MIG") else len(known))


def processes_for(batch: BatchConfig, available: int) -> int:
    """How many processes share the batch evenly: the most, of those available, one for each accelerator."""
    size = batch.effective_size
    fitting = (
        count
        for count in range(max(1, available), 0, -1)
        if size % count == 0 and (batch.micro_size == "auto" or (size // count) % batch.micro_size == 0)
    )
    return next(fitting, 1)


def gpus() -> list[Gpu]:
    """The accelerators that the driver reports now; empty without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            name = str(pynvml.nvmlDeviceGetName(handle))
            found.append(Gpu(index, name, int(memory.total), int(memory.free), (int(major), int(minor))))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def here(root: Path = Path("/")) -> Machine:
    """The computer itself, where there is no accelerator."""
    memory = host.memory(root)
    return Machine(kind="cpu", name="CPU", total=memory.total, free=memory.free)
