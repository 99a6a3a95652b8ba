"""Files as people have them: every row with its place, every fault in words, and nothing else is ever raised."""

import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftapp.contract.errors import DatasetError, FtappError
from ftapp.contract.report import CheckRequest, Report, SourceFile
from ftapp.store import readers
from ftapp.store.building import build
from ftapp.store.readers import Row, read_rows

LINE = '{"question": "Wie geht’s?", "answer": "gut"}\n'


def rows(path: Path, data: bytes | str) -> list[Row]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_rows(path))


def refusal(path: Path, data: bytes | str) -> str:
    with pytest.raises(DatasetError) as caught:
        rows(path, data)
    assert caught.value.hint
    return caught.value.message


def places(found: list[Row]) -> list[tuple[int, int]]:
    return [(row.number, row.line) for row in found]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_json_lines_in_every_encoding(tmp_path: Path, encoding: str, suffix: str) -> None:
    bom = b"\xff\xfe" if encoding == "utf-16-le" else b""
    found = rows(tmp_path / f"x{suffix}", bom + (LINE + "\n" + LINE).encode(encoding))
    assert places(found) == [(1, 1), (2, 3)]
    assert [row.value for row in found] == [json.loads(LINE)] * 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    text = 'question,answer\n"a\nb",c\n\n"say ""hi""",d\r\n'
    found = rows(tmp_path / "x.csv", text.encode(encoding))
    assert [row.value for row in found] == [
        {"question": "a\nb", "answer": "c"},
        {"question": 'say "hi"', "answer": "d"},
    ]
    assert places(found) == [(1, 2), (2, 5)]


