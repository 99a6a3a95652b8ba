"""The model card states what the run's dataset was: every row that was left out, and why."""

import json
from pathlib import Path

import pytest

from ftapp.card import card_of
from ftapp.contract import events as ev
from ftapp.contract.config import parse_publish_config, parse_run_config
from ftapp.contract.report import Edit, dataset_record
from ftapp.store.datasets import DatasetStore
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import JobStore


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
