"""Every kind of file, packed and in every encoding that a person confirms; and each bad one in one clear message."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest

from ftapp.contract.errors import DatasetError, EncodingNeeded, MappingNeeded
from ftapp.contract.formats import Mapping
from ftapp.contract.report import Reading
from ftapp.store.datasets import DatasetStore
from ftapp.store.exports import export
from ftapp.store.previews import preview
from ftapp.store.readers import UNPACKED_LIMIT

ROWS = [{"question": f"Wie viel kostet {n} €?", "answer": f"Genau {n} Euro"} for n in range(5)]
MAPPING = Mapping(prompt="frage", answer="antwort")


def table(separator: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["question", "answer"], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue()


def parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


FILES: dict[str, bytes] = {
    ".jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
    ".json": json.dumps(ROWS, indent=1, ensure_ascii=False).encode(),
    ".csv": table(",").encode(),
    ".tsv": table("\t").encode(),
    ".parquet": parquet(),
}


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def put(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("suffix", FILES)
def test_every_kind_of_file_gives_the_same_rows(store: DatasetStore, tmp_path: Path, suffix: str, packed: bool) -> None:
    data = gzip.compress(FILES[suffix]) if packed else FILES[suffix]
    name = f"x{suffix}{'.gz' if packed else ''}"
    info = store.add(put(tmp_path, name, data), name)
    assert (info.report.rows, info.report.valid) == (5, 5)
    told = [[m.content for m in example.messages] for example in store.examples(info.id)]
    assert told == [[row["question"], row["answer"]] for row in ROWS]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "utf-16-le"])
def test_encodings_are_marked_or_confirmed(store: DatasetStore, tmp_path: Path, suffix: str, encoding: str) -> None:
    path = put(tmp_path, f"x{suffix}", FILES[suffix].decode().encode(encoding))
    said = encoding if encoding in ("cp1252", "utf-16-le") else None
    if said:
        with pytest.raises(DatasetError) as caught:
            store.add(path, path.name)
        if suffix != ".jsonl" or said != "cp1252":
            assert isinstance(caught.value, EncodingNeeded)
            assert caught.value.encoding == said
            assert "€" in caught.value.excerpt
    info = store.add(path, path.name, reading=Reading.model_validate({"encoding": said}))
    assert [e.messages[0].content for e in store.examples(info.id)] == [row["question"] for row in ROWS]


def test_lines_that_are_not_utf_8_come_with_an_offer(store: DatasetStore, tmp_path: Path) -> None:
    good = b'{"question": "q", "answer": "a b c"}\n'
    path = put(tmp_path, "x.jsonl", good + FILES[".jsonl"].decode().encode("cp1252"))
    report = store.add(path, "x.jsonl").report
    assert (report.valid, report.problem_kinds) == (1, {"encoding": 5})
    assert report.encoding_offer
    assert report.encoding_offer.line == 2
    assert "€" in report.encoding_offer.excerpt


def test_plain_text_is_a_row_a_paragraph(store: DatasetStore, tmp_path: Path) -> None:
    info = store.add(put(tmp_path, "x.txt", b"one\ntwo\n\n \nthree\r\n"), "x.txt")
    assert [(e.text, e.line) for e in store.examples(info.id)] == [("one\ntwo", 1), ("three", 5)]


def test_several_files_are_one_dataset_in_order(store: DatasetStore, tmp_path: Path) -> None:
    one = put(tmp_path, "a.jsonl", FILES[".jsonl"] + b"broken\n")
    two = put(tmp_path, "b.csv", FILES[".csv"] + b"too,many,cells\n")
    info = store.add_all([(one, "a.jsonl"), (two, "b.csv")])
    assert (info.filename, info.files) == ("a.jsonl and 1 more", ["a.jsonl", "b.csv"])
    assert (info.report.rows, info.report.valid) == (12, 10)
    assert [(p.file, p.row) for p in info.report.problems] == [("a.jsonl", 6), ("b.csv", 12)]
    again = store.read_again(info.id, info.reading, ["drop_duplicates"])
    assert again.report.left_out == {"drop_duplicates": 5}


def test_unknown_columns_ask_for_a_mapping_and_take_it(store: DatasetStore, tmp_path: Path) -> None:
    path = put(tmp_path, "x.csv", b"frage,antwort,id\nWer ist da,ich bin es nur,7\n")
    with pytest.raises(MappingNeeded) as caught:
        store.add(path, "x.csv")
    assert caught.value.columns == ["frage", "antwort", "id"]
    assert caught.value.suggestion == {"prompt": "frage", "answer": "antwort"}
    shown = preview(path, "x.csv", Reading(mapping=MAPPING), UNPACKED_LIMIT)
    assert shown.rows[0].example
    assert [m.content for m in shown.rows[0].example.messages] == ["Wer ist da", "ich bin es nur"]
    assert preview(path, "x.csv", Reading(mapping=Mapping(text="id")), UNPACKED_LIMIT).rows[0].example.text == "7"  # type: ignore[union-attr]
    assert preview(path, "x.csv", Reading(), UNPACKED_LIMIT).rows[0].problem.startswith("no known format")
    info = store.add(path, "x.csv", reading=Reading(mapping=MAPPING))
    assert (info.report.format, info.report.valid) == ("mapped", 1)


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"prompt": "q", "chosen": "good one", "rejected": "b"}, {"prompt": "prompt", "answer": "chosen"}),
        (
            {
                "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good one"}],
                "rejected": [],
            },
            {"messages": "chosen"},
        ),
        (
            {
                "prompt": "q",
                "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good one"}],
                "rejected": [],
            },
            {"prompt": "prompt", "answer": "chosen"},
        ),
        ({"chosen": "Human: q Assistant: good one", "rejected": "Human: q Assistant: b"}, {"text": "chosen"}),
    ],
)
def test_preference_pairs_offer_the_chosen_answer(
    store: DatasetStore, tmp_path: Path, row: dict[str, Any], mapping: dict[str, str]
) -> None:
    path = put(tmp_path, "x.jsonl", json.dumps(row).encode())
    with pytest.raises(MappingNeeded, match="preference") as caught:
        store.add(path, "x.jsonl")
    assert caught.value.suggestion == mapping
    info = store.add(path, "x.jsonl", reading=Reading.model_validate({"mapping": mapping}))
    example = next(store.examples(info.id))
    assert [m.content for m in example.messages] == ([] if "text" in mapping else ["q", "good one"])
    assert example.text == (row["chosen"] if "text" in mapping else None)


TOOL_TALK: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "How warm is it in Ghent?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"place": "Ghent", "x": null}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "12"},
        {"role": "assistant", "content": "It has 12 degrees.", "weight": 1},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
}


def test_tools_go_in_and_out_by_every_way(store: DatasetStore, tmp_path: Path) -> None:
    path = put(tmp_path, "x.jsonl", json.dumps(TOOL_TALK).encode() + b"\n")
    info = store.add(path, "x.jsonl")
    example = next(store.examples(info.id))
    assert example.messages[1].tool_calls
    assert example.messages[1].tool_calls[0]["function"]["arguments"] == {"place": "Ghent", "x": None}
    assert example.messages[0].model_dump() == {"role": "user", "content": "How warm is it in Ghent?"}
    for kind in ("jsonl", "parquet"):
        out = store.export(info.id, kind, tmp_path / "out" / f"{kind}.{kind}")  # type: ignore[arg-type]
        again = store.add(out, out.name)
        back = next(store.examples(again.id))
        assert (back.messages, back.tools) == (example.messages, example.tools)
    exported = orjson.loads((tmp_path / "out" / "jsonl.jsonl").read_bytes())
    assert exported["messages"][1]["content"] is None
    assert json.loads(exported["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {
        "place": "Ghent",
        "x": None,
    }


def test_texts_are_exported_too(store: DatasetStore, tmp_path: Path) -> None:
    info = store.add(put(tmp_path, "x.txt", b"one two\n\nthree four\n"), "x.txt")
    out = export(store.folder / info.id / "rows.jsonl", tmp_path / "x.parquet", "parquet")
    assert pyarrow.parquet.read_table(out).to_pylist() == [{"text": "one two"}, {"text": "three four"}]


BOMB = gzip.compress(b'{"text": "' + b"x" * 40 * 2**20 + b'"}\n', mtime=0)
PAIR = b'{"question": "q", "answer": "a b c"}'


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.jsonl.gz", BOMB, "unpacks to more than 32 MiB"),
        ("x.json.gz", BOMB, "unpacks to more than 32 MiB"),
        ("x.parquet.gz", BOMB, "unpacks to more than 32 MiB"),
        (
            "x.csv.gz",
            gzip.compress(b"text\n" + (b"x" * 1023 + b"\n") * 33 * 2**10, mtime=0),
            "unpacks to more than 32 MiB",
        ),
        ("x.jsonl.gz", b"not gzip at all", "is not a whole gzip file"),
        ("x.jsonl.gz", gzip.compress(PAIR * 99, mtime=0)[:-9], "is not a whole gzip file"),
        ("x.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("x.json", b"[" + PAIR + b",", "is not valid JSON"),
        ("x.json", b"[" + PAIR + b"] and more", "there is something after the end of the array"),
        ("x.json", b"[" + PAIR + b" " + PAIR + b"]", "where a comma or ] belongs"),
        ("x.json", b'[{"text": NaN}]', "NaN is not JSON"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.json", b'[{"text": "' + b"x" * 17 * 2**20, "an element is longer than 16 MiB"),
        ("x.csv", b'text\n"' + b"x" * 17 * 2**20, "has a line of more than 16 MiB"),
        ("x.txt", b"\0\0\1", "is not a text file"),
        ("x.pdf", b"%PDF", "is not a kind of file that can be read"),
    ],
)
def test_bad_files_are_refused_in_one_message(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    store = DatasetStore(tmp_path / "datasets", unpacked_limit=32 * 2**20)
    with pytest.raises(DatasetError, match=words) as caught:
        store.add(put(tmp_path, name, data), name)
    assert caught.value.hint
    assert not store.folder.exists() or [p for p in store.folder.iterdir() if p.suffix != ".lock"] == []


def test_a_json_array_is_read_piece_by_piece_with_its_lines(store: DatasetStore, tmp_path: Path) -> None:
    rows = [{"question": f"{n}?" + "x" * 300, "answer": "it is so"} for n in range(9000)]
    path = put(tmp_path, "x.json", json.dumps(rows, indent=0).encode())
    assert path.stat().st_size > 2 * 2**20
    info = store.add(path, "x.json")
    assert (info.report.rows, info.report.valid) == (9000, 9000)
    examples = list(store.examples(info.id))
    assert [e.messages[0].content for e in examples] == [row["question"] for row in rows]
    assert examples[-1].line == 2 + 8999 * 4
