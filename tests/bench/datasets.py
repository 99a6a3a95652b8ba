"""Checking a million rows, about 1 GB of JSON lines, against datasets.load_dataset("json") on the same file."""

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
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


def measure(rounds: int) -> list[Row]:
    """Both in turn, over a file that was read once."""
    ours, other, memory = [], [], []
    with tempfile.TemporaryDirectory() as name:
        file = write(Path(name) / "rows.jsonl", ROWS)
        for number in range(min(rounds, 3)):
            env = os.environ | {"HF_HUB_OFFLINE": "1", "FTAPP_HOME": f"{name}/home-{number}"}
            seconds, _ = _run(OPPONENT, [str(file), f"{name}/cache-{number}"], env)
            other.append(seconds)
            seconds, peak = _run(OURS, [str(file)], env)
            ours.append(seconds)
            memory.append(peak)
    return [
        Row("checking and storing 1,000,000 rows", "s", ours, other, 3.0, "datasets.load_dataset"),
        Row("largest process of that check", "MiB", memory, [], 1024),
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


def _run(code: str, arguments: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds that it says it took for all rows, and MiB of its largest process."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=env, stdout=subprocess.PIPE, text=True)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak))
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    rows, seconds = out.split()
    assert (process.returncode, int(rows)) == (0, ROWS)
    return float(seconds), peak[0]


def _watch(process: psutil.Process, peak: list[float]) -> None:
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            for one in [process, *process.children(recursive=True)]:
                peak[0] = max(peak[0], one.memory_info().rss / 2**20)
        except psutil.Error:
            pass
        time.sleep(0.1)
