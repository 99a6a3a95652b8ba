"""Seconds a training step, against a bare TRL script with the same arguments on the same rows."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from ftapp.contract.config import parse_run_config
from ftapp.settings import Settings
from ftapp.studio import DEMO_FOLDER, Studio
from tests.bench.table import Row
from tests.running import finish

STEPS = 120
WARM = 20
BARE = f"""
import sys, time, torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
import json
class Clock(TrainerCallback):
    times = []
    def on_step_end(self, *a, **k): self.times.append(time.monotonic())
base = sys.argv[1]
rows = [{{"messages": json.loads(line)["messages"]}} for line in open(sys.argv[2])]
args = SFTConfig(output_dir=sys.argv[3], max_steps={STEPS}, per_device_train_batch_size=8, learning_rate=1e-3,
    lr_scheduler_type="linear", warmup_steps=0.03, assistant_only_loss=True, max_length=None, seed=42, data_seed=42,
    logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
    activation_checkpointing=False, bf16=False, use_cpu=True, dataloader_pin_memory=False)
trainer = SFTTrainer(model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), args=args,
    train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(base), callbacks=[Clock()],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
trainer.train()
print("SECONDS", (Clock.times[-1] - Clock.times[{WARM}]) / (len(Clock.times) - 1 - {WARM}))
"""


def measure(rounds: int) -> list[Row]:
    """Ours and the bare script in turn."""
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(_ours())
        bare.append(_bare())
    return [Row("training step, demo model, LoRA", "s", ours, bare, 1.03, "bare TRL script")]


def _ours() -> float:
    with tempfile.TemporaryDirectory() as home:
        studio = Studio(Settings(Path(home), "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
        values = studio.demo_config().model_dump()
        values["data"]["eval_fraction"] = 0.0
        values["duration"]["max_steps"] = STEPS
        values["evaluation"]["steps"] = 1_000_000
        view = finish(studio, studio.start_training(parse_run_config(values)))
        assert view.status == "finished", view.message
        seconds = [metrics.seconds or 0.0 for metrics in view.state.metrics]
        return mean(b - a for a, b in zip(seconds[WARM:], seconds[WARM + 1 :], strict=False))


def _bare() -> float:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", BARE, str(DEMO_FOLDER / "model"), str(DEMO_FOLDER / "dataset.jsonl"), out]
        env = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return float(next(line for line in done.stdout.splitlines() if line.startswith("SECONDS")).split()[1])
