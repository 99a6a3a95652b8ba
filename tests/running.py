"""Runs for tests: rows to train on, a config that is quick, and waiting for a condition with a limit."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.store.eventlog import EventLog
from ftapp.store.files import alone
from ftapp.store.jobs import Job, ProcessId
from ftapp.studio import Studio
from ftapp.views import RunView

T = TypeVar("T")

TIME_LIMIT = 300.0
WORKER = ProcessId(pid=4_000_000, created=1000.0)
"""A process that is not there any more."""
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def wait_for(condition: Callable[[], T], what: str, seconds: float = TIME_LIMIT) -> T:
    """The condition's first true value; fails the test when the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def write_rows(path: Path, count: int = 96) -> Path:
    """A file of sums as conversations."""
    rows = []
    for number in range(count):
        a, b = number % 12, number // 12
        turns = [("user", f"What is {a} plus {b}?"), ("assistant", f"It is {a + b}.")]
        rows.append(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}))
    path.write_text("\n".join(rows) + "\n")
    return path


def config_for(studio: Studio, base: Path, folder: Path, method: str = "lora", **changes: Any) -> RunConfig:
    """A config for a tiny model on rows of its own, quick to train; sections of the config may be changed."""
    folder.mkdir(parents=True, exist_ok=True)
    info = studio.add_dataset(write_rows(folder / "sums.jsonl"), "sums.jsonl")
    values: dict[str, Any] = {
        "model": {"id": str(base)},
        "data": {"dataset": info.id},
        "method": {"type": method},
        "optim": {"learning_rate": 3e-3},
        "batch": {"effective_size": 8},
        "duration": {"epochs": 2},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return parse_run_config(values)


def finish(studio: Studio, name: str) -> RunView:
    """Wait until the run has ended, one way or another."""
    return wait_for(lambda: (view := studio.run(name)) and not view.active and view, f"the end of {name}")


def wait_for_step(studio: Studio, name: str, step: int) -> RunView:
    """Wait until the run has done so many steps; fails if it ends before."""

    def reached() -> RunView | None:
        view = studio.run(name)
        assert view.active, f"{name} ended before step {step}: {view.status} {view.message}"
        return view if view.state.metrics and view.state.metrics[-1].step >= step else None

    return wait_for(reached, f"step {step} of {name}")


def end(job: Job, last: ev.Event | None = None, losses: tuple[float, ...] = (3.0, 2.0)) -> Job:
    """Let it have trained: a step a second and 50 tokens a step, measured at each step, an hour's pause apart."""
    job.record_process(WORKER)
    draft = job.folder / "events.draft"  # whoever looks meanwhile sees all events or none
    log = EventLog(draft)
    log.append(ev.Started(pid=WORKER.pid, process_created=WORKER.created, time=BEGUN))
    log.append(ev.Resolved(values={"device": "CPU"}, train_rows=90, eval_rows=10, total_parameters=1000, time=BEGUN))
    for step, loss in enumerate(losses, 1):
        now, total = BEGUN + timedelta(seconds=10 + step), len(losses)
        log.append(
            ev.Metrics(
                step=step, total_steps=total, epoch=1, loss=loss + 1, tokens=50 * step, seconds=float(step), time=now
            )
        )
        log.append(ev.Evaluation(step=step, loss=loss, perplexity=1, tokens=9, time=now))
    if last:
        log.append(last.model_copy(update={"time": BEGUN + timedelta(seconds=10 + len(losses))}))
    draft.rename(job.folder / "events.jsonl")
    return job


def recorded(
    studio: Studio, config: RunConfig, last: ev.Event | None = None, losses: tuple[float, ...] = (3.0, 2.0)
) -> Job:
    """A run that has trained, of which no app that is being served thinks meanwhile that it waits for its turn."""
    studio.settings.home.mkdir(parents=True, exist_ok=True)
    with alone(studio.settings.home / ".scheduler.lock"):
        return end(studio._jobs.create(config), last, losses)
