"""`python -m ftapp check`: everything that it is asked for, and every request that makes no sense."""

import csv
import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest

from ftapp.contract.preview import Lengths, Piece, Refusal, Row, Rows
from ftapp.contract.report import EDITS
from ftapp.terminal.output import console
from ftapp.terminal.report import tell_lengths, tell_rows
from ftapp.terminal.verbs import main

GOOD = '{"question": "q%d", "answer": "an answer of some words"}\n'
BROKEN = '{"question": "\x1b[31mred"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("".join(GOOD % number for number in range(5)) + GOOD % 1)
    (tmp_path / "b.jsonl").write_text(GOOD % 9 + BROKEN)
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:  # type: ignore[type-arg]
    assert main(["check", *arguments, "--json"]) == code
    return dict(json.loads(capsys.readouterr().out))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["check", *arguments])
    return capsys.readouterr().out


def test_several_files_are_one_dataset(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "a.jsonl", "b.jsonl")
    assert (found["rows"], found["valid"]) == (8, 7)
    [problem] = found["problems"]
    assert (problem["file"], problem["row"], problem["line"]) == ("b.jsonl", 8, 2)


def test_a_problem_is_told_with_its_place_its_row_and_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = told(capsys, "a.jsonl", "b.jsonl")
    [line] = [line for line in out.splitlines() if "the line is not JSON" in line]
    assert line.split()[:2] == ["8", "2"]
    for words in ("Correct the JSON on that line.", '{"question": " [31mred"', "b.jsonl"):
        assert words in line
    assert "\x1b" not in out


def test_findings_figures_and_advice_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "a.jsonl")
    assert "Answers: 23 characters in the median" in out
    assert "Rows 6 (--fix drop_duplicates)" in out
    assert "Read as utf-8; columns: question, answer." in out
    assert "6 usable rows teach little" in out


def test_rows_of_several_formats_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.jsonl").write_text(GOOD % 1 + GOOD % 2 + '{"instruction": "q", "output": "a"}\n{"x": 1}\n')
    assert "Rows by format: question_answer 2, alpaca 1, unknown 1." in told(capsys, "c.jsonl")
    assert "Rows by format" not in told(capsys, "a.jsonl")


def test_fixes_are_made_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.jsonl").write_text(
        GOOD % 1 * 2 + '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, '
        '{"role": "user", "content": "thanks"}]}\n'
    )
    assert report(capsys, "c.jsonl")["valid"] == 2
    assert report(capsys, "c.jsonl", "--fix", "drop_trailing")["valid"] == 3
    fixes = ["--fix", "drop_duplicates", "--fix", "drop_trailing", "--fix", "drop_short"]
    found = report(capsys, "c.jsonl", *fixes)
    assert (found["valid"], found["left_out"]) == (1, {"drop_duplicates": 1, "drop_short": 1})
    out = told(capsys, "c.jsonl", *fixes)
    assert "1 left out as repeating another row." in out
    assert "1 left out as having a very short answer." in out


def test_a_path_that_is_no_text_is_refused_in_one_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = os.fsdecode(os.fsencode(folder) + b"/\xff.jsonl.gz")
    Path(path).write_bytes(b"x")
    assert main(["check", path]) == 1
    assert "The path of upload.jsonl.gz is not UTF-8 text. Rename the file" in capsys.readouterr().err


def test_columns_are_mapped_whatever_their_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.csv").write_text('"Ask, please",Say=so,note\nq,a,n\n')
    assert report(capsys, "x.csv", code=1)["valid"] == 0
    for given in (["prompt=Ask, please,answer=Say=so,system=note"], ["prompt=Ask, please", "answer=Say=so"]):
        options = [word for part in given for word in ("--mapping", part)]
        assert report(capsys, "x.csv", *options)["valid"] == 1


def test_what_it_suggests_can_be_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.csv").write_text("Frage,Antwort\nq,a\n")
    assert "Try --mapping 'prompt=Frage,answer=Antwort'" in told(capsys, "x.csv")
    assert report(capsys, "x.csv", "--mapping", "prompt=Frage,answer=Antwort")["valid"] == 1
    (folder / "y.csv").write_text("no,col a,col b\n1,q,a\n2.5,r,7\n")
    assert "Try --mapping 'prompt=col a,answer=col b'" in told(capsys, "y.csv")


def test_an_encoding_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.csv").write_bytes("question,answer\nwo?,Köln\n".encode("cp1252"))
    assert main(["check", "x.csv"]) == 1
    assert "Köln" in capsys.readouterr().err
    assert report(capsys, "x.csv", "--encoding", "cp1252", "--export", "rows.jsonl")["encodings"] == ["cp1252"]
    assert "Köln" in (folder / "rows.jsonl").read_text()


