"""The model card states what the run's dataset was: every row that was left out, and why."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from ftapp.card import CHECK_PLACE, card_of, check_card, final
from ftapp.contract import events as ev
from ftapp.contract.config import parse_run_config
from ftapp.contract.errors import ConfigError
from ftapp.contract.publication import parse_publish_config
from ftapp.contract.report import Edit, HubSource, dataset_record
from ftapp.store.datasets import DatasetStore
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.store.runs import JobStore


def row(prompt: str, answer: str, *more: str) -> str:
    roles = ["user", "assistant", "user"]
    turns = [{"role": role, "content": text} for role, text in zip(roles, [prompt, answer, *more], strict=False)]
    return json.dumps({"messages": turns}) + "\n"


def card(folder: Path, edits: list[Edit], **data: str) -> str:
    """The card of a run on a file with every kind of row that may be left out."""
    words = " ".join(f"word{number}" for number in range(60))
    rows = [row(f"q{n}", f"an answer of its own, number {n}") for n in range(20)]
    rows += [row("Q3", "an answer of its own, number 3")] * 3
    rows += [row("long", words), row("long", f"{words} more"), row("short", "Yes."), row("q", "an answer", "thanks")]
    (folder / "x.jsonl").write_text("".join(rows) + "broken\n{}\n")
    info = DatasetStore(folder / "datasets").add(folder / "x.jsonl", "x.jsonl", edits=edits)
    config = parse_run_config({"data": {"dataset": info.id, **data}})
    job = JobStore(folder / "runs").create(config, dataset_record(info))
    log = EventLog(job.folder / "events.jsonl")
    log.append(ev.Resolved(values={}, train_rows=18, eval_rows=2, left_out_rows=1, train_tokens=900))
    log.append(ev.Finished(artifact="adapter"))
    text = card_of(job, parse_publish_config({"run": job.name, "artifact": "adapter"}))
    return text.split("## Data")[1].split("## Training")[0].strip()


def test_rows_left_out_are_counted_by_their_reasons(tmp_path: Path) -> None:
    told = card(tmp_path, ["drop_problems", "drop_short", "drop_duplicates", "drop_near_duplicates"])
    assert (
        "(29 rows, 3 left out because they could not be used, 1 left out as having a very short answer, "
        "3 left out as repeating another row, 1 left out as being almost another row): "
        "18 rows for training, 2 held out, 1 left out because they are longer than the maximum length; "
        "900 tokens an epoch."
    ) in told


def test_what_was_changed_in_rows_is_told(tmp_path: Path) -> None:
    told = card(tmp_path, ["drop_problems", "drop_trailing", "fold_system"])
    assert "(29 rows, 2 left out because they could not be used)" in told
    assert (
        "Changed before training: the turns after the last answer were dropped, the system text was put in front"
        in told
    )


def test_nothing_left_out_is_not_told(tmp_path: Path) -> None:
    told = card(tmp_path, [])
    assert "left out as" not in told
    assert "Changed before training" not in told


@pytest.mark.parametrize("other", ["held-0123abcd"])
def test_rows_to_measure_on_of_another_dataset_are_named(tmp_path: Path, other: str) -> None:
    assert f"18 rows for training, 2 rows of `{other}` to measure on" in card(tmp_path, [], eval_dataset=other)


NASTY = "<script>alert(1)</script> [x](javascript:1) | `**bold**` {{7*7}}"


def nasty_job(folder: Path, source: HubSource | None = None) -> Job:
    """A run whose names were chosen by somebody who does not mean well."""
    (folder / "x.jsonl").write_text("".join(row(f"q{n}", f"an answer, number {n}") for n in range(20)))
    info = DatasetStore(folder / "datasets").add(folder / "x.jsonl", "x.jsonl")
    model = {"id": "owner/base"} if source else {"id": f"/home/someone/{NASTY}".replace("</", "<")}
    method = {"type": "lora", "init": "pissa", "rank": 24, "target_modules": NASTY.replace(",", "")}
    config = parse_run_config({"model": model, "data": {"dataset": info.id}, "method": method})
    record = dataset_record(info).model_copy(update={"source": source})
    job = JobStore(folder / "runs").create(config, record)
    log = EventLog(job.folder / "events.jsonl")
    values = {"model.licence": "apache-2.0" if source else NASTY, "model.revision": "0" * 40, "device": NASTY}
    log.append(ev.Resolved(values=values, train_rows=18, eval_rows=2))
    for step in (1, 2):
        log.append(ev.Metrics(step=step, total_steps=2, epoch=1, loss=float("nan") if step == 1 else 0.5))
        log.append(ev.Evaluation(step=step, loss=0.75, perplexity=2.117, tokens=30))
    log.append(ev.Finished(artifact="adapter"))
    return job


def test_text_from_people_is_escaped(tmp_path: Path) -> None:
    text = card_of(nasty_job(tmp_path), parse_publish_config({"run": "r", "artifact": "merged"}))
    body = text.split("---", 2)[2]
    outside = re.sub(r"```.*?```|`[^`\n]*`", "", body, flags=re.DOTALL)
    assert "<script>" not in outside
    assert "[x](" not in outside
    assert "/home/someone" not in text
    check_card(text)


def test_metadata_is_what_the_hub_knows(tmp_path: Path) -> None:
    source = HubSource(id="owner/rows", revision="1" * 40, config="default", split="train", files=["a.jsonl"], bytes=1)
    publication = parse_publish_config({"run": "r", "destination": "me/tuned"})
    text = card_of(nasty_job(tmp_path, source), publication)
    data = ModelCard(text).data
    assert (data.base_model, data.library_name, data.license) == ("owner/base", "peft", "apache-2.0")
    assert data.datasets == ["owner/rows"]
    assert {"ftapp", "lora"} <= set(data.tags)
    result = data.eval_results[0]
    assert (data.model_name, result.metric_type, result.metric_value) == ("tuned", "loss", 0.75)
    assert result.dataset_type == "owner/rows"
    assert "vllm serve owner/base --enable-lora --max-lora-rank 64 --lora-modules tuned=me/tuned" in text
    assert "![" not in text, "a single finite loss is no curve"


def test_what_the_check_finds_comes_in_its_place(tmp_path: Path) -> None:
    text = card_of(nasty_job(tmp_path), parse_publish_config({"run": "r", "artifact": "merged"}))
    assert text.count(CHECK_PLACE) == 1
    found = ev.Verified(
        passed=True, rows=8, held_out=True, positions=75, top1=1.0, divergence=2e-8, change=0.03, answers=4,
        same_answers=4, precision="float32",
    )  # fmt: skip
    assert "75 places in 8 held-out rows | 100.00 %" in final(text, found)
    assert CHECK_PLACE not in final(text, None)


@pytest.mark.parametrize("text", ["# no metadata", "---\nlicense: [\n---\n", "---\n- a list\n---\n"])
def test_a_card_that_the_hub_could_not_read_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="card"):
        check_card(text)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": "branch"}, "branch"),
        ({"branch": "x"}, "branch"),
        ({"mode": "branch", "branch": "a..b"}, "branch"),
        ({"mode": "branch", "branch": "refs/heads/x"}, "branch"),
        ({"artifact": "merged", "with_base": True}, "with_base"),
        ({"destination": "a/b", "folder": "/x"}, "folder"),
    ],
)
def test_what_does_not_go_together_is_told_at_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_publish_config({"run": "r", **change})
    assert list(told.value.problems) == [field]
