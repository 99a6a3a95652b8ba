"""An answer in the chat, against a bare `generate` with the same settings: tokens a second, and the first token."""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ftapp.contract.chat import Answered, Question, Text
from ftapp.contract.config import parse_run_config
from ftapp.settings import Settings
from ftapp.studio import Studio
from tests.asking import question
from tests.bench.table import Row
from tests.models import tokenizer
from tests.running import config_for, finish

TOKENS = 64
ASKED = "Say something about the sea, the wind and the weather of the north. " * 4
SHAPE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
         "num_key_value_heads": 12, "max_position_embeddings": 2048}  # fmt: skip
"""Of a small language model (about 85 M parameters), since a toy's time is all overhead."""
BARE = """
import json, sys, time, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer
class Clock(BaseStreamer):
    def __init__(self): self.times = []
    def put(self, value): self.times.append(time.monotonic())
    def end(self): pass
base, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
for line in sys.stdin:
    began = time.monotonic()
    ask = json.loads(line)
    turns = [{"role": "user", "content": ask["text"]}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    clock = Clock()
    with torch.inference_mode():
        out = model.generate(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], streamer=clock,
            do_sample=False, max_new_tokens=ask["tokens"], pad_token_id=0, eos_token_id=ask["stops"])
    times = clock.times[1:]
    said = tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)
    rate = (len(times) - 1) / (times[-1] - times[0])
    print(json.dumps({"first": times[0] - began, "rate": rate, "said": said}), flush=True)
"""


def measure(rounds: int) -> list[Row]:
    """Both in memory at once; each round asks both, in random order."""
    with tempfile.TemporaryDirectory() as place:
        studio = Studio(Settings(Path(place) / "home", "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
        base = _base(Path(place) / "base")
        values = config_for(studio, base, Path(place), duration={"max_steps": 1}).model_dump()
        method = {"type": "lora", "rank": 8}
        run = finish(studio, studio.start_training(parse_run_config({**values, "method": method})))
        assert run.status == "finished", run.message
        command = [sys.executable, "-c", BARE, str(base), str(run.folder / "adapter")]
        bare = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        asked = question(ASKED, max_new_tokens=TOKENS)
        slow: dict[str, list[float]] = {"ours": [], "bare": []}
        first: dict[str, list[float]] = {"ours": [], "bare": []}
        try:
            for number in range(2 * rounds + 1):
                order = ["ours", "bare"]
                random.shuffle(order)
                heard = {name: _ours(studio, run.name, asked) if name == "ours" else _bare(bare) for name in order}
                assert heard["ours"]["said"] == heard["bare"]["said"]
                if number:  # the first loads and warms up
                    for name in order:
                        slow[name].append(1 / heard[name]["rate"])
                        first[name].append(heard[name]["first"])
        finally:
            bare.kill()
            bare.wait()
            studio.close_chat()
    late = [1000 * (ours - other) for ours, other in zip(first["ours"], first["bare"], strict=True)]
    against = "bare generate"
    return [
        Row("seconds a token in the chat, 85 M model, LoRA", "s", slow["ours"], slow["bare"], 1 / 0.97, against),
        Row("first token in the chat, later than a bare generate", "ms", late, [], 50),
    ]


def _ours(studio: Studio, run: str, asked: Question) -> dict[str, Any]:
    """Through the whole pipe, with the clock of who reads it: the first piece, and the end."""
    began = time.monotonic()
    said, first, tokens, last = "", 0.0, 0, 0.0
    for reply in studio.chat(run, asked):
        if isinstance(reply, Text):
            last = time.monotonic()
            first = first or last
            said += reply.text
        elif isinstance(reply, Answered):
            last, tokens = time.monotonic(), reply.tokens
    return {"first": first - began, "rate": (tokens - 1) / (last - first), "said": said}


def _bare(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps({"text": ASKED, "tokens": TOKENS, "stops": [0, 2]}) + "\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


def _base(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    fast = tokenizer()
    ends = {"vocab_size": len(fast), "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **ends, bos_token_id=None))
    letters = {fast.convert_tokens_to_ids(chr(code)) for code in range(ord("!"), ord("~") + 1)}
    with torch.no_grad():  # it says nothing but letters, and does not stop
        model.lm_head.weight[[token for token in range(len(fast)) if token not in letters]] = 0
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
