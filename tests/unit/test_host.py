"""The memory that is there: the least of the computer's and a container's, by a tree of groups on disk."""

from pathlib import Path

import psutil
import pytest

from ftapp import host
from ftapp.processes.gpus import here

MIB = 2**20
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
NO_LIMIT = 9223372036854771712


def group(root: Path, path: str, limit: int | str, used: int, cached: int) -> None:
    """A group's files, as the kernel writes them."""
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    first = path.startswith(V1)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{'total_' if first else ''}inactive_file {cached}\n")


def member(root: Path, line: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"3:cpu:/elsewhere\n{line}\n")
    return root


@pytest.mark.parametrize(
    ("line", "places", "total", "free"),
    [
        ("0::/", {V2: (8, 5, 2)}, 8, 5),
        ("0::/../../other", {V2: (8, 5, 2)}, 8, 5),
        ("0::/a/b", {V2: (64, 1, 0), f"{V2}/a": (8, 7, 0), f"{V2}/a/b": (32, 4, 0)}, 8, 1),
        ("0::/a", {V2: (8, 9, 0)}, 8, 0),
        ("4:memory:/docker/3f", {V1: (8, 5, 2)}, 8, 5),
        ("4:cpu,memory:/docker/3f", {V1: (NO_LIMIT, 5, 2), f"{V1}/docker/3f": (8, 5, 1)}, 8, 4),
    ],
)
def test_the_narrowest_group_around_counts(
    tmp_path: Path, line: str, places: dict[str, tuple[int, int, int]], total: int, free: int
) -> None:
    for path, (limit, used, cached) in places.items():
        group(tmp_path, path, limit if limit == NO_LIMIT else limit * MIB, used * MIB, cached * MIB)
    assert host.memory(member(tmp_path, line)) == host.Memory(total * MIB, free * MIB)


def test_without_a_limit_the_computer_counts(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    assert host.memory(tmp_path).total == total
    group(member(tmp_path, "0::/a"), f"{V2}/a", "max", MIB, 0)
    assert host.memory(tmp_path).total == total
    assert 0 < host.memory(tmp_path).free <= total


def test_without_a_gpu_a_run_has_what_is_left_of_it(tmp_path: Path) -> None:
    group(member(tmp_path, "0::/"), V2, 8 * MIB, 5 * MIB, 2 * MIB)
    assert (here(tmp_path).total, here(tmp_path).free) == (8 * MIB, 5 * MIB)
