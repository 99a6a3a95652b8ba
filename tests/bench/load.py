"""Fifty browsers that watch one training: how long a tick takes, what the web process weighs, what training loses.

The training has a processor core of its own, as beside a GPU; the web process and the viewers share the other.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import psutil

from ftapp.settings import read_settings
from ftapp.studio import Studio
from ftapp.ui.train_tab import POLL_SECONDS
from tests.bench.table import Row
from tests.models import make
from tests.running import config_for, wait_for, wait_for_step

ROOT = Path(__file__).parents[2]
VIEWERS = 50
WINDOW = 12.0
"""Seconds with viewers, and as long without, in each round."""


def measure(rounds: int) -> list[Row]:
    """Windows with and without viewers in turn, over one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = os.environ | {"FTAPP_HOME": str(folder / "home"), "FTAPP_PORT": str(port)}
        with (folder / "web.log").open("wb") as log:
            web = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log)
        studio = Studio(replace(read_settings(), home=folder / "home"))
        try:
            return _watched(web, f"http://127.0.0.1:{port}", studio, folder, rounds)
        finally:
            web.terminate()
            web.wait()
            for run in studio.runs():
                studio.kill(run.name)


def _watched(web: "subprocess.Popen[bytes]", url: str, studio: Studio, folder: Path, rounds: int) -> list[Row]:
    wait_for(lambda: _answers(url), "the page", 60)
    base = make("llama", folder / "base")
    os.environ["OMP_NUM_THREADS"] = "1"
    run = studio.start_training(config_for(studio, base, folder / "rows", duration={"epochs": 1000}))
    wait_for_step(studio, run, 200)
    process = studio.run(run).job.process()
    assert process
    trainer, page = psutil.Process(process.pid), psutil.Process(web.pid)
    cores = sorted(psutil.Process().cpu_affinity())
    trainer.cpu_affinity(cores[:1])
    page.cpu_affinity(cores[1:] or cores)
    psutil.Process().cpu_affinity(cores[1:] or cores)
    alone, watched, ticks, weight = [], [], [], []
    try:
        viewers = asyncio.run(_prepared(url, run))
        for _ in range(rounds):
            alone.append(_step_seconds(studio, run, lambda: time.sleep(WINDOW)))
            told: list[float] = []
            watched.append(_step_seconds(studio, run, lambda told=told: told.extend(asyncio.run(_watch(url, viewers)))))
            ticks.append(1000 * statistics.quantiles(told, n=20)[-1])
            weight.append(page.memory_info().rss / 2**20)
    finally:
        psutil.Process().cpu_affinity(cores)
    return [
        Row(f"a tick of {VIEWERS} viewers, 95th percentile", "ms", ticks, [], 300),
        Row("web process then", "MiB", weight, [], 400),
        Row("training step with viewers", "s", watched, alone, 1.05, "without"),
    ]


def _step_seconds(studio: Studio, run: str, during: Any) -> float:
    """Seconds a step takes while something is done."""
    before = studio.run(run).state.metrics[-1]
    during()
    after = studio.run(run).state.metrics[-1]
    assert studio.run(run).active, studio.run(run).message
    return (after.time - before.time).total_seconds() / (after.step - before.step)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


async def _prepared(url: str, run: str) -> tuple[int, list[Any]]:
    """The number of the Train tab's tick, and what it is asked with."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        config = (await client.get("/config")).json()
    named = {one["id"]: one["props"] for one in config["components"]}
    timers = [one["id"] for one in config["components"] if one["type"] == "timer"]
    [event] = [
        one
        for one in config["dependencies"]
        if any(id in timers and kind == "tick" for id, kind in one["targets"])
        and any(named[id].get("elem_id") == "train-run" for id in one["inputs"])
    ]
    data = [run if named[id].get("elem_id") == "train-run" else named[id].get("value") for id in event["inputs"]]
    return event["id"], data


async def _watch(url: str, tick: tuple[int, list[Any]]) -> list[float]:
    """Seconds of each tick of all viewers, for one window."""
    told: list[float] = []
    limits = httpx2.Limits(max_connections=VIEWERS)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def view(number: int) -> None:
            await asyncio.sleep(number * POLL_SECONDS / VIEWERS)
            ending, opened = time.monotonic() + WINDOW, False
            while (began := time.monotonic()) < ending:
                body = {"fn_index": tick[0], "data": tick[1], "session_hash": f"viewer{number}"}
                answer = await client.post("/gradio_api/run/predict", json=body)
                assert answer.status_code == 200, answer.text
                taken = time.monotonic() - began
                if opened:
                    told.append(taken)
                opened = True  # the first answer draws the whole tab
                await asyncio.sleep(max(0.0, POLL_SECONDS - taken))

        await asyncio.gather(*(view(number) for number in range(VIEWERS)))
    return told
