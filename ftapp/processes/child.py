"""A child process that outlives its parent: start it detached, ask whether it lives, end its whole tree."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from ftapp.store.jobs import ProcessId

CLOCK_TOLERANCE = 2.0
"""Seconds by which two readings of one creation time may differ, since the boot time is adjusted."""


def start_detached(argv: Sequence[str], env: Mapping[str, str], output: Path) -> ProcessId:
    """Start a process in a session of its own, its output appended to a file; it lives on without us."""
    with output.open("ab") as log:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return identify(process.pid)


def identify(pid: int) -> ProcessId:
    """The process's name for good."""
    try:
        return ProcessId(pid=pid, created=psutil.Process(pid).create_time(), oom_kills=oom_kills())
    except psutil.NoSuchProcess:
        return ProcessId(pid=pid, created=0.0)


def oom_kills(root: Path = Path("/")) -> int | None:
    """Processes that the kernel has ended for want of memory, here or on the whole machine; None if it does not say.

    Source: memory.events of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst), else oom_kill in /proc/vmstat.
    """
    for path in (root / "sys/fs/cgroup/memory.events", root / "proc/vmstat"):
        try:
            words = dict(line.split()[:2] for line in path.read_text().splitlines())
            return int(words["oom_kill"])
        except (OSError, KeyError, ValueError):
            continue
    return None


def lacked_memory(process: ProcessId | None) -> bool:
    """Whether the kernel ended a process for want of memory since this one was started."""
    now = oom_kills()
    return process is not None and process.oom_kills is not None and now is not None and now > process.oom_kills


def alive(process: ProcessId | None) -> bool:
    """Whether this very process still runs; a zombie does not."""
    return _find(process) is not None


def stop_tree(process: ProcessId | None, grace_seconds: float = 5.0) -> None:
    """End the process and all its descendants: politely first, then for certain."""
    found = _find(process)
    if found is None:
        return
    try:
        tree = [found, *found.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in tree:
        _quietly(one.terminate)
    _, left = psutil.wait_procs(tree, timeout=grace_seconds)
    for one in left:
        _quietly(one.kill)
    psutil.wait_procs(left, timeout=5)


def _find(process: ProcessId | None) -> psutil.Process | None:
    if process is None:
        return None
    try:
        found = psutil.Process(process.pid)
        if abs(found.create_time() - process.created) > CLOCK_TOLERANCE:
            return None
        return None if found.status() == psutil.STATUS_ZOMBIE else found
    except psutil.Error:
        return None


def _quietly(action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except psutil.NoSuchProcess:
        pass
