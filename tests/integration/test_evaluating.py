"""Evaluations with real processes on tiny models: start to verdict, stop, kill, the queue, and runs of every kind."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from ftapp.contract.errors import DatasetError, JobError
from ftapp.contract.evaluation import EvaluateConfig, EvaluationReport, Vote
from ftapp.contract.events import Finished, Phase
from ftapp.store.evaluations import newest_report
from ftapp.store.eventlog import tail
from ftapp.store.jobs import Job
from ftapp.studio import Studio
from ftapp.views import EvaluationView
from tests.integration.conftest import Trained
from tests.running import config_for, finish, wait_for

CONTEXT = 256
"""Of the tiny models, tokens; each is a byte."""


def ended(studio: Studio, run: str, number: str) -> EvaluationView:
    """Wait until the evaluation has ended, one way or another."""

    def look() -> EvaluationView | None:
        studio.scheduler.tick()  # as the page does
        view = studio.evaluation(run, number)
        return None if view.active else view

    return wait_for(look, f"the end of evaluation {number} of {run}")


def evaluated(studio: Studio, run: str, **asked: Any) -> tuple[str, EvaluationReport]:
    number = studio.evaluate(EvaluateConfig(run=run, **asked))
    view = ended(studio, run, number)
    assert view.status == "finished", view.message
    report = studio.evaluation_report(run, number)
    assert report is not None
    return number, report


def at_work(studio: Studio, run: str, number: str) -> EvaluationView:
    """Wait until the evaluation asks the first model."""

    def asking() -> EvaluationView | None:
        view = studio.evaluation(run, number)
        assert view.active, view.message
        phase = view.state.phase
        return view if phase and phase.name.startswith("asking") else None

    return wait_for(asking, "the first question")


@pytest.fixture(scope="module")
def first(trained: Trained) -> tuple[str, EvaluationReport]:
    return evaluated(trained.studio, trained.run, examples=8)


def losses_by_transformers(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> list[float]:
    """Each answer's loss, one row at a time, with nothing of ours: the answer is what follows the prompt."""
    found = []
    for prompt, whole in texts:
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
        labels = ids.clone()
        labels[:, :start] = -100
        with torch.no_grad():
            mean = model(input_ids=ids, labels=labels).loss
        found.append(float(mean) * (ids.shape[1] - start))
    return found


def test_from_start_to_verdict(trained: Trained, first: tuple[str, EvaluationReport]) -> None:
    number, report = first
    view = trained.studio.run(trained.run)
    assert view.state.resolved is not None
    assert (report.rows, report.available) == (view.state.resolved.eval_rows,) * 2
    assert [scores.contestant for scores in report.scores] == ["base", "examples", "tuned"]
    assert isinstance(view.end, Finished)
    best = view.end.best_step or view.state.evaluations[-1].step
    kept = next(one for one in view.state.evaluations if one.step == best)
    tuned = report.of("tuned")
    assert tuned is not None
    assert tuned.loss.value == pytest.approx(kept.loss, rel=1e-4), "the loss that training measured, another way"
    assert tuned.tokens == kept.tokens
    base = report.of("base")
    assert base is not None
    assert base.loss.value > tuned.loss.value
    assert report.verdict.sentence.endswith(".")
    assert newest_report(Job(view.folder)) == report
    shown = {row.row: {name: one.examples for name, one in row.answers.items()} for row in rows(trained, number)}
    assert all(one == {"base": 0, "examples": one["examples"], "tuned": 0} for one in shown.values())


def rows(trained: Trained, number: str) -> list[Any]:
    return trained.studio.evaluation_rows(trained.run, number)


def test_losses_and_answers_are_those_of_transformers_row_by_row(
    trained: Trained, first: tuple[str, EvaluationReport]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained.folder / "adapter")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(trained.base, dtype=torch.float32), trained.folder / "adapter"
    ).eval()
    answered = rows(trained, first[0])
    texts, prompts = [], []
    for row in answered:
        turns = [turn.model_dump() for turn in row.turns]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        prompts.append(prompt)
        texts.append((prompt, f"{prompt}{row.reference}<|im_end|>"))
    for name in ("tuned", "base"):
        if name == "base":
            model.disable_adapter_layers()
        mine = [row.answers[name].loss for row in answered]
        assert mine == pytest.approx(losses_by_transformers(model, tokenizer, texts), rel=1e-3)
        for row, prompt in zip(answered, prompts, strict=True):
            ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                out = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=first[1].max_new_tokens,
                    eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")],
                )
            said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
            assert row.answers[name].text == said


