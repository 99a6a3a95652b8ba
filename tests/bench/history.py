"""Listing a thousand ended runs of ten thousand events each, after a restart and again, and the scheduler's tick."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from ftapp.contract import events as ev
from ftapp.contract.config import parse_run_config
from ftapp.store.runs import JobStore
from tests.bench.table import Row

RUNS = 1000
EVENTS = 10_000
LIST = """
import sys, time
from ftapp.settings import read_settings
from ftapp.studio import Studio
studio = Studio(read_settings())
began = time.perf_counter()
rows = studio.history()
first = time.perf_counter() - began
began = time.perf_counter()
found = studio.history("finished bench-0000")
again = time.perf_counter() - began
began = time.perf_counter()
views = studio.runs()
polled = time.perf_counter() - began
began = time.process_time()
for _ in range(10):
    studio.scheduler.tick()
tick = (time.process_time() - began) / 10
assert len(rows) == len(views) == int(sys.argv[1]), len(rows)
assert (rows[-1].status, rows[-1].step, len(found)) == ("finished", int(sys.argv[2]), 10), rows[-1]
print(first, again, polled, tick)
"""


def measure(rounds: int) -> list[Row]:
    """Each round in a process of its own, as after a restart; before the first there is nothing but the runs."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "local" / "runs")
        time.sleep(1.1)  # as any run that did not end this very second
        env = os.environ | {"FTAPP_HOME": name}
        command = [sys.executable, "-c", LIST, str(RUNS), str(EVENTS - 7)]
        told = []
        for _ in range(rounds + 1):
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            told.append([1000 * float(one) for one in done.stdout.split()])
    first, again, polled, tick = ([one[part] for one in told[1:]] for part in range(4))
    return [
        Row(f"history of {RUNS:,} runs, the first time ever", "ms", [told[0][0]], [], 60_000),
        Row("after a restart", "ms", first, [], 300),
        Row("again, searched", "ms", again, [], 300),
        Row("all runs for the page, again", "ms", polled, [], 300),
        Row("a tick of the scheduler, CPU", "ms", tick, [], 5),
    ]


def write(folder: Path) -> None:
    """Ended runs, all with the same events."""
    store = JobStore(folder)
    model = store.create(parse_run_config({"data": {"dataset": "demo"}}))
    events = model.folder / "events.jsonl"
    events.write_bytes(b"".join(event.model_dump_json().encode() + b"\n" for event in _events()))
    for number in range(RUNS):
        copy = folder / f"2026-01-01-bench-{number:05}-lora"
        copy.mkdir()
        (copy / "config.json").write_bytes((model.folder / "config.json").read_bytes())
        (copy / "process.json").write_bytes(orjson.dumps({"pid": 4_000_000, "created": 1.0}))
        shutil.copyfile(events, copy / "events.jsonl")
    shutil.rmtree(model.folder)


def _events() -> list[ev.Event]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    told: list[ev.Event] = [
        ev.Started(pid=4_000_000, process_created=1.0, time=start),
        ev.Resolved(values={}, train_rows=9, eval_rows=1, total_parameters=1, time=start),
    ]
    steps = EVENTS - 7
    for step in range(1, steps + 1):
        now = start + timedelta(seconds=step)
        told.append(
            ev.Metrics(
                step=step,
                total_steps=steps,
                epoch=step / 100,
                loss=1 / step,
                learning_rate=2e-4,
                grad_norm=1.2345678,
                tokens=100 * step,
                tokens_per_second=100.0,
                seconds=float(step),
                time=now,
            )
        )
        if step % (steps // 4) == 0:
            told.append(ev.Evaluation(step=step, loss=1 / step, perplexity=1.0, tokens=100, time=now))
    return [*told, ev.Finished(artifact="adapter", time=start + timedelta(seconds=steps))]
