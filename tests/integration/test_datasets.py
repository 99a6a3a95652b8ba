"""Datasets as a Studio keeps them: large files in a process of their own, cancelled at any moment; the Hub; runs."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from ftapp.contract.config import parse_run_config
from ftapp.contract.errors import DatasetError, EncodingNeeded, JobError
from ftapp.contract.report import CheckRequest, HubSource, SourceFile
from ftapp.processes import checking
from ftapp.settings import read_settings
from ftapp.store.building import build
from ftapp.studio import Studio
from tests.hub.fixture import running_hub
from tests.running import wait_for, write_rows

FILLER = "and so on and so forth " * 20


def write_large(path: Path, rows: int, bad: int = 0) -> Path:
    with path.open("w") as file:
        for number in range(rows):
            turns = [("user", f"What is {number} and {FILLER}?"), ("assistant", f"It is {number}, {FILLER}")]
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
        file.write("broken\n" * bad)
    return path


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


def test_a_large_file_is_checked_elsewhere_and_says_the_same(studio: Studio, tmp_path: Path) -> None:
    path = write_large(tmp_path / "large.jsonl", 25_000, bad=3)
    assert path.stat().st_size > 20 * 2**20
    heard: list[tuple[int, int]] = []
    info = studio.add_dataset(path, "large.jsonl", lambda done, total: heard.append((done, total)))
    assert (info.report.rows, info.report.valid, info.report.problem_count) == (25_003, 25_000, 3)
    assert [p.row for p in info.report.problems] == [p.line for p in info.report.problems] == [25_001, 25_002, 25_003]
    assert heard == sorted(heard)
    assert len({done for done, _ in heard}) > 2
    assert {total for _, total in heard} <= {1, path.stat().st_size}
    lines = [example.line for example in studio.examples(info.id, 24_990, 100)]
    assert lines == list(range(24_991, 25_001))
    assert studio.examples(info.id, 30_000) == []
    assert [number for number, _ in studio.search_examples(info.id, "What IS 24990 and")] == [24_990]
    request = CheckRequest(files=[SourceFile(path=str(path), name=path.name)])
    assert build(request, None).findings == info.report.findings
    assert studio.check_file(path).valid == 25_000


def test_a_check_is_cancelled_at_any_moment_and_leaves_nothing(studio: Studio, tmp_path: Path) -> None:
    path = write_large(tmp_path / "large.jsonl", 60_000)
    others = set(children())
    begun = threading.Event()
    threading.Thread(target=lambda: begun.wait(60) and studio.cancel_checks(), daemon=True).start()

    def progress(done: int, total: int) -> None:
        begun.set()

    with pytest.raises(DatasetError, match=r"Checking large\.jsonl was cancelled"):
        studio.add_dataset(path, "large.jsonl", progress)
    wait_for(lambda: not set(children()) - others, "the end of the check's processes", 20)
    folder = studio.folder / "datasets"
    assert [p.name for p in folder.iterdir() if p.suffix != ".lock"] == []
    assert studio.add_dataset(write_rows(tmp_path / "x.jsonl"), "x.jsonl").report.valid == 96


def test_what_the_other_process_refuses_is_told_as_if_here(studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(
        b"question,answer\n" + b"a question,an answer of some length\n" * 90_000 + "é,ü\n".encode("cp1252")
    )
    assert path.stat().st_size > checking.SMALL
    with pytest.raises(EncodingNeeded) as caught:
        studio.add_dataset(path, "x.csv")
    assert (caught.value.encoding, "é,ü" in caught.value.excerpt) == ("cp1252", True)


def test_too_large_a_file_is_told_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTAPP_MAX_UPLOAD_MB", "1")
    with pytest.raises(DatasetError, match="the limit is 1 MiB"):
        Studio(read_settings()).add_dataset(write_large(tmp_path / "x.jsonl", 3000), "x.jsonl")


@pytest.mark.parametrize(
    ("text", "filename", "valid"),
    [
        ('{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}', "pasted.jsonl", 2),
        (' [{"question": "a", "answer": "b"}]', "pasted.json", 1),
        ("question\tanswer\na\tb, c", "pasted.tsv", 1),
        ("question,answer\na,b", "pasted.csv", 1),
        ("Once upon a time.\n\nAnd then.", "pasted.txt", 2),
    ],
)
def test_pasted_rows_are_read_as_what_they_are(studio: Studio, text: str, filename: str, valid: int) -> None:
    info = studio.add_pasted(text)
    assert (info.filename, info.report.valid) == (filename, valid)


def test_training_waits_until_somebody_says_what_to_do_with_bad_rows(studio: Studio, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.jsonl")
    path.write_text(path.read_text() + "broken\nbroken too\n")
    info = studio.add_dataset(path, "x.jsonl")
    config = parse_run_config({"data": {"dataset": info.id}})
    with pytest.raises(DatasetError, match=r"2 rows of .* cannot be used"):
        studio.start_training(config)
    studio.leave_out_problems(info.id)
    run = studio.start_training(config)
    record = studio._jobs.get(run).dataset()
    assert record
    assert (record.rows, record.used, record.problems, record.edits) == (98, 96, 2, ["drop_problems"])
    for change in (
        lambda: studio.delete_dataset(info.id),
        lambda: studio.undo_fix(info.id, "drop_problems"),
    ):
        with pytest.raises(JobError, match="is using"):
            change()
    studio.kill(run)
    wait_for(lambda: not studio.run(run).active, "the end of the run")
    studio.delete_dataset(info.id)
    kept = studio._jobs.get(run).dataset()
    assert kept == record
    assert kept.sha256 == info.sha256


def test_rows_to_measure_on_may_be_a_file_of_their_own(studio: Studio, tmp_path: Path) -> None:
    train = studio.add_dataset(write_rows(tmp_path / "train.jsonl", 96), "train.jsonl")
    held = studio.add_dataset(write_rows(tmp_path / "held.jsonl", 10), "held.jsonl")
    data = parse_run_config({"data": {"dataset": train.id, "eval_dataset": held.id}}).data
    overlap = studio.overlap(data)
    assert (overlap.train_rows, overlap.eval_rows, overlap.shared_rows) == (86, 10, 10)
    rest, measured, _ = studio._datasets.sides(data, 0)
    prompts = {e.messages[0].content for e in rest}
    assert len(prompts) == 86
    assert not prompts & {e.messages[0].content for e in measured}
    same = parse_run_config({"data": {"dataset": train.id, "eval_dataset": train.id}})
    with pytest.raises(DatasetError, match="Every row of"):
        studio.start_training(same)


TOKEN = "hf_AliceOfTheDatasets0123456789"
CARD = b"""---
license: mit
configs:
- config_name: plain
  data_files:
  - split: train
    path: data/part-*.jsonl
  - split: test
    path: data/test.jsonl
