"""The demo teaches what it says: from no JSON at all to the right JSON on questions that it never saw in training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftapp.contract.answers import JsonFormat
from ftapp.contract.config import parse_run_config
from ftapp.demo.scoring import is_json_object, json_answer_right
from ftapp.studio import DEMO_FOLDER, Studio
from tests.running import finish, wait_for

AT_LEAST = 0.90
HELD_OUT = 300


def held_out() -> list[tuple[str, str]]:
    """Questions and right answers."""
    lines = (DEMO_FOLDER / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [json.loads(line)["messages"] for line in lines]
    return [(turn[0]["content"], json.loads(turn[1]["content"])["answer"]) for turn in turns]


def answers(model: Any, questions: list[str]) -> list[str]:
    """Greedy answers, a hundred at a time."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER / "model", padding_side="left")
    said: list[str] = []
    for start in range(0, len(questions), 100):
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            for question in questions[start : start + 100]
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=False,
                max_new_tokens=40,
            )
        said += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return said


def load(adapter: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(DEMO_FOLDER / "model", dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter).eval()


def share(said: list[str], right: Callable[[str, str], bool]) -> float:
    rows = held_out()
    return sum(right(text, answer) for text, (_, answer) in zip(said, rows, strict=True)) / len(rows)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_demo_learns_its_format(studio: Studio, method: str) -> None:
    rows = held_out()
    questions = [question for question, _ in rows]
    assert len(set(questions)) == len(rows) >= HELD_OUT
    values = studio.demo_config().model_dump()
    values["method"]["type"] = method
    values["duration"]["epochs"] = 5  # half of the preset's are enough to see it; the page's test trains all of them
    view = finish(studio, studio.start_training(parse_run_config(values)))
    assert view.status == "finished", view.message
    model = load(view.folder / "adapter")
    assert share(answers(model, questions), json_answer_right) >= AT_LEAST
    if method == "lora":
        with model.disable_adapter():
            before = answers(model, questions)
        assert not any(is_json_object(text) for text in before)
        check_the_evaluation_says_so(studio, view.name)


def check_the_evaluation_says_so(studio: Studio, run: str) -> None:
    """From no right answer, by the base as it is, to at least 95 %, topic and form included."""
    number = studio.evaluate(studio.evaluation_config(run))
    wait_for(lambda: not studio.evaluation(run, number).active, "the end of the evaluation")
    report = studio.evaluation_report(run, number)
    assert report is not None, studio.evaluation(run, number).message
    assert (report.rows, report.seen_in_training) == (200, 0)
    assert report.format == JsonFormat(keys=["answer", "topic"])
    base, tuned = report.of("base"), report.of("tuned")
    assert base
    assert base.exact
    assert (base.exact.value, base.exact.low) == (0, 0)
    assert tuned
    assert tuned.exact
    assert tuned.exact.value >= 0.95
    assert tuned.exact.low > 0.9
    assert report.verdict.kind == "helped", report.verdict.sentence
    judged = [
        json_answer_right(row.answers["tuned"].text or "", json.loads(row.reference)["answer"])
        for row in studio.evaluation_rows(run, number)
    ]
    assert sum(judged) >= tuned.exact.value * len(judged), "the demo's own judge, who lets any topic pass"
