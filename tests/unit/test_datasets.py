"""Stored datasets: named by content, whole or not at all, split so that no prompt is on both sides."""

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftapp.contract.errors import DatasetError, StorageError
from ftapp.contract.examples import Example, Message
from ftapp.contract.report import DatasetInfo
from ftapp.store.datasets import DatasetStore
from ftapp.store.files import abandoned, alone
from ftapp.store.splits import split

LINE = '{"question": "q%d", "answer": "a"}\n'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_text("".join(LINE % number for number in range(10)) + "{}\n", encoding="utf-8")
    return path


def test_a_dataset_is_the_file_its_rows_and_its_report(store: DatasetStore, file: Path) -> None:
    info = store.add(file, "C:\\Data\\Meine Fragen (1).JSONL")
    assert info.filename == "Meine Fragen (1).JSONL"
    assert info.id == f"meine-fragen-1-{info.sha256[:8]}"
    assert names(store.folder) == [info.id]
    arrays = ["groups.npy", "offsets.npy"]
    others = ["original.jsonl", "places.npy", "problems.csv", "report.json", "rows.jsonl"]
    assert names(store.folder / info.id) == arrays + others
    assert (store.folder / info.id / "original.jsonl").read_bytes() == file.read_bytes()
    assert (info.report.rows, info.report.valid) == (11, 10)
    assert [example.messages[0].content for example in store.examples(info.id)] == [f"q{n}" for n in range(10)]
    assert [example.line for example in store.examples(info.id, 8)] == [9, 10]
    assert [example.line for example in store.examples(info.id, 2, 3)] == [3, 4, 5]
    assert store.all() == [info] == [store.get(info.id)]


def test_the_same_content_is_stored_once(store: DatasetStore, file: Path) -> None:
    first = store.add(file, "x.jsonl")
    assert store.add(file, "x.jsonl") == first
    file.write_text(LINE % 99)
    assert store.add(file, "x.jsonl").id != first.id
    assert len(store.all()) == 2


def test_a_given_id_always_holds_the_newest_content(store: DatasetStore, file: Path) -> None:
    store.add(file, "x.jsonl", id="demo")
    file.write_text(LINE % 99)
    info = store.add(file, "x.jsonl", id="demo")
    assert [store.get("demo"), info.report.rows] == [info, 1]


