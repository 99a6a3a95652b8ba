"""How long until the page answers, and what the web process weighs, against the smallest Gradio page."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from tests.bench.table import Row

ROOT = Path(__file__).parents[2]
SMALLEST = """
import os
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio as gr
with gr.Blocks() as page:
    gr.Markdown("hello")
page.launch(server_port=int(os.environ["FTAPP_PORT"]), ssr_mode=False, quiet=True)
"""


def measure(rounds: int) -> list[Row]:
    """Start both in turn, each with its files already read once."""
    ours, smallest, memory = [], [], []
    for number in range(rounds + 1):
        seconds, weight = _start([sys.executable, "app.py"])
        other, _ = _start([sys.executable, "-c", SMALLEST])
        if number:
            ours.append(seconds)
            smallest.append(other)
            memory.append(weight)
    return [
        Row("page answers after", "s", ours, smallest, 1.3, "smallest Gradio page"),
        Row("memory of the web process", "MiB", memory, [], 230),
    ]


def _start(command: list[str]) -> tuple[float, float]:
    """Seconds until the page answers, and MiB after it was read."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"FTAPP_HOME": home, "FTAPP_PORT": str(port)}
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() - began > 120:
                        raise RuntimeError(f"{command} did not answer") from None
                    time.sleep(0.02)
            seconds = time.monotonic() - began
            urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5).read()
            return seconds, psutil.Process(process.pid).memory_info().rss / 2**20
        finally:
            process.terminate()
            process.wait()
