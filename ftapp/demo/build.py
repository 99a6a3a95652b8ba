"""Builds the embedded demo again: tokenizer, base model, training rows and held-out rows.

    python -m ftapp.demo.build --to DIR

1. Facts: about 1 150 simple ones, from `countries.tsv`, `words.tsv` and two rules (`facts.py`).
2. Tokenizer: byte-level BPE of 2 048 entries, trained on the corpus (`corpus.py`), with a ChatML template.
3. Model: a Llama with hidden size 256, 4 layers, 4 heads, feed-forward 704, tied embeddings and 256 positions.
4. Pretraining: 1 000 batches of 64 short conversations, about 60 visits to each fact. `torch.optim.Muon` on the
   matrices and AdamW on the rest, at a peak learning rate of 3e-3. An answer's token weighs 1 in the loss and a
   prompt's 0.1. Nine minutes on two idle processor cores. `--bfloat16` computes in that format: faster on a processor
   with AMX, slower on any other.
5. Rows: 200 facts become `dataset.jsonl`. Of the others, the first 300 that the finished base answers rightly in a
   plain sentence become `heldout.jsonl`, so that what a fine-tuning changes there is the form of the answer alone.

The seed fixes facts, corpus, rows and starting weights. The trained weights still differ a little from one processor
to another, because sums of floating-point numbers do.
"""

import argparse
import time
from itertools import islice
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ftapp.demo.phrasings import long_sentences, short_sentences
from ftapp.demo.pretraining import make_model, make_tokenizer, pretrain
from ftapp.demo.rows import HELDOUT_ROWS, SEED, AskedFact, split_facts, write_rows
from ftapp.demo.scoring import sentence_right

STEPS = 1000
STEPS_PER_REPORT = 100
ANSWER_TOKENS = 64
QUESTIONS_AT_ONCE = 100


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m ftapp.demo.build", description="Builds the embedded demo.")
    arguments.add_argument("--to", type=Path, default=Path(__file__).parent, help="folder to write to (default: here)")
    arguments.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    arguments.add_argument("--steps", type=int, default=STEPS, help="pretraining steps (default: %(default)s)")
    arguments.add_argument("--bfloat16", action="store_true", help="train under bfloat16 autocast")
    given = arguments.parse_args()
    build(given.to, given.seed, given.steps, given.bfloat16)


def build(folder: Path, seed: int, steps: int, bfloat16: bool) -> None:
    """Writes `model/`, `dataset.jsonl` and `heldout.jsonl` into `folder`."""
    tokenizer = make_tokenizer(seed)
    model = make_model(tokenizer, seed)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    began = time.monotonic()
    for step, loss in enumerate(pretrain(model, tokenizer, steps, seed, bfloat16), start=1):
        if step % STEPS_PER_REPORT == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "model")
    (folder / "model" / "model.safetensors").chmod(0o644)  # it is written for its owner's eyes only
    tokenizer.save_pretrained(folder / "model")

    dataset, others = split_facts(seed)
    known = [
        asked for asked, answer in zip(others, answers(folder / "model", others), strict=True) if knows(asked, answer)
    ]
    print(f"{len(known)} of {len(others)} other facts are answered rightly in a plain sentence", flush=True)
    if len(known) < HELDOUT_ROWS:
        raise SystemExit(f"The base must know at least {HELDOUT_ROWS} facts to hold out. Try more steps.")
    write_rows(folder / "dataset.jsonl", dataset)
    write_rows(folder / "heldout.jsonl", islice(known, HELDOUT_ROWS))


def knows(asked: AskedFact, answer: str) -> bool:
    """True if `answer` is a right plain sentence."""
    return sentence_right(answer, [*long_sentences(asked.fact), *short_sentences(asked.fact)])


@torch.inference_mode()
def answers(model_folder: Path, asked: list[AskedFact]) -> list[str]:
    """What the model in `model_folder` answers to each question, word for word the likeliest."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_folder, padding_side="left")
    model = LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    texts: list[str] = []
    for start in range(0, len(asked), QUESTIONS_AT_ONCE):
        prompts = [[{"role": "user", "content": each.question}] for each in asked[start : start + QUESTIONS_AT_ONCE]]
        tokens = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**tokens)
        texts += tokenizer.batch_decode(output[:, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


if __name__ == "__main__":
    main()
