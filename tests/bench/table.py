"""The table: its rows, and the machine that they were measured on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from ftapp.processes.gpus import gpus

INTRODUCTION = [
    "# Figures",
    "",
    "What `make bench` measured, on the machine named below. Each opponent ran in turn with ours on the same rows; the",
    "ratio is the median of the pairs.",
    "",
]
HEAD = ["| figure | ours | opponent | ratio | target |", "| --- | --- | --- | --- | --- |"]


def machine() -> str:
    """Its processor, memory and accelerators, and the versions that matter."""
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = next((line.split(":", 1)[1].strip() for line in found.splitlines() if line.startswith("model name")), "")
    memory = psutil.virtual_memory().total / 2**30
    parts = [named or platform.machine(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB", *(gpu.name for gpu in gpus())]
    return ", ".join([*parts, platform.system(), f"Python {platform.python_version()}"])


@dataclass(frozen=True)
class Row:
    """A figure of ours against an opponent's, or against a limit."""

    figure: str
    unit: str
    ours: list[float]
    opponent: list[float]
    """Empty if the target is a plain limit."""
    target: float
    """The highest ratio, or the highest value, that is good enough."""
    against: str = ""

    @property
    def ratio(self) -> float:
        """Median of the ratios pair by pair, which machines that drift cannot bend."""
        return median(a / b for a, b in zip(self.ours, self.opponent, strict=True))

    @property
    def reached(self) -> bool:
        """Whether the target is met."""
        return (self.ratio if self.opponent else median(self.ours)) <= self.target

    def text(self) -> str:
        """As Markdown."""
        spread = f"{median(self.ours):.3g} {self.unit} ({min(self.ours):.3g} to {max(self.ours):.3g})"
        mark = "" if self.reached else " **missed**"
        if not self.opponent:
            return f"| {self.figure} | {spread} | | | ≤ {self.target:g} {self.unit}{mark} |"
        other = f"{median(self.opponent):.3g} {self.unit} ({self.against})"
        return f"| {self.figure} | {spread} | {other} | {self.ratio:.3f} | ≤ {self.target:g}{mark} |"