def test_problems_and_rows_are_written_and_nothing_else(
    folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(folder.iterdir())
    report(capsys, "a.jsonl", "b.jsonl", "--problems", "p.csv", "--export", "r.jsonl")
    report(capsys, "a.jsonl", "b.jsonl", "--export", "r.parquet", "--fix", "drop_duplicates")
    assert {path.name for path in set(folder.iterdir()) - before} == {"p.csv", "r.jsonl", "r.parquet"}
    assert not home.exists()
    with (folder / "p.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["file"], row["row"], row["line"], row["kind"]) == ("b.jsonl", "8", "2", "not_json")
    first = json.loads((folder / "r.jsonl").read_text().splitlines()[0])
    assert first["messages"][0] == {"role": "user", "content": "q0"}
    assert pyarrow.parquet.read_table(folder / "r.parquet").num_rows == 6
    assert report(capsys, "r.jsonl")["valid"] == 7


def test_no_problem_is_a_csv_without_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p.csv").write_text("of an earlier check\n")
    report(capsys, "a.jsonl", "--problems", "p.csv")
    assert (folder / "p.csv").read_text() == "file,row,line,kind,problem,what to do,excerpt\n"


def test_the_problems_of_a_file_without_a_usable_row_are_written_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x.jsonl").write_text(BROKEN * 2)
    report(capsys, "x.jsonl", "--problems", "p.csv", "--export", "r.jsonl", code=1)
    assert len((folder / "p.csv").read_text().splitlines()) == 3
    assert not (folder / "r.jsonl").exists()


def test_both_sides_of_a_split_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "held.jsonl").write_text(GOOD % 1 + GOOD % 77)
    found = report(capsys, "a.jsonl", "--eval-file", "held.jsonl")["split"]
    assert found == {"train_rows": 4, "eval_rows": 2, "shared_rows": 2}
    out = told(capsys, "a.jsonl", "--eval-file", "held.jsonl")
    assert "Split: 4 rows to train on, 2 to measure on; 2 left out, since their prompts are in both." in out
    assert report(capsys, "a.jsonl", "--eval-fraction", "0.5")["split"]["eval_rows"] == 3
    (folder / "held.jsonl").write_text(BROKEN)
    assert main(["check", "a.jsonl", "--eval-file", "held.jsonl"]) == 1
    assert "No row of held.jsonl can be used: row 1: the line is not JSON" in capsys.readouterr().err


def test_rows_are_shown_and_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [["user", "q1"], ["assistant", "an answer of some words"]]
    for first, shown in (("1", ["2, line 2", "6, line 6"]), ("2", ["6, line 6"])):
        out = told(capsys, "a.jsonl", "--show", "2", "--from", first, "--search", "Q1")
        lines = [line.split(maxsplit=1) for line in out[out.index("\nRow ") :].splitlines()[1:]]
        assert lines == [line for row in shown for line in (["Row", row], *turns)]
    [row] = report(capsys, "a.jsonl", "--show", "1", "--search", "q1")["shown"]
    assert (row["row"], row["messages"][0]["content"]) == (2, "q1")
    assert "There is no such row to show." in told(capsys, "a.jsonl", "--show", "2", "--search", "user")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--fix", "all"], 2, f"there is no fix 'all'. There are {', '.join(EDITS)}."),
        (["--mapping", "question=q"], 2, "'question=q' is not PART=COLUMN"),
        (["--mapping", "prompt=q,prompt=r"], 2, "'prompt=r' stands there twice"),
        (["--mapping", "prompt=q"], 2, "does not say enough"),
        (["--mapping", "text=q,messages=r"], 2, "or too much"),
        (["--encoding", "latin"], 2, "'latin' is not one of"),
        (["--export", "r.csv"], 2, "r.csv is not a .jsonl or .parquet file"),
        (["--export", "./a.jsonl"], 2, "a.jsonl is the file to check"),
        (["--problems", "p.txt"], 2, "p.txt is not a .csv file"),
        (["--problems", "no/p.csv"], 1, "Cannot write no/p.csv: No such file or directory"),
        (["--export", "b.jsonl/r.jsonl"], 1, "Cannot write b.jsonl/r.jsonl: "),
        (["--max-length", "32"], 2, "Add --model ID"),
        (["--search", "x"], 2, "Add --show ROWS"),
        (["--eval-file", "b.jsonl", "--eval-fraction", "0.1"], 2, "--eval-file or --eval-fraction"),
        (["--eval-file", "c.jsonl"], 1, "There is no file c.jsonl"),
        (["--model", ""], 2, "id: "),
        (["--split", "train"], 2, "speak of a Hub dataset"),
        (["hub:owner/name"], 2, "A Hub dataset is checked alone"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    before = (folder / "a.jsonl").read_text()
    assert main(["check", "a.jsonl", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1
    assert (folder / "a.jsonl").read_text() == before


def test_lengths_and_tokens_are_told_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"rows": 40, "of_rows": 50, "p50": 46, "p95": 47, "p99": 48, "longest": 49, "context": 256}
    values |= {"suggested": 49, "max_length": 40, "longer": 39, "answers_cut": 38, "tokens_per_epoch": 1234}
    refusal = Refusal(row=3, line=4, message="System role not\nsupported")
    rest = {"edges": [], "counts": [], "answer_tokens_lost": 0.5, "refusals": [refusal], "refused": 1}
    tell_lengths(console(), "demo", Lengths.model_validate(values | rest))
    pieces = [("<a>", False, True), ("q\n\x1b", False, False), ("It", True, False), (" is", True, False)]
    shown = [Piece(text=text, trained=trained, special=special) for text, trained, special in pieces]
    row = Row(row=1, line=2, pieces=shown, tokens=9, trained=2)
    refused = Row(row=2, line=0, pieces=[], tokens=0, trained=0, problem="refused")
    tell_rows(console(), Rows(rows=[row, refused], found=2))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Tokens of demo, 40 of 50 rows: p50 46, p95 47, p99 48, longest 49; the model takes 256."
    assert "max_length 40 (suggested: 49): longer rows: 39, answers that would be cut: 38, with 50.0%" in out[1]
    assert "1,234 tokens an epoch" in out[1]
    assert out[4].split() == ["3", "4", "System", "role", "not", "supported"]
    assert out[5:] == [
        "Row 1, line 2: 9 tokens, 2 trained",
        "  not trained, special <a>",
        "  not trained          q↵",
        "  trained              It is",
        "Row 2: refused",
    ]