def test_half_a_surrogate_pair_costs_that_row_alone(tmp_path: Path) -> None:
    halves = [
        '{"\\ud800": 1}',
        '{"question": "\\udfff", "answer": "a"}',
        '{"question": "\\ud83d\\ude00", "answer": "a"}',
    ]
    (tmp_path / "x.json").write_text(f"[{', '.join(halves)}]")
    report = check(tmp_path / "x.json")
    assert (report.valid, report.columns) == (1, ["question", "answer"])
    told = "the row contains half of a surrogate pair, which is no character"
    assert [(p.row, p.message, p.kind) for p in report.problems] == [(1, told, "not_text"), (2, told, "not_text")]
    assert report.problems[0].excerpt == halves[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_json_array(tmp_path: Path, encoding: str) -> None:
    found = rows(tmp_path / "x.json", f" \n[{LINE},{LINE}, 3]".encode(encoding))
    assert [row.value for row in found] == [json.loads(LINE), json.loads(LINE), None]
    assert found[2].problem == "a row must be an object like {...}, this is int"


def test_parquet(tmp_path: Path) -> None:
    value = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 2500
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(value), tmp_path / "x.parquet")
    found = list(read_rows(tmp_path / "x.parquet"))
    assert [row.value for row in found] == value
    assert places(found)[-1] == (2500, 0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"question": "q", "ans', "the line is not JSON: unexpected end of data at column 23"),
        (b'{"question": NaN}', "the line is not JSON: "),
        (b'["q", "a"]', "a row must be an object like {...}, this is list"),
        (b'{"question": "\xff"}', "the line is not UTF-8 text"),
        (b'{"question": "\\ud800"}', "the line is not JSON: no low surrogate"),
        (b"[" * 5000, "the line is not JSON: "),
    ],
)
def test_a_broken_line_costs_that_row_alone(tmp_path: Path, line: bytes, words: str) -> None:
    good = LINE.encode()
    found = rows(tmp_path / "x.jsonl", good + line + b"\n" + good)
    assert [row.value is None for row in found] == [False, True, False]
    assert found[1].problem.startswith(words)
    assert places(found) == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_endless_line_is_passed_over(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LINE_LIMIT", 100)
    found = rows(tmp_path / "x.jsonl", (LINE + '{"text": "' + "x" * 1000 + '"}\n' + LINE).encode(encoding))
    assert [row.value is None for row in found] == [False, True, False]
    assert found[1].problem.startswith("the line is longer than")
    assert places(found)[-1] == (3, 3)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.doc", "hi", "x.doc is not a kind of file that can be read"),
        ("x.jsonl", "", "x.jsonl is empty"),
        ("x.csv", "", "x.csv is empty"),
        ("x.parquet", "", "x.parquet is empty"),
        ("x.jsonl", b"{}\0\0", "is not a text file: it contains NUL bytes"),
        ("x.json", "[{},", "x.json is not valid JSON: "),
        ("x.json", '{\n "data": [\n  {"text": "a"}]\n}', "x.json is one object over many lines"),
        ("x.json", b'[{"a": "\xff"}]', "x.json is not UTF-8 text"),
        ("x.jsonl", gzip.compress(b"{}", mtime=0), "x.jsonl is not a text file: it is packed with gzip"),
        ("x.txt", b"PAR1\x15\x04", "x.txt is not a text file: it is a Parquet file"),
        ("x.csv", b"PK\x03\x04", "x.csv is not a text file: it is a zip archive or a spreadsheet"),
        ("x.csv", ",\n1,2\n", "x.csv has no column names"),
        ("x.csv", "text,text\na,b\n", "x.csv has the column 'text' more than once"),
        ("x.csv", 'question,answer\n"a" b,c\n', "x.csv is not valid CSV near line 2"),
        ("x.csv", 'question,answer\n"a,b\n', "x.csv is not valid CSV near line 2: unexpected end of data"),
        ("x.csv", b"question,answer\n\xff,b\n", "x.csv is not UTF-8 text"),
        ("x.parquet", "PAR1 and no more", "x.parquet is not a readable Parquet file: "),
    ],
)
def test_a_file_that_is_unusable_as_a_whole(tmp_path: Path, name: str, data: bytes | str, words: str) -> None:
    assert words in refusal(tmp_path / name, data)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "question;answer\na, b;c\n"),
        ("x.csv", "question\tanswer\na, b\tc\n"),
        ("x.tsv", 'question,answer\n"a, b",c\n'),
    ],
)
def test_a_table_may_have_another_separator(tmp_path: Path, name: str, text: str) -> None:
    assert [row.value for row in rows(tmp_path / name, text)] == [{"question": "a, b", "answer": "c"}]


def test_a_csv_row_of_another_length_is_told(tmp_path: Path) -> None:
    found = rows(tmp_path / "x.csv", "question,answer\na,b,c\nd,e\n")
    assert [row.problem for row in found] == ["the row has 3 cells, the header has 2", ""]


@pytest.mark.parametrize(
    "table",
    [
        pyarrow.table({"question": ["q"], "t": pyarrow.array([10**17], pyarrow.timestamp("ms"))}),
        pyarrow.table({"question": ["q"], "t": pyarrow.array([1], pyarrow.timestamp("s", tz="Not/There"))}),
        pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"]),
        pyarrow.table({"text": pyarrow.array([b"\xff"]).view(pyarrow.string())}),
    ],
    ids=["date out of range", "unknown time zone", "column twice", "not UTF-8"],
)
def test_values_that_python_cannot_hold(tmp_path: Path, table: pyarrow.Table) -> None:
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=r"x\.parquet"):
        list(read_rows(tmp_path / "x.parquet"))


@pytest.mark.parametrize(("rows", "letters"), [(60_000, 700), (40, 2**20)], ids=["many rows", "large rows"])
def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path: Path, rows: int, letters: int) -> None:
    text = pyarrow.array(["x" * letters + str(number) for number in range(rows)])
    table = pyarrow.table({"question": text, "answer": text})
    pages = {"write_batch_size": 1000 if letters < 1000 else 1, "use_dictionary": False}
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=rows, compression="none", **pages)
    del table, text
    before, most = pyarrow.total_allocated_bytes(), 0
    for row in read_rows(tmp_path / "x.parquet"):
        assert row.value
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert row.number == rows
    assert 0 < most < 40 * 2**20 < (tmp_path / "x.parquet").stat().st_size


