"""Checking a million rows, about 1 GB of JSON lines, against datasets.load_dataset("json") on the same file."""

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from tests.bench.table import Row

ROWS = 1_000_000
OPPONENT = """
import sys, time
import datasets
datasets.disable_progress_bars()
began = time.monotonic()
rows = datasets.load_dataset("json", data_files=sys.argv[1], cache_dir=sys.argv[2], split="train")
print(len(rows), time.monotonic() - began)
"""
OURS = """
import sys, time
from pathlib import Path
from ftapp.settings import read_settings
from ftapp.studio import Studio
began = time.monotonic()
info = Studio(read_settings()).add_dataset(Path(sys.argv[1]), "rows.jsonl")
print(info.report.valid, time.monotonic() - began)
"""


@dataclass
class Cost:
    """What one run took."""

    seconds: float
    """That it says it took for all rows."""
    cpu: float
    """Seconds, user and system, of all its processes."""
    peak: float
    """MiB of its largest process."""


def measure(rounds: int, rows: int = ROWS) -> list[Row]:
    """Both in turn, over a file that was read once."""
    ours, other = [], []
    with tempfile.TemporaryDirectory() as name:
        file = write(Path(name) / "rows.jsonl", rows)
        for number in range(min(rounds, 3)):
            env = os.environ | {"HF_HUB_OFFLINE": "1", "FTAPP_HOME": f"{name}/home-{number}"}
            other.append(_run(OPPONENT, [str(file), f"{name}/cache-{number}"], env, rows))
            ours.append(_run(OURS, [str(file)], env, rows))
    wall = [[cost.seconds for cost in costs] for costs in (ours, other)]
    cpu = [[cost.cpu for cost in costs] for costs in (ours, other)]
    return [
        Row(f"checking and storing {rows:,} rows", "s", *wall, 3.0, "datasets.load_dataset"),
        Row("the same, CPU of all processes", "s", *cpu, 4.0, "datasets.load_dataset"),
        Row("largest process of that check", "MiB", [cost.peak for cost in ours], [], 1024),
    ]


def write(path: Path, rows: int) -> Path:
    """Rows of random words, about a kilobyte each."""
    source = random.Random(0)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 10))) for _ in range(20_000)]
    with path.open("wb") as file:
        for _ in range(rows):
            texts = " ".join(source.choices(words, k=30)), " ".join(source.choices(words, k=105))
            turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]
            file.write(orjson.dumps({"messages": turns}) + b"\n")
    return path


def _run(code: str, arguments: list[str], env: dict[str, str], rows: int) -> Cost:
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=env, stdout=subprocess.PIPE, text=True)
    seen: dict[psutil.Process, tuple[float, float]] = {}
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), seen))
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    found, seconds = out.split()
    assert (process.returncode, int(found)) == (0, rows)
    return Cost(float(seconds), sum(cpu for cpu, _ in seen.values()), max(peak for _, peak in seen.values()))


def _watch(process: psutil.Process, seen: dict[psutil.Process, tuple[float, float]]) -> None:
    """Note each process's CPU seconds and largest size until the first one ends; not all are reaped by it."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            for one in [process, *process.children(recursive=True)]:
                times, size = one.cpu_times(), one.memory_info().rss / 2**20
                seen[one] = times.user + times.system, max(size, seen.get(one, (0, 0))[1])
        except psutil.Error:
            pass
        time.sleep(0.05)
