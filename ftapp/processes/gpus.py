"""What the machine has, asked of the driver: no torch, no context on the accelerator."""

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Gpu:
    """One accelerator."""

    index: int
    name: str
    total: int
    """Memory, bytes."""
    free: int
    """Memory, bytes."""


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
            found.append(Gpu(index, str(pynvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free)))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