def check(path: Path, folder: Path | None = None) -> Report:
    return build(CheckRequest(files=[SourceFile(path=str(path), name=path.name)]), folder)


def reported(path: Path, data: str) -> Report:
    path.write_text(data, encoding="utf-8")
    return check(path)


def test_the_report_counts_and_names_every_problem(tmp_path: Path) -> None:
    text = LINE * 3 + '{"question": "q"\n' + '{"question": "q", "answer": ""}\n' + '{"text": "t"}\n' + '{"x": 1}\n'
    report = reported(tmp_path / "x.jsonl", text)
    assert (report.format, report.rows, report.valid, report.problem_count) == ("question_answer", 7, 3, 4)
    assert [(p.row, p.line) for p in report.problems] == [(4, 4), (5, 5), (6, 6), (7, 7)]
    assert report.problems[2].message == "the row looks like text, most rows are question_answer"
    assert report.columns == ["question", "answer", "text", "x"]


def test_the_report_stays_small(tmp_path: Path) -> None:
    row = json.dumps({f"column{number}": 1 for number in range(500)}) + "\n"
    report = reported(tmp_path / "x.jsonl", row * 1200)
    assert (report.valid, report.problem_count, len(report.problems)) == (0, 1200, 1000)
    assert len(report.model_dump_json()) < 500_000


def test_blank_lines_alone_are_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no rows"):
        reported(tmp_path / "x.jsonl", "\n \n")


PIECES = st.lists(
    st.sampled_from(
        [
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\xfe\xff",
            b"\0",
            b'"',
            b",",
            b"\n",
            b"\r",
            b"[",
            b"]",
            b"{",
            b"}",
            b"text",
            b":",
        ]
    )
    | st.sampled_from([LINE.encode(), LINE.encode("utf-16"), b"question,answer\n", b"PAR1", b'"\\ud800"', b"1e999"])
    | st.binary(max_size=8),
    max_size=12,
).map(b"".join)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True, max_examples=400
)
@given(suffix=st.sampled_from(readers.SUFFIXES), data=PIECES)
def test_no_file_breaks_it(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    report_or_refusal(path)


def packed() -> list[tuple[str, bytes]]:
    sums = pyarrow.Table.from_pylist([{"question": f"q{n}", "answer": "a b c", "n": [n, None]} for n in range(40)])
    found = [
        (".jsonl.gz", gzip.compress(LINE.encode() * 40, mtime=0)),
        (".csv.gz", gzip.compress(b"text\n" + b"a b\n" * 40, mtime=0)),
    ]
    for compression in ("none", "snappy", "zstd"):
        sink = io.BytesIO()
        pyarrow.parquet.write_table(sums, sink, compression=compression)
        found += [(".parquet", sink.getvalue()), (".parquet.gz", gzip.compress(sink.getvalue(), mtime=0))]
    return found


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True, max_examples=400
)
@given(
    file=st.sampled_from(packed()),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=5),
)
def test_no_broken_package_breaks_it(
    tmp_path: Path, file: tuple[str, bytes], changes: list[tuple[float, int, bytes]]
) -> None:
    suffix, data = file
    for where, cut, put in changes:
        place = int(where * len(data))
        data = data[:place] + put + data[place + cut :]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    report_or_refusal(path)


def report_or_refusal(path: Path) -> None:
    try:
        report = check(path, path.parent)
    except FtappError:
        return
    kept = (path.parent / "rows.jsonl").read_bytes().count(b"\n")
    assert report.valid == kept <= report.rows
    assert report.problem_count == report.rows - report.valid
