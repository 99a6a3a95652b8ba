"""What looks wrong in rows that can be used, and what their figures advise; numpy over one number or hash a row."""

from typing import Any

from ftapp.contract.report import Advice, Edit, Figures, Finding, FindingKind, RowRef
from ftapp.store.checking import FACT, PERMUTATIONS, QUESTION, SAME_ROLE, SHORT, SYSTEM, TEXT
from ftapp.store.tally import Tally

ROWS_SHOWN = 100
FEW_ROWS = 100
NEAR = 0.8
"""Jaccard similarity of two rows' words from which they are almost the same."""
BANDS = 16
"""Of four values each: finds 99.9 % of pairs at a similarity of 0.8 (1 - (1 - s^4)^16)."""
REPEATED_SHARE, REPEATED_LEAST = 0.05, 5
"""One answer on so many rows, and on so large a share of them, is worth a look."""
ONE = {"repeat": "repeats", "are": "is", "share": "shares", "have": "has", "end": "ends"}
"""What one row does."""
LONG_FACTOR, LONG_LEAST = 10, 2000
"""A row of so many times the median, and so many bytes, is unusually long."""


def duplicates(tally: Tally) -> Any:
    """True for each row that an earlier one equals after normalising."""
    import numpy

    with numpy.errstate(over="ignore"):  # both hashes as one, which sorts in half the time of two
        rows = tally.column("prompts") * numpy.uint64(0x9E3779B97F4A7C15) ^ tally.column("answers")
    order = numpy.argsort(rows, kind="stable")  # equal rows stay in their order
    again = numpy.zeros(len(order), bool)
    again[order[1:]] = rows[order[1:]] == rows[order[:-1]]
    return again


def near_duplicates(tally: Tally, exact: Any) -> Any:
    """True for each of the first rows that is almost an earlier one, without being exactly one."""
    import numpy

    sketches = tally.sketches()
    count = len(sketches)
    first = numpy.arange(count)
    width = PERMUTATIONS // BANDS
    for band in range(BANDS):
        part = numpy.ascontiguousarray(sketches[:, band * width : (band + 1) * width])
        view = part.view(f"V{4 * width}").ravel()
        _, begins, which = numpy.unique(view, return_index=True, return_inverse=True)
        candidate = begins[which]
        rows = numpy.flatnonzero((candidate < numpy.arange(count)) & (first == numpy.arange(count)))
        for start in range(0, len(rows), 10_000):
            some = rows[start : start + 10_000]
            alike = (sketches[some] == sketches[candidate[some]]).mean(axis=1)
            first[some[alike >= NEAR]] = candidate[some[alike >= NEAR]]
    near = numpy.zeros(len(exact), bool)
    near[:count] = first < numpy.arange(count)
    return near & ~exact


def findings(tally: Tally) -> list[Finding]:
    """All that is worth a look, with counts, rows and what would take it away."""
    import numpy

    total = len(tally.column("numbers"))
    if not total:
        return []
    flags, exact = tally.column("flags"), duplicates(tally)
    near = near_duplicates(tally, exact)
    looked_at = tally.signed if tally.signed < total else None
    some = "" if looked_at is None else f" among the first {looked_at:,}"
    conflict, repeated = _conflicts(tally, exact), _repeated(tally)
    sizes = tally.column("sizes")
    long = (sizes > LONG_FACTOR * numpy.median(sizes)) & (sizes > LONG_LEAST)
    found = [
        _finding(tally, "duplicates", exact, "repeat an earlier row, but for case and spaces", "drop_duplicates"),
        _finding(tally, "near_duplicates", near, f"are almost an earlier row{some}", "drop_near_duplicates", looked_at),
        _finding(tally, "conflicts", conflict, "share their prompt with a row that is answered otherwise"),
        _finding(tally, "short_answers", flags & SHORT > 0, "have an answer of fewer than three words", "drop_short"),
        _finding(tally, "repeated_answer", repeated, "have an answer that many other rows have too"),
        _finding(tally, "same_role", flags & SAME_ROLE > 0, "have two turns of one role in a row", "merge_turns"),
        _finding(
            tally, "system_turns", flags & SYSTEM > 0, "have a system text, which some models refuse", "fold_system"
        ),
        _finding(tally, "unbalanced", long, f"are more than {LONG_FACTOR} times as long as the median row"),
    ]
    if last := tally.problem_kinds["assistant_not_last"]:
        rows = [RowRef(row=p.row, line=p.line) for p in tally.problems if p.kind == "assistant_not_last"]
        found.append(
            Finding(
                kind="assistant_not_last",
                count=last,
                message=_told(last, "end with a turn that is not the assistant's"),
                rows=rows[:ROWS_SHOWN],
                fix="drop_trailing",
            )
        )
    return [finding for finding in found if finding is not None]