---
"""


UPLOAD = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("alice/rows", repo_type="dataset", exist_ok=True)
api.upload_folder(folder_path=sys.argv[1], repo_id="alice/rows", repo_type="dataset")
"""
USE = """
import json, sys
from ftapp.contract.errors import HubError
from ftapp.settings import read_settings
from ftapp.studio import Studio
studio = Studio(read_settings())
told = studio.hub_dataset("alice/rows", sys.argv[1] or None)
heard = []
info = studio.add_hub_dataset(told.sources[0], lambda done, total: heard.append((done, total)))
try:
    studio.hub_dataset("alice/nothing")
except HubError as error:
    refused = error.message
left = [path.name for path in studio.folder.glob(".hub-*")]
print(json.dumps([told.model_dump(), json.loads(info.model_dump_json()), heard, refused, left]))
"""


def test_a_dataset_of_the_hub_is_pinned_to_what_was_shown(tmp_path: Path) -> None:
    files = {
        "README.md": CARD,
        "data/part-1.jsonl": write_rows(tmp_path / "1", 96).read_bytes(),
        "data/part-2.jsonl": write_rows(tmp_path / "2", 10).read_bytes(),
        "data/test.jsonl": write_rows(tmp_path / "3", 5).read_bytes(),
    }
    folder = tmp_path / "repo"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with running_hub(tmp_path / "hub") as hub:
        hub.add_user("alice", TOKEN)
        env = hub.env(tmp_path / "hf", TOKEN)

        def run(*argv: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run([sys.executable, "-c", *argv], env=env, capture_output=True, text=True)

        assert (done := run(UPLOAD, str(folder))).returncode == 0, done.stderr
        first = hub.commits("alice/rows", kind="dataset")[0]["oid"]
        (folder / "data/part-1.jsonl").write_bytes(files["data/test.jsonl"])
        assert run(UPLOAD, str(folder)).returncode == 0
        done = run(USE, first)
    assert done.returncode == 0, done.stderr
    told, info, heard, refused, left = json.loads(done.stdout.splitlines()[-1])
    assert (told["licence"], told["revision"]) == ("mit", first)
    size = len(files["data/part-1.jsonl"]) + len(files["data/part-2.jsonl"])
    assert [(s["config"], s["split"], s["bytes"]) for s in told["sources"]] == [
        ("plain", "train", size),
        ("plain", "test", len(files["data/test.jsonl"])),
    ]
    assert (info["report"]["rows"], info["report"]["valid"], info["source"]) == (106, 106, told["sources"][0])
    assert heard
    assert "There is no dataset 'alice/nothing'" in refused
    assert left == []


def test_splits_are_told_by_the_files_names() -> None:
    from ftapp.hub import _by_name

    files = ["data/train-00000-of-00001.parquet", "data/valid.csv", "fr/test.jsonl", "rows.jsonl"]
    assert _by_name(files) == {
        ("default", "train"): [files[0], files[3]],
        ("default", "validation"): [files[1]],
        ("fr", "test"): [files[2]],
    }
    assert HubSource(id="a/b", revision="c").split == "train"