def test_examples_that_do_not_fit_the_context_are_left_out(
    trained: Trained, first: tuple[str, EvaluationReport]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained.folder / "adapter")
    row = rows(trained, first[0])[0]
    turns = [turn.model_dump() for turn in row.turns] + [{"role": "assistant", "content": row.reference}]
    length = len(tokenizer.apply_chat_template(turns)["input_ids"])
    most = CONTEXT // length - 1  # the question and its answer take one part
    assert most < 8
    assert 0 < first[1].examples <= most


def test_votes_are_kept_and_counted(trained: Trained, first: tuple[str, EvaluationReport]) -> None:
    trained.studio.vote(trained.run, first[0], Vote(row=1, best=["tuned"]))
    with (trained.folder / "evaluations" / first[0] / "votes.jsonl").open("ab") as file:
        file.write(b'{"row": 2, "be')  # a crash
    assert trained.studio.votes(trained.run, first[0]) == [Vote(row=1, best=["tuned"])]


def test_a_stop_is_obeyed_at_once_and_leaves_no_report(trained: Trained) -> None:
    studio = trained.studio
    number = studio.evaluate(EvaluateConfig(run=trained.run, max_new_tokens=200))
    with pytest.raises(JobError, match="already"):
        studio.evaluate(EvaluateConfig(run=trained.run))
    at_work(studio, trained.run, number)
    with pytest.raises(JobError, match="is being evaluated"):
        studio.delete_run(trained.run)
    studio.stop_evaluation(trained.run, number)
    view = ended(studio, trained.run, number)
    assert view.status == "stopped", view.message
    assert "nothing was kept" in view.message
    assert studio.evaluation_report(trained.run, number) is None
    assert not (view.folder / "report.json").exists()
    with pytest.raises(JobError, match="cannot be read"):
        studio.evaluation_rows(trained.run, number)


