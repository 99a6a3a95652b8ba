"""The default settings against TRL's own on rows of very unequal lengths: speed, and that nothing is paid for it."""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from ftapp.contract.config import parse_run_config
from ftapp.settings import Settings
from ftapp.studio import DEMO_FOLDER, Studio
from tests.bench.table import Row
from tests.running import finish

ROWS, HELD_OUT = 800, 150
LONGEST = 8
"""Questions in one row; the demo model's context has room for no more."""
RATE, EPOCHS, BATCH, SEED = 1e-3, 2, 8, 42
THEIRS = f"""
import sys, time, json, torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
class Clock(TrainerCallback):
    def on_train_begin(self, *a, **k): self.began = time.monotonic()
    def on_step_end(self, *a, **k): self.last = time.monotonic()
base, rows, out, cpu = sys.argv[1], sys.argv[2], sys.argv[3], not torch.cuda.is_available()
args = SFTConfig(output_dir=out, num_train_epochs={EPOCHS}, per_device_train_batch_size={BATCH}, learning_rate={RATE},
    assistant_only_loss=True, seed=int(sys.argv[4]), report_to=[], disable_tqdm=True, use_cpu=cpu, bf16=not cpu)
clock = Clock()
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32 if cpu else torch.bfloat16)
trainer = SFTTrainer(model=model, args=args, train_dataset=Dataset.from_list([json.loads(line) for line in open(rows)]),
    processing_class=AutoTokenizer.from_pretrained(base), callbacks=[clock],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
trainer.train()
trainer.save_model(out)
print("FIGURE", clock.last - clock.began)
"""
LOSS = """
import sys, json, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, rows = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
total = tokens = 0
with torch.no_grad():
    for line in open(rows):
        turns = json.loads(line)["messages"]
        asked = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
        ids = torch.tensor([ids])
        labels = ids.clone()
        labels[0, : len(asked)] = -100
        answer = int((labels[:, 1:] != -100).sum())
        total, tokens = total + float(model(input_ids=ids, labels=labels).loss) * answer, tokens + answer
print("FIGURE", total / tokens)
"""


def measure(rounds: int) -> list[Row]:
    """Both in turn on the same rows; the same rate, batch, epochs and adapter, and all else by default."""
    seconds: tuple[list[float], list[float]] = ([], [])
    losses: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as name:
        train, held_out = _write(Path(name))
        for number in range(rounds):
            # another seed each time: what one alone makes of the held-out loss differs by two per cent
            seed = SEED + number
            results = (
                _ours(Path(name) / f"home-{number}", train, seed),
                _theirs(Path(name) / f"theirs-{number}", train, seed),
            )
            for side, (taken, adapter) in enumerate(results):
                seconds[side].append(taken)
                losses[side].append(_figure(LOSS, str(DEMO_FOLDER / "model"), str(adapter), str(held_out)))
    return [
        Row("training on unequal lengths, demo model, LoRA", "s", *seconds, 1 / 1.5, "TRL's defaults"),
        Row("the same, held-out loss", "nats", *losses, 1.01, "TRL's defaults"),
    ]


def _write(folder: Path) -> tuple[Path, Path]:
    """Rows of one to eight of the demo's questions: most are short, as instructions usually are."""
    source = random.Random(SEED)
    lines = [json.loads(line)["messages"] for line in (DEMO_FOLDER / "dataset.jsonl").read_text("utf-8").splitlines()]
    rows = []
    for _ in range(ROWS + HELD_OUT):
        count = min(LONGEST, 1 + int(source.expovariate(1.0)))
        chosen = source.sample(lines, count)
        turns = [
            {"role": role, "content": " ".join(row[place]["content"] for row in chosen)}
            for place, role in enumerate(("user", "assistant"))
        ]
        rows.append(json.dumps({"messages": turns}) + "\n")
    train, held_out = folder / "train.jsonl", folder / "held-out.jsonl"
    train.write_text("".join(rows[:ROWS]))
    held_out.write_text("".join(rows[ROWS:]))
    return train, held_out


def _ours(home: Path, rows: Path, seed: int) -> tuple[float, Path]:
    studio = Studio(Settings(home, "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
    values = studio.demo_config().model_dump()
    values["data"] |= {"dataset": studio.add_dataset(rows, "rows.jsonl").id, "eval_fraction": 0.0}
    values["optim"]["learning_rate"] = RATE
    values["batch"]["effective_size"] = BATCH
    values["duration"]["epochs"] = EPOCHS
    values["seed"] = seed
    view = finish(studio, studio.start_training(parse_run_config(values)))
    assert view.status == "finished", view.message
    assert view.state.resolved is not None
    assert view.state.resolved.left_out_rows == 0, "both see the same rows"
    return view.state.metrics[-1].seconds or 0.0, view.folder / "adapter"


def _theirs(out: Path, rows: Path, seed: int) -> tuple[float, Path]:
    return _figure(THEIRS, str(DEMO_FOLDER / "model"), str(rows), str(out), str(seed)), out


def _figure(code: str, *arguments: str) -> float:
    env = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return float(next(line for line in done.stdout.splitlines() if line.startswith("FIGURE")).split()[1])