def test_many_at_once_store_it_once(store: DatasetStore, file: Path) -> None:
    done: list[DatasetInfo] = []
    threads = [threading.Thread(target=lambda: done.append(store.add(file, "x.jsonl"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8
    assert {info.added for info in done} == {store.all()[0].added}
    assert len(list(store.examples(done[0].id))) == 10


@pytest.mark.parametrize(
    "filename",
    [
        "...a",
        "../../etc/passwd",
        "a\0b",
        "ü" * 300,
        "x" * 300,
        " \n",
        "..\\..",
        "a/../../../b",
        "\x1b[31m",
        "\u202ea",
        "\ud800",
    ],
)
def test_any_filename_stays_inside(store: DatasetStore, file: Path, tmp_path: Path, filename: str) -> None:
    info = store.add(file, filename + "é.jsonl")
    assert names(tmp_path) == ["datasets", "upload"]
    assert info.filename.isprintable()
    assert "/" not in info.filename
    assert len(store.all()) == 1


@pytest.mark.parametrize(
    ("filename", "data"),
    [("x.jsonl", b'{"no": "format"}\n'), ("x.jsonl", b""), ("x.doc", b"hi"), ("x.csv", b'question,answer\na,b\n"c,d')],
)
def test_a_file_that_cannot_be_used_leaves_nothing(
    store: DatasetStore, tmp_path: Path, filename: str, data: bytes
) -> None:
    (tmp_path / "upload").write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        store.add(tmp_path / "upload", filename)
    assert filename in caught.value.message
    assert caught.value.hint
    assert names(store.folder) == []
    assert store.all() == []


FILL = """
import resource, signal, sys
from pathlib import Path
from ftapp.contract.errors import StorageError
from ftapp.store.datasets import DatasetStore
if len(sys.argv) > 3:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    DatasetStore(Path(sys.argv[2])).add(Path(sys.argv[1]), "x.jsonl")
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", ["20000", "70000"], ids=["while copying", "while writing the rows"])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, limit: str) -> None:
    file = tmp_path / "big.jsonl"
    file.write_text("".join(LINE % number for number in range(1500)))
    assert 20_000 < file.stat().st_size < 70_000
    folder = tmp_path / "datasets"
    script = [sys.executable, "-c", FILL, file, folder, limit]
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert told.startswith("Cannot store x.jsonl: ")
    assert names(folder) == []


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    file = tmp_path / "big.jsonl"
    file.write_text("".join(LINE % number for number in range(1500)))
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], stderr=subprocess.DEVNULL
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:  # without the right to mount one, no file may be so large
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    yield disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if mounted:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk_leaves_nothing_and_says_so(big_file: Path, small_disk: Path) -> None:
    store = DatasetStore(small_disk / "datasets")
    with pytest.raises(StorageError, match=r"No space left on device|File too large"):
        store.add(big_file, "x.jsonl")
    assert names(store.folder) == []
    big_file.write_text(LINE % 1)
    assert store.add(big_file, "x.jsonl").report.valid == 1


def test_what_is_said_is_searched_and_nothing_else(store: DatasetStore, tmp_path: Path) -> None:
    call = {"function": {"name": "weather", "arguments": {"place": "Köln"}}}
    rows = [
        {"messages": [{"role": "user", "content": 'Say "HI"\nto me'}, {"role": "assistant", "content": "Grüß Gott"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "tool_calls": [call]}]},
        {"messages": [{"role": "user", "content": "the user\\content"}, {"role": "assistant", "content": "b"}]},
    ]
    (tmp_path / "upload").write_text("\n".join(json.dumps(row) for row in rows))
    id = store.add(tmp_path / "upload", "x.jsonl").id
    cases = {
        '"hi"': [0], 'hi"\nto': [0], "GRÜß": [0], "köln": [1], "weather": [1], "user": [2], "\\content": [2],
        "messages": [], "role": [], "line": [],
    }  # fmt: skip
    assert {words: [number for number, _ in store.search(id, words)] for words in cases} == cases
    assert [number for number, _ in store.search(id, "", start=1, count=1)] == [1]
    assert list(store.matching(id, "q", start=2)) == []


def test_deleting_takes_it_away(store: DatasetStore, file: Path) -> None:
    id = store.add(file, "x.jsonl").id
    store.delete(id)
    assert store.all() == []
    with pytest.raises(DatasetError, match="There is no dataset"):
        store.get(id)


@pytest.mark.parametrize("id", ["", "..", ".", "../datasets", "/", "a/b", "A", "x\n", "a\0", "missing"])
def test_an_id_that_is_no_dataset_is_refused(store: DatasetStore, id: str) -> None:
    store.folder.mkdir()
    for call in (store.get, store.delete, lambda id: list(store.examples(id))):
        with pytest.raises(DatasetError, match="There is no dataset"):
            call(id)
    assert store.folder.exists()


def example(prompt: str, answer: str = "a") -> Example:
    return Example(messages=[Message(role="user", content=prompt), Message(role="assistant", content=answer)])


def test_the_split_is_a_partition_in_order_and_repeats_itself() -> None:
    rows = [example(f"q{number}") for number in range(100)]
    train, held = split(rows, 0.1, seed=1)
    assert (len(train), len(held)) == (90, 10)
    assert sorted([*train, *held], key=rows.index) == rows
    assert train == sorted(train, key=rows.index)
    assert split(rows, 0.1, seed=1) == (train, held)
    assert split(rows, 0.1, seed=2) != (train, held)


def test_rows_with_the_same_prompt_stay_on_one_side() -> None:
    rows = [example(prompt, str(n)) for n in range(5) for prompt in ("Hi  there", "hi THERE ", "b", "c", "d", "e", "f")]
    for seed in range(20):
        train, held = split(rows, 0.2, seed)
        sides = [{" ".join(row.messages[0].content.lower().split()) for row in side} for side in (train, held)]
        assert held
        assert not sides[0] & sides[1]


def test_one_prompt_in_many_rows_is_not_held_out_for_a_few() -> None:
    rows = [example("same", str(number)) for number in range(40)] + [example(f"q{number}") for number in range(60)]
    for seed in range(50):
        assert len(split(rows, 0.1, seed)[1]) == 10


@pytest.mark.parametrize(
    ("prompts", "fraction", "held"),
    [
        ("ab", 0.1, 1),
        ("ab", 0.5, 1),
        ("aa", 0.5, 0),
        ("a", 0.5, 0),
        ("", 0.5, 0),
        ("abc", 0.0, 0),
        ("aab", 0.1, 1),
        ("aaabb", 0.1, 2),
        ("abcdefghij", 0.5, 5),
    ],
)
def test_the_held_out_side_is_small_but_there(prompts: str, fraction: float, held: int) -> None:
    rows = [example(prompt) for prompt in prompts]
    train, kept = split(rows, fraction, seed=0)
    assert (len(train), len(kept)) == (len(rows) - held, held)


def test_texts_are_split_by_their_whole() -> None:
    rows = [Example(text=text) for text in "aabbcc"]
    train, held = split(rows, 0.34, seed=0)
    assert (len(train), len(held)) == (4, 2)
    assert held[0].text == held[1].text


def test_rows_on_disk_are_plain_json(store: DatasetStore, file: Path) -> None:
    info = store.add(file, "x.jsonl")
    first = (store.folder / info.id / "rows.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["messages"][0] == {"role": "user", "content": "q0"}


def test_a_dataset_that_a_dead_writer_had_put_aside_is_put_back(store: DatasetStore, file: Path) -> None:
    info = store.add(file, "x.jsonl")
    (store.folder / info.id).rename(store.folder / f".{info.id}.old")
    (store.folder / f".{info.id}.new").mkdir()
    with alone(store.folder / f".{info.id}.lock"):
        store.sweep()  # its writer lives
        assert names(store.folder) == [f".{info.id}.new", f".{info.id}.old"]
    store.sweep()
    assert names(store.folder) == [info.id]
    assert store.get(info.id) == info
    (store.folder / f".{info.id}.old").mkdir()
    store.sweep()
    assert names(store.folder) == [info.id]


HOLD = """
import sys
from pathlib import Path
from ftapp.store.files import workplace
with workplace(Path(sys.argv[1]), ".hub-") as folder:
    (folder / "half").write_bytes(b"x")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def test_only_the_workplaces_of_dead_processes_are_abandoned(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first, second = [subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], **pipes) for _ in range(2)]
    folders = [tmp_path / process.stdout.readline().strip() for process in (first, second)]
    assert list(abandoned(tmp_path, ".hub-")) == []
    first.kill()
    first.wait()
    assert list(abandoned(tmp_path, ".hub-")) == folders[:1]
    assert names(tmp_path) == [folders[1].name]
    second.communicate()
    assert list(tmp_path.iterdir()) == []