def _finding(
    tally: Tally, kind: FindingKind, mask: Any, words: str, fix: Edit | None = None, looked_at: int | None = None
) -> Finding | None:
    import numpy

    count = int(mask.sum())
    if not count:
        return None
    numbers, places = tally.column("numbers"), tally.column("places")
    rows = [
        RowRef(row=int(numbers[index]), line=int(places[index]), index=int(index))
        for index in numpy.flatnonzero(mask)[:ROWS_SHOWN]
    ]
    return Finding(kind=kind, count=count, message=_told(count, words), rows=rows, fix=fix, looked_at=looked_at)


def _told(count: int, words: str) -> str:
    if count != 1:
        return f"{count:,} rows {words}."
    verb, rest = words.split(" ", 1)
    return f"1 row {ONE[verb]} {rest}."


def _conflicts(tally: Tally, exact: Any) -> Any:
    """Rows whose prompt has other answers elsewhere; of repeated rows only the first."""
    import numpy

    prompts = tally.column("prompts")
    talks = (tally.column("flags") & TEXT == 0) & ~exact
    _, which, counts = numpy.unique(prompts[talks], return_inverse=True, return_counts=True)
    out = numpy.zeros(len(prompts), bool)
    out[talks] = counts[which] > 1
    return out


def _repeated(tally: Tally) -> Any:
    import numpy

    answers = tally.column("answers")
    talks = tally.column("flags") & TEXT == 0
    _, which, counts = numpy.unique(answers[talks], return_inverse=True, return_counts=True)
    out = numpy.zeros(len(answers), bool)
    out[talks] = (counts[which] >= REPEATED_LEAST) & (counts[which] >= REPEATED_SHARE * len(answers))
    return out


def figures(tally: Tally) -> Figures:
    """What the usable rows add up to."""
    import numpy

    flags = tally.column("flags")
    talks = flags & TEXT == 0
    if not len(flags) or not talks.any():
        return Figures()
    lengths, count = tally.column("lengths")[talks], int(talks.sum())
    return Figures(
        median_answer=int(numpy.median(lengths)),
        p95_answer=int(numpy.percentile(lengths, 95)),
        longest_answer=int(lengths.max()),
        distinct_answers=round(_distinct(tally.column("answers")[talks]) / count, 3),
        questions=round(int((flags & QUESTION > 0)[talks].sum()) / count, 3),
        factual=round(int((flags & FACT > 0)[talks].sum()) / count, 3),
    )


def _distinct(hashes: Any) -> int:
    """How many different values; numpy.unique takes ten times as long for a million."""
    import numpy

    ordered = numpy.sort(hashes)
    return 1 + int((ordered[1:] != ordered[:-1]).sum()) if len(ordered) else 0


def advice(valid: int, figures: Figures) -> list[Advice]:
    """Where fine-tuning may be the wrong tool, by this dataset's own figures."""
    found = []
    if 0 < valid < FEW_ROWS:
        few = "One usable row teaches" if valid == 1 else f"{valid} usable rows teach"
        found.append(
            Advice(
                kind="few_rows",
                message=f"{few} little: from about {FEW_ROWS} good ones on, "
                "fine-tuning shows. Try a prompt with a few of these rows as examples first; then retrieval, "
                "if answers need knowledge; then fine-tuning.",
                figures={"usable rows": valid, "about enough": FEW_ROWS},
            )
        )
    f = figures
    if valid and f.questions >= 0.6 and f.factual >= 0.5 and f.distinct_answers >= 0.7:
        found.append(
            Advice(
                kind="facts",
                message=f"These rows look like facts: {f.questions:.0%} of the prompts ask a question, "
                f"{f.factual:.0%} of the answers are short with a name or a number, and {f.distinct_answers:.0%} of "
                "the answers differ. Fine-tuning teaches style and form well, facts badly: what it was not shown it "
                "makes up. Put the facts into the prompt first; then retrieve them; fine-tune for the form.",
                figures={
                    "prompts that ask": f.questions,
                    "short answers with a name or number": f.factual,
                    "distinct answers": f.distinct_answers,
                    "median characters of an answer": f.median_answer,
                },
            )
        )
    return found
