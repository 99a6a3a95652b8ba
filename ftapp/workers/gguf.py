"""A model's folder → one GGUF file, by the user's own llama.cpp; what it prints goes into the job's output.log."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ftapp.contract.errors import ModelError

MAGIC = b"GGUF"
SHARES = {"q8_0": 34 / 64, "bf16": 1.0, "f16": 1.0}
"""A file's size against that of the weights in 16 bit; q8_0 has 34 bytes for 32 weights."""
LOOK_SECONDS = 0.3

Progress = Callable[[int, int], None]
"""Bytes written, bytes expected; may raise to end the conversion."""


def convert(llama_cpp: Path, model: Path, out: Path, kind: str, log: Path, progress: Progress) -> None:
    """Write `out`; raises ModelError with the converter's last line if it fails."""
    said = log.stat().st_size if log.exists() else 0
    expected = int(SHARES[kind] * sum(path.stat().st_size for path in model.glob("*.safetensors")))
    command = [_python(llama_cpp), str(llama_cpp / "convert_hf_to_gguf.py"), str(model)]
    command += ["--outfile", str(out), "--outtype", kind, "--model-name", out.stem]
    env = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "PYTHONPATH")}
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            written = out.stat().st_size if out.exists() else 0
            progress(min(written, expected), expected)
            time.sleep(LOOK_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode or not out.is_file() or out.open("rb").read(4) != MAGIC:
        last = _last_line(log, said) or f"it ended with {process.returncode}"
        raise ModelError(
            f"llama.cpp could not convert the model: {last[:300]}",
            f"Bring {llama_cpp} up to date, and give it an environment of its own in {llama_cpp}/.venv, "
            "with its requirements/requirements-convert_hf_to_gguf.txt.",
        )


def _python(llama_cpp: Path) -> str:
    """Its own environment's, where it has one."""
    own = (llama_cpp / name / "bin" / "python" for name in (".venv", "venv"))
    return str(next((path for path in own if path.is_file()), sys.executable))


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 10_000))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
