"""What the machine has, asked of the driver: no torch, no context on the accelerator."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
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


def visible(uuids: Sequence[str], chosen: str | None) -> list[int]:
    """Which of the driver's accelerators a process sees with this CUDA_VISIBLE_DEVICES, in the order that it sees."""
    if chosen is None:
        return list(range(len(uuids)))
    if chosen.startswith("MIG"):
        return list(range(len(uuids)))[:1]  # CUDA sees one slice of an accelerator only
    found: list[int] = []
    for name in chosen.split(","):
        wanted = name.strip()
        named = [
            index
            for index, uuid in enumerate(uuids)
            if wanted == str(index) or (wanted.startswith("GPU-") and uuid.startswith(wanted))
        ]
        if len(named) != 1:
            break  # CUDA stops at the first name that it does not know
        found += named
    return found if len(set(found)) == len(found) else []  # nor does it take one twice


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
    """The accelerators that the driver reports now, those that CUDA_VISIBLE_DEVICES lets be seen; empty without one."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = []
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        uuids = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        for index in visible(uuids, os.environ.get("CUDA_VISIBLE_DEVICES")):
            handle = handles[index]
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
