"""What a config asks for and this machine lacks, found without torch; asked by Studio before a run exists."""

from collections.abc import Sequence
from importlib.util import find_spec

from ftapp.contract.config import RunConfig
from ftapp.processes.gpus import Gpu

PACKING_CAPABILITY = (8, 0)
"""The oldest GPUs that flash-attn's kernels run on."""


def lacking(config: RunConfig, gpus: Sequence[Gpu]) -> dict[str, str]:
    """Dotted field name → why it cannot be had here and what to do; empty if everything can."""
    problems: dict[str, str] = {}
    if config.batch.packing is True and (reason := _no_packing(gpus)):
        problems["batch.packing"] = f"{reason}; choose auto"
    if config.tracking != "none" and find_spec(config.tracking) is None:
        problems["tracking"] = f"{config.tracking} is not installed; run pip install {config.tracking}, or choose none"
    return problems


def _no_packing(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "packing is only faster with a GPU, and this machine has none"
    if old := [gpu for gpu in gpus if gpu.capability < PACKING_CAPABILITY]:
        major, minor = old[0].capability
        return f"packing needs compute capability 8.0, and {old[0].name} has {major}.{minor}"
    if find_spec("flash_attn") is None:
        return "packing needs flash-attn, which is not installed (pip install flash-attn --no-build-isolation)"
    return ""
