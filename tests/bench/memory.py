"""Predicted memory against measured, of real runs in processes of their own on models with random weights."""

import json
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import psutil

from ftapp.contract.config import parse_run_config
from ftapp.settings import Settings
from ftapp.studio import Studio
from tests.bench.table import Row

GIB = 2**30
QWEN = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936}
ON_GPU: dict[str, dict[str, Any]] = {
    "Qwen3 0.6B": {**QWEN, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
    "Qwen3 1.7B": {**QWEN, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000}
ON_CPU: dict[str, dict[str, Any]] = {
    "Qwen3 4M": {**HEADS, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}
}


def measure(_: int) -> list[Row]:
    """With a GPU every method, with and without checkpointing, at two lengths; on a CPU two runs, which is rough."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Settings(Path(folder) / "home", "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
        gpu = bool(studio.gpus())
        for name, shape in (ON_GPU if gpu else ON_CPU).items():
            base = build(Path(folder) / name.replace(" ", "-"), shape)
            cases = product(["lora", "qlora", "full"] if gpu else ["lora", "full"], [True, False] if gpu else [False])
            for (method, checkpointing), length in product(cases, [512, 2048] if gpu else [256]):
                predicted, allocated, whole = run(studio, base, method, checkpointing, length)
                kept = "checkpointing" if checkpointing else "no checkpointing"
                figure = f"{name}, {method}, {kept}, 4 rows of {length} tokens"
                if gpu:
                    found.append(Row(f"{figure}: allocated", "GiB", [predicted[0]], [allocated], 1.25, "torch"))
                against = "the driver's count" if gpu else "peak RSS"
                found.append(Row(f"{figure}: whole", "GiB", [predicted[1]], [whole], 1.25, against))
    return found


def build(folder: Path, shape: dict[str, Any]) -> Path:
    """A Qwen3 of that shape with random weights and a tokenizer of bytes."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from tests.models import tokenizer

    fast = tokenizer()
    config = Qwen3Config(
        **shape,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def run(
    studio: Studio, base: Path, method: str, checkpointing: bool, length: int
) -> tuple[tuple[float, float], float, float]:
    """GiB: predicted (allocated, whole), then torch's peak and that of the process, of two steps of eight rows."""
    rows = base.parent / f"rows-{length}.jsonl"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "y" * (length - 64)}]
    rows.write_text("".join(json.dumps({"id": number, "messages": turns}) + "\n" for number in range(16)))
    values: dict[str, Any] = {
        "model": {"id": str(base)},
        "data": {"dataset": studio.add_dataset(rows, rows.name).id, "eval_fraction": 0.0},
        "method": {"type": method},
        "batch": {"effective_size": 8, "micro_size": 4, "activation_checkpointing": checkpointing},
        "duration": {"max_steps": 2},
    }
    before = studio.gpus()
    name = studio.start_training(parse_run_config(values))
    whole = 0
    while (view := studio.run(name)).active:
        started = view.state.started
        if before:
            whole = max(whole, before[0].free - studio.gpus()[0].free)
        elif started and psutil.pid_exists(started.pid):
            try:
                whole = max(whole, psutil.Process(started.pid).memory_info().rss)
            except psutil.Error:
                pass
        time.sleep(0.1)
    assert view.status == "finished", view.message
    assert view.state.resolved is not None
    told = view.state.resolved.values
    allocated = view.state.metrics[-1].memory or 0
    predicted = told["memory.predicted"] / GIB, told["memory.predicted_peak"] / GIB
    return predicted, allocated / GIB, whole / GIB
