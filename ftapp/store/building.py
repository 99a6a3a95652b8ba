"""Files → rows.jsonl, problems.csv and the report: in one process, or with stretches done elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ftapp.contract.errors import DatasetError
from ftapp.contract.formats import Format
from ftapp.contract.report import CheckRequest, EncodingOffer, Report
from ftapp.store import quality
from ftapp.store.checking import Batch, Task, batches
from ftapp.store.encodings import find_encoding, first_foreign
from ftapp.store.readers import Source
from ftapp.store.tally import NEAR_LIMIT, Tally, filter_lines

STRETCH = 8 * 2**20
"""Bytes of JSON lines that are checked as one piece of work."""

Progress = Callable[[int, int], None]
"""Called often with the bytes read so far and in all; what it raises ends the work."""
Run = Callable[[Iterable[Task]], Iterator[Iterable[Batch]]]
"""Does tasks, in order or at once; gives their batches in the tasks' order."""


def in_turn(tasks: Iterable[Task]) -> Iterator[Iterable[Batch]]:
    """Do one task after another, here."""
    return (batches(task) for task in tasks)


def build(
    request: CheckRequest, folder: Path | None, progress: Progress = lambda _, __: None, run: Run = in_turn
) -> Report:
    """Check every row, writing what can be used into `folder` if there is one.

    Raises DatasetError if a file is unusable as a whole or there are no rows.
    """
    tally = _read(request, folder, progress, run, None)
    if tally.mixed and request.reading.mapping is None:
        tally = _read(request, folder, progress, run, tally.format)
    names = ", ".join(file.name for file in request.files)
    if not tally.rows:
        raise DatasetError(f"{names} has no rows.", "Choose a file with at least one row.")
    _leave_out(request, tally, folder)
    if folder:
        import numpy

        numpy.save(folder / "groups.npy", tally.column("groups"))
        numpy.save(folder / "places.npy", tally.column("places"))
        numpy.save(folder / "offsets.npy", numpy.cumsum(tally.column("sizes"), dtype="<i8") - tally.column("sizes"))
    return _report(request, tally)


def _read(request: CheckRequest, folder: Path | None, progress: Progress, run: Run, only: Format | None) -> Tally:
    sources = [
        Source(Path(file.path), file.name, request.reading.encoding, request.unpacked_limit) for file in request.files
    ]
    total = sum(source.path.stat().st_size for source in sources)
    rows = (folder / "rows.jsonl").open("wb") if folder else None
    problems = folder / "problems.csv" if folder else None
    if problems:
        problems.unlink(missing_ok=True)
    tally = Tally(rows, problems)
    repairs = frozenset(request.edits)
    try:
        done = 0
        for source in sources:
            lines = 0
            first = Task(
                source,
                request.reading.mapping,
                repairs & {"drop_trailing", "merge_turns", "fold_system"},
                "drop_short" in repairs,
                only,
                NEAR_LIMIT,
            )
            position = done
            for found in run(stretches(first)):
                offset, last, last_line = tally.rows, 0, 0
                for batch in found:
                    tally.take(batch, offset, lines, source.name if len(sources) > 1 else "")
                    if request.rows_limit and tally.rows > request.rows_limit:
                        raise DatasetError(
                            f"{source.name} has more than {request.rows_limit:,} rows, the most that are allowed here.",
                            "Take a part of it: more rows than that seldom teach more.",
                        )
                    last, last_line = batch.position, max(last_line, batch.last_line)
                    progress(min(total, position + last), total)
                position, lines = position + last, lines + last_line
            done += source.path.stat().st_size
        return tally
    finally:
        tally.close()
        if rows:
            rows.close()


def stretches(task: Task) -> Iterator[Task]:
    """A task as smaller ones that can be done at once, if its file is plain lines of JSON; else the task itself."""
    source = task.source
    if source.suffix != ".jsonl" or source.name.lower().endswith(".gz") or source.path.stat().st_size <= 2 * STRETCH:
        yield task
        return
    encoding = find_encoding(source.path, source.name, source.encoding, source.limit)
    if encoding not in ("utf-8", "utf-8-sig"):
        yield task
        return
    size, start, signatures = source.path.stat().st_size, 0, task.signatures
    with source.path.open("rb") as file:
        while start < size:
            file.seek(start + STRETCH)
            while (more := file.readline(STRETCH)) and not more.endswith(b"\n"):
                pass
            end = min(size, file.tell())
            part = replace(source, start=start, end=end, position=start)
            yield replace(task, source=part, signatures=signatures)
            if signatures:
                file.seek(start)
                signatures = max(0, signatures - _count_lines(file, end - start))
            start = end


def _count_lines(file: BinaryIO, size: int) -> int:
    """In the next bytes, a block at a time: one line may be all of them."""
    count = 0
    while size and (block := file.read(min(size, 1 << 20))):
        count += block.count(b"\n")
        size -= len(block)
    return count


def _leave_out(request: CheckRequest, tally: Tally, folder: Path | None) -> None:
    """What only the whole shows: rows that repeat others."""
    for edit, find in (("drop_duplicates", quality.duplicates), ("drop_near_duplicates", _near)):
        if edit not in request.edits:
            continue
        again = find(tally)
        if not (count := int(again.sum())):
            continue
        tally.left_out[edit] = count
        if folder:
            filter_lines(folder / "rows.jsonl", folder / "rows.kept", tally.arrays["sizes"], ~again)
            (folder / "rows.kept").replace(folder / "rows.jsonl")
        tally.keep(~again)


def _near(tally: Tally) -> Any:
    return quality.near_duplicates(tally, quality.duplicates(tally))


def _report(request: CheckRequest, tally: Tally) -> Report:
    figures = quality.figures(tally)
    valid = len(tally.arrays["numbers"])
    return Report(
        format=tally.format,
        rows=tally.rows,
        valid=valid,
        problems=tally.problems,
        problem_count=tally.problem_count,
        columns=list(tally.columns)[:200],
        formats=dict(tally.formats),
        problem_kinds=dict(tally.problem_kinds),
        left_out=dict(tally.left_out),
        findings=quality.findings(tally),
        figures=figures,
        advice=quality.advice(valid, figures),
        encodings=_encodings(request),
        encoding_offer=_offer(request) if tally.problem_kinds["encoding"] else None,
        suggestion=tally.suggestion() if tally.unknown else None,
    )


def _encodings(request: CheckRequest) -> list[str]:
    found = []
    for file in request.files:
        if ".parquet" not in file.name.lower():
            said = find_encoding(Path(file.path), file.name, request.reading.encoding, request.unpacked_limit)
            found.append({"utf-8-sig": "utf-8", "utf-16": "utf-16"}.get(said, said))
    return list(dict.fromkeys(found))


def _offer(request: CheckRequest) -> EncodingOffer | None:
    for file in request.files:
        found = first_foreign(Path(file.path), file.name, request.unpacked_limit)
        if found:
            return EncodingOffer(encoding="cp1252", line=found[0], excerpt=found[1])
    return None