def test_a_killed_evaluation_is_lost_and_can_be_started_again(trained: Trained) -> None:
    studio = trained.studio
    number = studio.evaluate(EvaluateConfig(run=trained.run, max_new_tokens=200))
    started = at_work(studio, trained.run, number).state.started
    assert started is not None
    psutil.Process(started.pid).kill()
    view = ended(studio, trained.run, number)
    assert (view.status, view.hint) == ("lost", "Start it again.")
    done = evaluate(trained, "--rows", "3", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "started"
    again = studio.evaluations(trained.run)[0]
    assert int(again.name) == int(number) + 1
    report = studio.evaluation_report(trained.run, again.name)
    assert report == EvaluationReport.model_validate(lines[-1])
    assert report.rows == 3
    assert report.available > 3


def evaluate(trained: Trained, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m ftapp evaluate` as a person would."""
    env = os.environ | {"FTAPP_HOME": str(trained.studio.settings.home)}
    command = [sys.executable, "-m", "ftapp", "evaluate", trained.run, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_one_accelerator_one_tenant(trained: Trained, tmp_path: Path) -> None:
    studio = trained.studio
    number = studio.evaluate(EvaluateConfig(run=trained.run, max_new_tokens=200))
    run = studio.start_training(config_for(studio, trained.base, tmp_path))
    assert studio.run(run).status == "queued", "a training waits for the evaluation"
    assert [job.name for job in studio.scheduler.running()] == [trained.run]
    studio.stop_evaluation(trained.run, number)
    wait_for(lambda: studio.scheduler.tick() or studio.run(run).status != "queued", "the training begins")
    waiting = studio.evaluate(EvaluateConfig(run=trained.run, rows=2))
    assert studio.evaluation(trained.run, waiting).status == "queued", "an evaluation waits for the training"
    studio.kill(run)
    assert ended(studio, trained.run, waiting).status == "finished"
    assert studio.scheduler.running() == []


def test_the_terminal_prints_the_table_and_the_verdict(trained: Trained) -> None:
    done = evaluate(trained, "--rows", "8")
    assert done.returncode == 0, done.stderr
    assert "Exactly right" in done.stdout
    assert "n = 8 rows held out by the run" in done.stdout
    report = newest_report(Job(trained.folder))
    assert report is not None
    assert report.verdict.sentence in done.stdout
    wrong = evaluate(trained, "--rows", "0")
    assert wrong.returncode == 2
    assert "rows: must be at least 1" in wrong.stderr


WORDS = ["日本の首都", "naïve café", "cafe\u0301", "🦊🦊", "Straße", "مرحبا", "{curly}", "\\n"]


def write_unicode(path: Path, start: int = 0) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"{word} {n}?"}, {"role": "assistant", "content": f"{word}!"}]}
        for n in range(start, start + 4)
        for word in WORDS
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


def test_a_run_without_held_out_rows_is_measured_on_another_dataset(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    """Unicode rows; those whose prompt was trained on do not count."""
    info = studio.add_dataset(write_unicode(tmp_path / "words.jsonl"), "words.jsonl")
    data = {"dataset": info.id, "eval_fraction": 0.0}
    run = studio.start_training(config_for(studio, tiny_llama, tmp_path, data=data, duration={"epochs": 1}))
    assert finish(studio, run).status == "finished"
    with pytest.raises(JobError, match="held no rows out") as told:
        studio.evaluate(EvaluateConfig(run=run))
    assert "Choose a dataset" in told.value.hint
    other = studio.add_dataset(write_unicode(tmp_path / "other.jsonl", start=2), "other.jsonl")
    number, report = evaluated(studio, run, dataset=other.id, rows=100, max_new_tokens=24)
    assert (report.rows, report.seen_in_training, report.held_out_by_run) == (16, 16, False)
    answered = studio.evaluation_rows(run, number)
    composed = {unicodedata.normalize("NFC", word) for word in WORDS}
    assert {unicodedata.normalize("NFC", row.reference.rstrip("!")) for row in answered} == composed
    number = studio.evaluate(EvaluateConfig(run=run, dataset=info.id))
    view = ended(studio, run, number)
    assert view.status == "failed"
    assert "was trained on" in view.message
    with pytest.raises(DatasetError):
        studio.evaluate(EvaluateConfig(run=run, dataset="no-such"))
    studio.delete_dataset(info.id)
    with pytest.raises(DatasetError):
        studio.evaluate(EvaluateConfig(run=run, dataset=other.id))


def test_after_full_fine_tuning_the_base_is_loaded_beside_the_result(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    run = studio.start_training(config_for(studio, tiny_llama, tmp_path, "full", duration={"epochs": 1}))
    assert finish(studio, run).status == "finished"
    number, report = evaluated(studio, run, examples=1)
    tuned, base = report.of("tuned"), report.of("base")
    assert tuned is not None
    assert base is not None
    assert tuned.loss.value < base.loss.value
    assert studio.run(run).state.evaluations[-1].loss == pytest.approx(tuned.loss.value, rel=0.01), "stored in bf16"
    folder = studio.evaluation(run, number).folder
    events, _ = tail(folder / "events.jsonl", 0)
    assert any(isinstance(event, Phase) and event.done for event in events), "progress is told"


def test_plain_texts_are_judged_by_their_loss_alone(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"The number {n} is followed by {n + 1}."}) + "\n" for n in range(60)))
    info = studio.add_dataset(path, "texts.jsonl")
    data = {"dataset": info.id, "eval_fraction": 0.2}
    run = studio.start_training(config_for(studio, tiny_llama, tmp_path, data=data))
    assert finish(studio, run).status == "finished"
    _, report = evaluated(studio, run)
    assert [scores.contestant for scores in report.scores] == ["base", "tuned"]
    assert report.scores[0].exact is None
    assert "loss" in report.verdict.sentence
