"""Any rows under any mapping, encoding and fixes: told row by row or refused as a whole, and nothing else is raised."""

import json
from pathlib import Path
from typing import Any, get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftapp.contract.errors import FtappError
from ftapp.contract.examples import Example, RowProblem
from ftapp.contract.formats import Mapping, suggest_mapping, to_example
from ftapp.contract.report import EDITS, CheckRequest, Encoding, Reading, Report, SourceFile
from ftapp.store.building import build
from ftapp.store.previews import preview

COLUMNS = ["prompt", "answer", "messages", "conversations", "text", "system", "tools", "a,b", "\ud800", "é", ""]
TEXTS = st.sampled_from(
    ["", " ", "q", "\ud800", "ü\u2028", "[", '[{"role": "user"}]', "=1+1", "\0", "\x1b[31m", "1e999"]
)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "function_call", "\udfff", "", None, 3])
PLAIN = TEXTS | st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats()
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": ROLES,
        "from": ROLES,
        "content": PLAIN | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=2),
        "value": PLAIN,
        "tool_calls": PLAIN | st.lists(st.fixed_dictionaries({"name": TEXTS, "arguments": PLAIN}), max_size=2),
        "weight": PLAIN,
        "name": PLAIN,
    },
)
VALUES = (
    PLAIN | st.lists(TURN | PLAIN, max_size=4) | st.recursive(PLAIN, lambda v: st.lists(v, max_size=2), max_leaves=4)
)
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=4), min_size=1, max_size=4)
COLUMN = st.none() | st.sampled_from([column for column in COLUMNS if column != "\ud800"])
MAPPINGS = st.none() | st.builds(Mapping, prompt=COLUMN, answer=COLUMN, system=COLUMN, messages=COLUMN, text=COLUMN)
FIXES = st.lists(st.sampled_from(list(EDITS)), max_size=3)
quickly = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True, max_examples=250
)


@quickly
@given(rows=ROWS, mapping=MAPPINGS)
def test_a_row_is_an_example_or_a_problem(rows: list[dict[str, Any]], mapping: Mapping | None) -> None:
    suggest_mapping(rows)
    for row in rows:
        try:
            example = to_example(row, "mapped" if mapping else "messages", 1, mapping)
        except RowProblem:
            continue
        assert Example.model_validate_json(example.model_dump_json()) == example


@quickly
@given(
    rows=ROWS,
    mapping=MAPPINGS,
    fixes=FIXES,
    suffix=st.sampled_from([".json", ".jsonl", ".csv", ".tsv", ".txt"]),
    written=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]),
    said=st.none() | st.sampled_from(get_args(Encoding)),
    escaped=st.booleans(),
)
def test_no_file_breaks_it_under_any_reading(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    mapping: Mapping | None,
    fixes: list[Any],
    suffix: str,
    written: str,
    said: Any,
    escaped: bool,
) -> None:
    path, reading = tmp_path / f"x{suffix}", Reading(encoding=said, mapping=mapping)
    path.write_bytes(_text(rows, suffix, escaped).encode(written, "surrogatepass" if "utf" in written else "replace"))
    request = CheckRequest(files=[SourceFile(path=str(path), name=path.name)], reading=reading, edits=fixes)
    try:
        preview(path, path.name, reading, 2**20).model_dump_json()
        report = build(request, tmp_path)
    except FtappError:
        return
    assert Report.model_validate_json(report.model_dump_json()) == report
    lines = (tmp_path / "rows.jsonl").read_bytes().splitlines()
    assert report.valid == len(lines) == report.rows - report.problem_count - sum(report.left_out.values())
    assert all(Example.model_validate_json(line) for line in lines)


def _text(rows: list[dict[str, Any]], suffix: str, escaped: bool) -> str:
    if suffix == ".json":
        return json.dumps(rows, ensure_ascii=escaped)
    if suffix in (".csv", ".tsv"):
        cells = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
        return "\n".join(("," if suffix == ".csv" else "\t").join(row) for row in cells)
    return "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
