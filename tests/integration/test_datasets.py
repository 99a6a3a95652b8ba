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
from ftapp.store.jobs import Job
from ftapp.studio import Studio
from ftapp.terminal.verbs import main
from tests.hub.fixture import running_hub
from tests.running import wait_for, write_rows

ROOT = Path(__file__).resolve().parents[2]
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
    assert any(0 < done < total for done, total in heard)
    assert {total for _, total in heard} <= {1, path.stat().st_size}
    lines = [example.line for example in studio.examples(info.id, 24_990, 100)]
    assert lines == list(range(24_991, 25_001))
    assert studio.examples(info.id, 30_000) == []
    assert [number for number, _ in studio.search_examples(info.id, "What IS 24990 and")] == [24_990]
    request = CheckRequest(files=[SourceFile(path=str(path), name=path.name)])
    assert build(request, None).findings == info.report.findings
    assert studio.check_files([(path, path.name)]).valid == 25_000


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


WEB = """
import sys
from pathlib import Path
from ftapp.settings import read_settings
from ftapp.studio import Studio
print(Studio(read_settings()).add_dataset(Path(sys.argv[1]), sys.argv[2]).report.valid)
"""


class Web:
    """A process that adds a large file, and the check that it started."""

    def __init__(self, studio: Studio, path: Path, name: str) -> None:
        argv = [sys.executable, "-c", WEB, str(path), name]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._folder, self._name = studio.folder / "datasets", name
        self.place = wait_for(self._place, f"the check of {name}")
        worker = Job(self.place).process()
        assert worker
        self.worker = psutil.Process(worker.pid)
        self.tree = wait_for(self._tree, "the processes of its worker")

    def _place(self) -> Path | None:
        for place in self._folder.glob(".check-*/process.json"):
            if self._name in (place.parent / "config.json").read_text():
                return place.parent
        return None

    def _tree(self) -> list[psutil.Process] | None:
        helpers = self.worker.children(recursive=True)
        return [self.worker, *helpers] if len(helpers) > 3 else None

    def left(self) -> list[psutil.Process]:
        return [p for p in self.tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_what_a_killed_web_process_left_is_swept_and_nothing_else(studio: Studio, tmp_path: Path) -> None:
    path = write_large(tmp_path / "large.jsonl", 50_000)
    live = Web(studio, path, "live.jsonl")
    live.worker.suspend()
    dead = Web(studio, path, "dead.jsonl")
    dead.process.kill()
    dead.process.wait()
    wait_for(lambda: not dead.left(), "the end of the check that nobody waits for", 30)
    stuck = Web(studio, path, "stuck.jsonl")
    stuck.worker.suspend()
    stuck.process.kill()
    stuck.process.wait()
    assert dead.place.exists()
    assert stuck.left()
    studio.sweep()
    assert not stuck.left()
    folder = studio.folder / "datasets"
    kept = sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")
    assert kept[0] == live.place.name
    assert [name.split("-")[0] for name in kept[1:]] == [".live"]
    live.worker.resume()
    assert live.process.communicate(timeout=120)[0] == "50000\n"
    assert [p.name.split("-")[0] for p in folder.iterdir() if p.suffix != ".lock"] == ["live"]


def test_the_app_sweeps_when_it_starts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import create_app

    monkeypatch.setenv("FTAPP_PORT", "0")
    left = home / "local" / "datasets" / ".check-0123456789ab"
    left.mkdir(parents=True)
    app = create_app(read_settings())
    app.start()
    app.close()
    assert not left.exists()


def test_the_helpers_of_a_killed_check_end_with_it(studio: Studio, tmp_path: Path) -> None:
    web = Web(studio, write_large(tmp_path / "large.jsonl", 50_000), "x.jsonl")
    web.worker.kill()
    wait_for(lambda: not web.left(), "the end of its helpers", 30)
    web.process.communicate(timeout=30)
    assert web.process.returncode == 1
    assert [p for p in (studio.folder / "datasets").iterdir() if p.suffix != ".lock"] == []


def test_what_the_other_process_refuses_is_told_as_if_here(studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(
        b"question,answer\n" + b"a question,an answer of some length\n" * 90_000 + "é,ü\n".encode("cp1252")
    )
    assert path.stat().st_size > checking.SMALL
    with pytest.raises(EncodingNeeded) as caught:
        studio.add_dataset(path, "x.csv")
    assert (caught.value.encoding, "é,ü" in caught.value.excerpt) == ("cp1252", True)


def write_endless(path: Path, size: int = 500 * 2**20) -> Path:
    """One line of half a gigabyte."""
    with path.open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(size // 2**20):
            file.write(b"x" * 2**20)
        file.write(b'"}\n')
    return path


def largest_peak(but: set[psutil.Process]) -> int:
    """KiB that the largest of our child processes ever held; 0 if there is none."""
    found = [0]
    for child in set(children()) - but:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
        except OSError:
            continue
        found += [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    return max(found)


def test_a_line_of_half_a_gigabyte_is_refused_in_bounded_memory(studio: Studio, tmp_path: Path) -> None:
    path = write_endless(tmp_path / "endless")
    others, peaks, mine = set(children()), [0], psutil.Process().memory_info().rss

    def progress(done: int, total: int) -> None:
        peaks.append(largest_peak(others))

    with pytest.raises(DatasetError, match=r"No row of x\.jsonl can be used: row 1: the line is longer than 16 MiB"):
        studio.add_dataset(path, "x.jsonl", progress)
    assert [p.name for p in (studio.folder / "datasets").iterdir() if p.suffix != ".lock"] == []
    with pytest.raises(DatasetError, match=r"x\.csv has a line of more than 16 MiB"):
        studio.check_files([(path, "x.csv")], progress)
    report = studio.check_files([(path, "x.txt")], progress)
    assert (report.rows, report.valid) == (1, 0)
    assert report.problems[0].message == "the paragraph is longer than 16 MiB"
    assert 0 < max(peaks) < 300 * 1024
    assert psutil.Process().memory_info().rss - mine < 100 * 2**20


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
    info = studio.add_upload(studio.hold_pasted(text).id)
    assert (info.filename, info.report.valid) == (filename, valid)


def test_an_upload_may_have_any_name(studio: Studio, tmp_path: Path) -> None:
    for name, shown in [
        ("../../x.jsonl", "x.jsonl"),
        ("\ud800.jsonl", "upload.jsonl"),
        ("a\0\x1b[31m.jsonl", "a[31m.jsonl"),
    ]:
        upload = studio.hold_files([(write_rows(tmp_path / "held"), name)])
        assert (upload.names, studio.add_upload(upload.id).report.valid) == ([shown], 96)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


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


def test_the_terminal_measures_and_shows_rows_as_tokens(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "x.jsonl", 40)
    path.write_text(path.read_text() + '{"text": "no turns"}\n')
    options = ["--model", str(tiny_llama), "--max-length", "40", "--show", "2", "--json"]
    assert main(["check", str(path), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    lengths = found["lengths"]
    assert (lengths["rows"], lengths["max_length"], lengths["refused"]) == (40, 40, 0)
    assert 40 <= lengths["p50"] <= lengths["p95"] <= lengths["p99"] <= lengths["longest"] == lengths["suggested"]
    assert 0 < lengths["answers_cut"] <= 40
    [first, _] = found["token_rows"]
    assert "".join(piece["text"] for piece in first["pieces"] if piece["trained"]) == "It is 0.<|im_end|>"


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

        def check(*argv: str) -> "subprocess.CompletedProcess[str]":
            command = [sys.executable, "-m", "ftapp", "check", *argv]
            return subprocess.run(command, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

        unsaid = check("hub:alice/rows", "--config", "plain")
        checked = check(f"hub:alice/rows@{first}", "--split", "train", "--export", str(tmp_path / "r.jsonl"), "--json")
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
    assert unsaid.returncode == 2
    assert "plain/train (0.0 MiB), plain/test (0.0 MiB)" in unsaid.stderr
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr.splitlines() == [
        f"alice/rows at {first}: config plain, split train, 2 files, {size / 2**20:.1f} MiB."
    ]
    report = json.loads(checked.stdout)
    assert (report["valid"], report["source"]) == (106, told["sources"][0])
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 106


def test_splits_are_told_by_the_files_names() -> None:
    from ftapp.hub import _by_name

    files = ["data/train-00000-of-00001.parquet", "data/valid.csv", "fr/test.jsonl", "rows.jsonl"]
    assert _by_name(files) == {
        ("default", "train"): [files[0], files[3]],
        ("default", "validation"): [files[1]],
        ("fr", "test"): [files[2]],
    }
    assert HubSource(id="a/b", revision="c").split == "train"
