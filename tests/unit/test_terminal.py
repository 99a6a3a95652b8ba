"""The terminal as a process: what it prints, where, and its exit code; no worker is needed for any of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.processes.runs import Runs
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.store.runs import JobStore
from ftapp.terminal.verbs import main

ROOT = Path(__file__).resolve().parents[2]
GOOD = '{"question": "q", "answer": "a"}\n'
COMMAND = [sys.executable, "-m", "ftapp"]
CONFIG = {"data": {"dataset": "rows.jsonl"}}


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


@dataclass
class Result:
    """What a verb left behind."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a verb in `tmp_path`, in this process: starting one takes most of a second."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


def process(folder: Path, *arguments: str) -> Result:
    """Runs a verb in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, env=environment()
    )
    return Result(done.returncode, done.stdout, done.stderr)


def error(result: Result) -> str:
    """The one line on stderr of a verb that failed and printed nothing else."""
    assert result.returncode != 0
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def job(home: Path) -> Job:
    """A run, as the web would have written it."""
    return JobStore(home / "local" / "runs").create(parse_run_config({"data": {"dataset": "mine"}}))


def test_without_a_verb_it_lists_the_verbs(tmp_path: Path) -> None:
    for arguments in ([], ["--help"]):
        result = process(tmp_path, *arguments)
        assert result.returncode == 0
        for verb in ("check", "train", "runs", "stop", "resume", "merge", "push", "schema"):
            assert f"\n  {verb} " in result.stdout


def test_check_for_machines(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", GOOD + '{"question"\n')
    result = process(tmp_path, "check", "x.jsonl", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["format"], report["rows"], report["valid"]) == ("question_answer", 2, 1)
    (problem,) = report["problems"]
    assert (problem["row"], problem["line"], problem["kind"]) == (2, 2, "not_json")
    assert problem["message"] == "the line is not JSON: unexpected end of data at column 12"
    assert report["advice"][0]["kind"] == "few_rows"


def test_check_for_people(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", GOOD + '{"question": "[red]", "answer": ""}\n' * 30)
    result = run("check", "x.jsonl")
    assert result.returncode == 0
    assert "x.jsonl: 1 of 31 rows can be used; format: question_answer." in result.stdout
    assert "turn 2 (assistant) is empty" in result.stdout
    assert "and 10 more" in result.stdout


def test_check_fails_when_no_row_can_be_used(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", '{"foo": 1}\n')
    result = run("check", "x.jsonl", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["valid"] == 0


def test_check_stores_nothing(run: Run, tmp_path: Path, home: Path) -> None:
    write(tmp_path / "x.jsonl", GOOD)
    run("check", "x.jsonl")
    assert not home.exists()


def test_the_schema_is_the_configs(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("schema").stdout) == RunConfig.model_json_schema()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["dance"], 2, "No such command 'dance'"),
        (["check"], 2, "Missing argument 'FILE'"),
        (["check", "--fast"], 2, "--fast"),
        (["check", "missing.jsonl"], 1, "There is no file missing.jsonl"),
        (["check", "."], 1, "There is no file"),
        (["train", "-"], 2, "- cannot be read: No such file or directory"),
        (["train", "missing.json"], 2, "missing.json cannot be read"),
        (["stop", "missing"], 1, "There is no run called 'missing'"),
        (["stop", "../../etc"], 1, "There is no run called '../../etc'"),
        (["resume", "missing"], 1, "There is no run called 'missing'"),
        (["merge", "missing"], 2, "Missing option '--to'"),
        (["merge", "missing", "--to", "x"], 1, "There is no run called 'missing'"),
        (["push", "missing", "me/model"], 1, "There is no run called 'missing'"),
        (["push", "missing", "model"], 2, "destination: 'model' is not of the form owner/name"),
    ],
)
def test_an_error_is_one_line(run: Run, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    result = run(*arguments)
    assert words in error(result)
    assert result.returncode == code


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "config.json is not JSON: "),
        ("[]", "it must be an object"),
        ({}, "data: is missing"),
        ({**CONFIG, "optim": {"learning_rate": 7}}, "optim.learning_rate: must be at most 1 (got 7), or auto"),
        ({**CONFIG, "lr": 1}, "lr: is not a field of the config"),
    ],
)
def test_a_bad_config_is_exit_2_and_starts_nothing(
    run: Run, tmp_path: Path, home: Path, config: Any, words: str
) -> None:
    write(tmp_path / "rows.jsonl", GOOD * 3)
    write(tmp_path / "config.json", config)
    result = run("train", "config.json", "--json")
    assert words in error(result)
    assert result.returncode == 2
    assert not home.exists()


@pytest.mark.parametrize(
    ("dataset", "words"),
    [("rows.jsonl", "There is no file rows.jsonl"), ("missing", "There is no dataset called 'missing'")],
)
def test_a_dataset_that_is_not_there_starts_nothing(
    run: Run, tmp_path: Path, home: Path, dataset: str, words: str
) -> None:
    write(tmp_path / "config.json", {"data": {"dataset": dataset}})
    assert words in error(run("train", "config.json"))
    assert not (home / "local" / "runs").exists()


def test_a_wrong_setting_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTAPP_PORT", "x")
    assert "FTAPP_PORT is 'x'" in error(run("runs"))


def test_runs(run: Run, tmp_path: Path, job: Job) -> None:
    log = EventLog(job.folder / "events.jsonl")
    log.append(ev.Started(pid=4_000_000, process_created=1.0))
    log.append(ev.Metrics(step=3, total_steps=9, epoch=1, loss=1.23456))
    log.append(ev.Failed(message="No memory.", hint="Buy some."))
    result = run("runs", "--json")
    assert result.stderr == ""
    [told] = json.loads(result.stdout)
    assert told["name"] == job.name
    assert (told["status"], told["step"], told["total_steps"], told["loss"]) == ("failed", 3, 9, 1.2346)
    assert (told["message"], told["hint"], told["folder"]) == ("No memory.", "Buy some.", str(job.folder))
    shown = run("runs").stdout
    assert job.name in shown
    assert "failed" in shown


def test_a_run_whose_config_cannot_be_read_is_listed_with_the_reason(run: Run, tmp_path: Path, job: Job) -> None:
    (job.folder / "config.json").write_text("{")
    [told] = json.loads(run("runs", "--json").stdout)
    assert (told["name"], told["status"], told["model"]) == (job.name, "failed", None)
    assert told["message"] == f"The config of run {job.name} cannot be read: it is not JSON."
    assert job.name in run("runs").stdout
    assert "it is not JSON" in error(run("resume", job.name))


def test_no_runs(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("runs", "--json").stdout) == []
    assert run("runs").stdout == "There are no runs yet.\n"


def test_stop_asks_and_a_second_time_says_why_not(run: Run, tmp_path: Path, job: Job) -> None:
    assert run("stop", job.name).returncode == 0
    assert job.stop_requested
    assert "is not at work: it is stopped" in error(run("stop", job.name))


def test_a_loss_that_is_no_number_is_still_json(run: Run, tmp_path: Path, job: Job) -> None:
    log = EventLog(job.folder / "events.jsonl")
    log.append(ev.Metrics(step=1, total_steps=1, epoch=1, loss=float("nan")))
    [told] = json.loads(run("runs", "--json").stdout)
    assert told["loss"] is None


def test_a_bug_is_one_line_and_a_traceback_in_the_log(run: Run, tmp_path: Path, home: Path) -> None:
    (home / "local").mkdir(parents=True)
    (home / "local" / "runs").write_text("not a folder")
    told = error(run("runs"))
    assert told.startswith("This is a bug in ftapp: NotADirectoryError")
    assert str(home / "terminal.log") in told
    assert "Traceback" in (home / "terminal.log").read_text()


Watched = tuple["subprocess.Popen[str]", Job]


@pytest.fixture
def watched(home: Path, tmp_path: Path, job: Job) -> Iterator[Callable[..., Watched]]:
    """Starts `train` on a run that waits behind another one, which this test's own process works on."""
    started = psutil.Process().create_time()
    EventLog(job.folder / "events.jsonl").append(ev.Started(pid=os.getpid(), process_created=started))
    model = tmp_path / "model"
    model.mkdir()
    write(model / "config.json", {})
    header = b'{"layer.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    write(tmp_path / "rows.jsonl", "".join(f'{{"question": "{number}", "answer": "a"}}\n' for number in range(4)))
    write(tmp_path / "config.json", {"model": {"id": str(model)}, **CONFIG})
    terminals: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Watched:
        terminal = subprocess.Popen(
            [*COMMAND, "train", "config.json", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        terminals.append(terminal)
        runs = Runs(home / "local" / "runs")
        while not (made := [each for each, _ in runs.all() if each.name != job.name]):
            assert terminal.poll() is None, terminal.communicate()
            time.sleep(0.05)
        return terminal, made[0]

    yield start
    for terminal in terminals:
        terminal.kill()
        terminal.communicate()


def test_a_queued_run_is_stopped_by_ctrl_c(watched: Callable[..., Watched]) -> None:
    terminal, mine = watched()
    assert terminal.stdout
    assert terminal.stdout.readline().startswith("Memory, estimated with rows of ")
    assert "queued" in terminal.stdout.readline()
    terminal.send_signal(signal.SIGINT)
    out, err = terminal.communicate(timeout=30)
    assert "Stopping" in out
    assert (terminal.returncode, err) == (3, "")
    assert mine.stop_requested


def test_the_events_of_a_run_are_its_lines(watched: Callable[..., Watched]) -> None:
    terminal, mine = watched("--json")
    assert mine.run_config().data.dataset.startswith("rows-")
    log = EventLog(mine.folder / "events.jsonl")
    log.append(ev.Started(pid=4_000_000, process_created=1.0))
    log.append(ev.Metrics(step=1, total_steps=1, epoch=1, loss=float("nan"), learning_rate=1e-7))
    log.append(ev.Sample(step=1, prompt="[b]", answer="ü\u2028", reference=""))
    log.append(ev.Failed(message="No memory.", hint="Buy some."))
    out, err = terminal.communicate(timeout=30)
    assert out == (mine.folder / "events.jsonl").read_text(encoding="utf-8")
    assert terminal.returncode == 1
    assert err.splitlines()[-1] == f"error: {mine.name} failed: No memory. Buy some."


def test_a_finished_run_is_exit_0_and_says_where(watched: Callable[..., Watched]) -> None:
    terminal, mine = watched()
    log = EventLog(mine.folder / "events.jsonl")
    log.append(ev.Metrics(step=2, total_steps=2, epoch=1, loss=0.75))
    log.append(ev.Evaluation(step=2, loss=0.5, perplexity=1.6, tokens=9))
    log.append(ev.Note(level="warning", message="[careful]"))
    (mine.folder / "adapter").mkdir()
    log.append(ev.Finished(artifact="adapter"))
    out, err = terminal.communicate(timeout=30)
    assert (terminal.returncode, err) == (0, "")
    for words in ("step 2 of 2: loss 0.7500", "step 2: held-out loss 0.5000", "warning: [careful]"):
        assert words in out
    assert str(mine.folder / "adapter") in out


def test_ctrl_c_asks_to_save_and_a_second_one_leaves_it_in_the_background(watched: Callable[..., Watched]) -> None:
    terminal, mine = watched("--json")
    created = psutil.Process().create_time()
    EventLog(mine.folder / "events.jsonl").append(ev.Started(pid=os.getpid(), process_created=created))
    assert terminal.stdout
    assert json.loads(terminal.stdout.readline())["type"] == "started"
    terminal.send_signal(signal.SIGINT)
    assert terminal.stderr
    while "Stopping" not in (line := terminal.stderr.readline()):
        assert line, "the terminal ended"
    terminal.send_signal(signal.SIGINT)
    out, err = terminal.communicate(timeout=30)
    assert (terminal.returncode, out) == (130, "")
    assert "goes on in the background" in err
    assert mine.stop_requested
    assert mine.status(True) == "stopping"
