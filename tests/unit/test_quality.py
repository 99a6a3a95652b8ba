"""What looks wrong in usable rows is counted with its rows, taken away by a fix, and back when the fix is undone."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ftapp.contract.errors import DatasetError
from ftapp.contract.report import EDITS, DatasetInfo, Edit, Finding, Reading
from ftapp.store.datasets import DatasetStore
from ftapp.store.tally import safe_cell

LONG = "The quick brown fox jumps over the lazy dog while seven wizards quietly brew a very strong pot of tea "


def talk(prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def stored(store: DatasetStore, path: Path, rows: list[Any], edits: tuple[Edit, ...] = ()) -> DatasetInfo:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return store.add(path, path.name, edits=edits)


def found(info: DatasetInfo) -> dict[str, Finding]:
    return {finding.kind: finding for finding in info.report.findings}


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def plain(count: int) -> list[dict[str, Any]]:
    return [
        talk(f"Tell me of thing number {n}, if you may", f"It is called {n} and it is {n * 7} old")
        for n in range(count)
    ]


def test_nothing_is_found_in_plain_rows(store: DatasetStore, tmp_path: Path) -> None:
    assert found(stored(store, tmp_path / "x.jsonl", plain(30))) == {}


CASES: list[tuple[str, list[Any], list[int], Edit | None]] = [
    ("duplicates", [talk("Who  is it?", "it is me"), talk("who is\nIT?", "It is  me")], [32], "drop_duplicates"),
    ("near_duplicates", [talk(LONG + "now", LONG * 2), talk(LONG + "today", LONG * 2)], [32], "drop_near_duplicates"),
    ("conflicts", [talk("Which one?", "this one here"), talk("which one?", "that one there")], [31, 32], None),
    ("short_answers", [talk("Shall we go?", "Yes")], [31], "drop_short"),
    ("repeated_answer", [talk(f"And what is {n}?", "I cannot tell you") for n in range(6)], list(range(31, 37)), None),
    (
        "same_role",
        [{"messages": [{"role": "user", "content": "Hi"}, *talk("Go on", "I do go on")["messages"]]}],
        [31],
        "merge_turns",
    ),
    (
        "system_turns",
        [{"messages": [{"role": "system", "content": "Be kind"}, *talk("Hello", "Hello to you")["messages"]]}],
        [31],
        "fold_system",
    ),
    ("unbalanced", [talk("Write much", "a very long word " * 500)], [31], None),
]


@pytest.mark.parametrize(("kind", "rows", "where", "fix"), CASES, ids=[case[0] for case in CASES])
def test_it_is_found_and_fixed_and_undone(
    store: DatasetStore, tmp_path: Path, kind: str, rows: list[Any], where: list[int], fix: Edit | None
) -> None:
    info = stored(store, tmp_path / "x.jsonl", plain(30) + rows)
    finding = found(info)[kind]
    assert (finding.count, [ref.row for ref in finding.rows], finding.fix) == (len(where), where, fix)
    assert str(len(where)) in finding.message
    shown = list(store.examples(info.id, finding.rows[0].index, 1))
    assert shown[0].line == where[0]
    if fix is None:
        return
    before = (store.folder / info.id / "rows.jsonl").read_bytes()
    fixed = store.read_again(info.id, info.reading, [fix])
    assert kind not in found(fixed)
    assert fixed.report.rows == fixed.report.valid + fixed.report.problem_count + sum(fixed.report.left_out.values())
    assert len(list(store.examples(info.id))) == fixed.report.valid
    undone = store.read_again(info.id, info.reading, [])
    assert undone == info
    assert (store.folder / info.id / "rows.jsonl").read_bytes() == before


def test_merging_and_folding_change_the_turns_alone(store: DatasetStore, tmp_path: Path) -> None:
    turns = [("system", "S"), ("user", "a"), ("user", "b"), ("assistant", "c d e"), ("user", "f")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    info = stored(store, tmp_path / "x.jsonl", [*plain(2), row], ("drop_trailing", "merge_turns", "fold_system"))
    last = list(store.examples(info.id))[-1]
    assert [(m.role, m.content) for m in last.messages] == [("user", "S\n\na\n\nb"), ("assistant", "c d e")]
    assert info.report.problem_count == 0


def test_rows_with_problems_stand_until_somebody_leaves_them_out(store: DatasetStore, tmp_path: Path) -> None:
    info = stored(store, tmp_path / "x.jsonl", [*plain(3), "not json", {"messages": []}])
    assert (info.unresolved, info.left_out) == (2, 2)
    left = store.read_again(info.id, info.reading, ["drop_problems"])
    assert (left.unresolved, left.left_out, left.report.problem_count) == (0, 2, 2)
    assert store.get(info.id) == left


def test_a_fix_that_leaves_no_row_changes_nothing(store: DatasetStore, tmp_path: Path) -> None:
    info = stored(store, tmp_path / "x.jsonl", [talk("Shall we?", "No"), talk("And you?", "Yes")])
    with pytest.raises(DatasetError, match="would be left"):
        store.read_again(info.id, info.reading, ["drop_short"])
    assert store.get(info.id) == info
    assert len(list(store.examples(info.id))) == 2
    with pytest.raises(DatasetError, match="the line is not JSON"):
        stored(store, tmp_path / "y.jsonl", ["broken"], ("drop_duplicates", "drop_near_duplicates"))


def test_all_problems_are_in_the_csv_and_no_cell_is_a_formula(store: DatasetStore, tmp_path: Path) -> None:
    info = stored(store, tmp_path / "x.jsonl", [*plain(1), *["=1+1"] * 1500])
    path = store.problems_csv(info.id)
    assert path
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1500 > len(info.report.problems) == 1000
    assert rows[-1]["row"] == "1501"
    assert rows[0]["excerpt"] == "'=1+1"
    assert rows[0]["what to do"]
    robot = {"messages": [{"role": "robot", "content": "é" * 20_000, "deep": [[[[[[1]]]]]]}] * 99, "n": 1}
    [problem] = stored(store, tmp_path / "y.jsonl", [*plain(1), robot]).report.problems
    assert problem.excerpt.startswith('{"messages": [{"role": "robot", "content": "ééé')
    assert not safe_cell(" @SUM(A1)").startswith((" ", "@"))


def test_each_kind_of_problem_is_shown_however_late_it_comes(store: DatasetStore, tmp_path: Path) -> None:
    late = [talk("q", ""), {"x": 1}]
    info = stored(store, tmp_path / "x.jsonl", [*plain(1), *["broken"] * 1500, *late])
    assert [(p.row, p.kind) for p in info.report.problems[999:]] == [
        (1001, "not_json"),
        (1502, "empty_turn"),
        (1503, "unknown_format"),
    ]


def test_a_few_rows_and_facts_are_advised_against_with_figures(store: DatasetStore, tmp_path: Path) -> None:
    few = stored(store, tmp_path / "few.jsonl", plain(30))
    assert [advice.kind for advice in few.report.advice] == ["few_rows"]
    facts = [talk(f"When was person {n} born?", f"In Ghent in {1500 + n}") for n in range(200)]
    told = stored(store, tmp_path / "facts.jsonl", facts).report.advice
    assert [advice.kind for advice in told] == ["facts"]
    assert told[0].figures["prompts that ask"] == 1.0
    styles = [
        talk(f"Make this polite: give me {n}", f"would you be so kind as to give me number {n}") for n in range(200)
    ]
    assert stored(store, tmp_path / "styles.jsonl", styles).report.advice == []


def test_every_fix_has_words_for_its_button() -> None:
    assert set(EDITS) == set(Edit.__args__)  # type: ignore[attr-defined]


def test_near_duplicates_of_many_rows_say_how_many_were_looked_at(
    store: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftapp.store import building, tally

    monkeypatch.setattr(tally, "NEAR_LIMIT", 20)
    monkeypatch.setattr(building, "NEAR_LIMIT", 20)
    rows = [*plain(18), talk(LONG + "now", LONG * 2), talk(LONG + "today", LONG * 2), talk(LONG + "later", LONG * 2)]
    finding = found(stored(store, tmp_path / "x.jsonl", rows))["near_duplicates"]
    assert (finding.count, finding.looked_at) == (1, 20)
    assert "among the first 20" in finding.message


def test_the_same_file_read_otherwise_takes_its_place(store: DatasetStore, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("question,answer,long_answer\nWho is it,me and you,it is me and you\n")
    first = store.add(path, "x.csv")
    mapping = {"prompt": "question", "answer": "long_answer"}
    second = store.add(path, "x.csv", reading=Reading.model_validate({"mapping": mapping}))
    assert first.id == second.id
    assert [m.content for m in next(store.examples(first.id)).messages] == ["Who is it", "it is me and you"]
    assert len(store.all()) == 1
