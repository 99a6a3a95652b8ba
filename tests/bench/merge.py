"""The streaming merge against PEFT's merge_and_unload and a plain copy, on a model with random weights on a CPU."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.table import Row

MIB = 2**20
SHAPE: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 4096,
    "num_hidden_layers": 20,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
}
"""585 M parameters, as Llama has them, untied."""

MAKE = """
import json, sys, torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(LlamaConfig(**json.loads(sys.argv[1])))
model.save_pretrained(sys.argv[2], max_shard_size="200MB")
print(sum(parameter.numel() for parameter in model.parameters()))
torch.set_default_dtype(torch.float32)
tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False))
tuned.save_pretrained(sys.argv[3])
"""
BEFORE = """
import re, sys, time
from pathlib import Path
base, adapter, out = map(Path, sys.argv[1:])
"""
AFTER = """
# not ru_maxrss: that begins with what the parent had when it forked
print(time.monotonic() - began, int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""
OURS = f"""{BEFORE}
from ftapp.workers.merge import merge
began = time.monotonic()
merge(base, adapter, out, lambda *_: None){AFTER}"""
PEFT = f"""{BEFORE}
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
began = time.monotonic()
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), adapter)
model.merge_and_unload().save_pretrained(out, max_shard_size="200MB"){AFTER}"""
PLAIN = f"""{BEFORE}
import json, shutil, torch
from safetensors import safe_open
from safetensors.torch import load_file
lora = load_file(adapter / "adapter_model.safetensors")
spent = 0.0
for shard in sorted(base.glob("*.safetensors")):
    with safe_open(shard, "pt") as file:
        for name in file.keys():
            key = f"base_model.model.{{name.removesuffix('.weight')}}.lora_"
            if key + "A.weight" not in lora:
                continue
            weight = file.get_tensor(name).clone()
            down, up = lora[key + "A.weight"].float(), lora[key + "B.weight"].float()
            began = time.monotonic()
            (up @ down).mul_(2.0).add_(weight).to(weight.dtype)
            spent += time.monotonic() - began
out.mkdir()
began = time.monotonic() - spent
for path in base.iterdir():
    shutil.copyfile(path, out / path.name){AFTER}"""


def measure(rounds: int) -> list[Row]:
    """Peak memory against PEFT's, time against copying the files and the arithmetic alone."""
    ours, peft, plain = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = Path(folder) / "base", Path(folder) / "adapter"
        parameters = int(_python(MAKE, json.dumps(SHAPE), base, adapter)[0])
        for _ in range(rounds):
            for code, found in ((PLAIN, plain), (OURS, ours), (PEFT, peft)):
                out = Path(folder) / "out"
                found.append(_python(code, base, adapter, out))
                shutil.rmtree(out)
    name = f"merge of {parameters / 1e6:.0f} M parameters"
    return [
        Row(f"{name}: peak RSS", "MiB", [m / MIB for _, m in ours], [m / MIB for _, m in peft], 0.25, "PEFT"),
        Row(f"{name}: time", "s", [t for t, _ in ours], [t for t, _ in plain], 1.3, "copy + arithmetic"),
    ]


def _python(code: str, *arguments: object) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]
