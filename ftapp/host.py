"""The computer's own memory, as far as this process may use it: a container may be limited to less; no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

FILES = {
    "sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Where the groups of cgroup v2 and v1 are; a group's limit, what it uses, and the line of memory.stat that says how
much of that the kernel gives back by itself (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst)."""


@dataclass(frozen=True)
class Memory:
    """Of the computer, bytes."""

    total: int
    free: int
    """That could be taken now: files that are only cached count as free."""


def memory(root: Path = Path("/")) -> Memory:
    """The least of what the computer has and what each group of processes around this one may have."""
    host = psutil.virtual_memory()
    total, free = int(host.total), int(host.available)
    for limit, used in _limits(root):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Memory(total, free)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Of this process's group and those around it that have a limit: the limit and what is used of it."""
    for place, (limit, used, cached) in FILES.items():
        for folder in _groups(root, root / place, version=1 if place.endswith("memory") else 2):
            try:
                most, taken = (int((folder / name).read_text()) for name in (limit, used))
                stat = dict(line.split()[:2] for line in (folder / "memory.stat").read_text().splitlines())
                yield most, taken - min(taken, int(stat.get(cached, 0)))
            except (OSError, ValueError):
                continue  # no such group, or no limit: "max"


def _groups(root: Path, mounted: Path, version: int) -> Iterator[Path]:
    """The folders of this process's group and of those around it; inside a container only the last may be there."""
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        lines = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "" if version == 2 else "memory" in controllers.split(","):
            inside = PurePosixPath(path.lstrip("/"))
            if ".." not in inside.parts:
                yield from (mounted / group for group in (inside, *inside.parents) if group.parts)
    yield mounted
