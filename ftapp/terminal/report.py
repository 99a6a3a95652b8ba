"""What a check found, for people."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console

from ftapp.contract.examples import Example
from ftapp.contract.preview import Lengths, Piece, Row, Rows
from ftapp.contract.report import Edit, Figures, HubSource, Overlap, Problem, Report
from ftapp.terminal.output import plain, table

PROBLEMS_SHOWN = 20
REFUSALS_SHOWN = 5
NOTHING = "There is no such row to show."
REASONS: dict[Edit, str] = {
    "drop_short": "having a very short answer",
    "drop_duplicates": "repeating another row",
    "drop_near_duplicates": "being almost another row",
}


def tell_source(console: Console, source: HubSource) -> None:
    """What is about to be downloaded."""
    console.print(
        f"{source.id} at {source.revision}: config {source.config}, split {source.split}, "
        f"{_files(source.files)}, {source.bytes / 2**20:,.1f} MiB.",
        soft_wrap=True,
    )


def tell_report(console: Console, name: str, report: Report, fixes: Iterable[Edit]) -> None:
    """How the rows were read, what cannot be used, what looks wrong, and what to do about it."""

    def say(text: str) -> None:
        console.print(plain(text), soft_wrap=True)

    say(f"{name}: {report.valid:,} of {report.rows:,} rows can be used; format: {report.format}.")
    if len(report.formats) > 1:
        say(f"Rows by format: {', '.join(f'{format} {count:,}' for format, count in report.formats.items())}.")
    if report.encodings:
        say(f"Read as {', '.join(report.encodings)}; columns: {', '.join(report.columns) or '(none)'}.")
    if report.valid:
        say(_told(report.figures))
    for edit, count in report.left_out.items():
        say(f"{count:,} left out as {REASONS[edit]}.")
    if report.problems:
        several = any(problem.file for problem in report.problems)
        columns = ["row", "line", "problem", "what to do", "begins"]
        cells = [_cells(problem) for problem in report.problems[:PROBLEMS_SHOWN]]
        if several:
            columns = [*columns, "file"]
            cells = [[*row, p.file] for row, p in zip(cells, report.problems, strict=False)]
        console.print(table(columns, cells))
    if report.problem_count > PROBLEMS_SHOWN:
        say(f"... and {report.problem_count - PROBLEMS_SHOWN:,} more; --problems FILE.csv has all.")
    if report.problem_count and report.valid and "drop_problems" not in fixes:
        say("A training asks whether to leave these rows out: --leave-out-invalid.")
    if offer := report.encoding_offer:
        say(f"Line {offer.line} read as {offer.encoding}: {offer.excerpt} (--encoding {offer.encoding})")
    if report.suggestion:
        parts = report.suggestion.model_dump(exclude_none=True).items()
        say("Try --mapping '" + ",".join(f"{part}={column}" for part, column in parts) + "'")
    for finding in report.findings:
        rows = ", ".join(str(ref.row) for ref in finding.rows[:5])
        fix = f" (--fix {finding.fix})" if finding.fix else ""
        say(f"{finding.message} Rows {rows}{', ...' if finding.count > 5 else ''}{fix}")
    for advice in report.advice:
        say(advice.message)


def _told(figures: Figures) -> str:
    f = figures
    if not f.longest_answer:
        return "All rows are plain texts, learned whole."
    return (
        f"Answers: {f.median_answer:,} characters in the median, {f.p95_answer:,} at the 95th percentile, "
        f"{f.longest_answer:,} at most; {f.distinct_answers:.0%} differ. "
        f"{f.questions:.0%} of the prompts ask a question."
    )


def tell_lengths(console: Console, model: str, lengths: Lengths) -> None:
    """How long the rows are in tokens, and what the maximum length does to them."""

    def say(text: str) -> None:
        console.print(plain(text), soft_wrap=True)

    measured = (
        f"{lengths.rows:,} rows"
        if lengths.rows >= lengths.of_rows
        else (f"{lengths.rows:,} of {lengths.of_rows:,} rows")
    )
    say(
        f"Tokens of {model}, {measured}: p50 {lengths.p50:,}, p95 {lengths.p95:,}, p99 {lengths.p99:,}, "
        f"longest {lengths.longest:,}; the model takes {lengths.context:,}."
    )
    say(
        f"With max_length {lengths.max_length:,} (suggested: {lengths.suggested:,}): longer rows: "
        f"{lengths.longer:,}, answers that would be cut: {lengths.answers_cut:,}, with "
        f"{lengths.answer_tokens_lost:.1%} of all answer tokens. "
        f"Without the longer rows: {lengths.tokens_per_epoch:,} tokens an epoch."
    )
    if lengths.refused:
        say(f"The chat template refuses {lengths.refused:,} of the rows:")
        shown = lengths.refusals[:REFUSALS_SHOWN]
        console.print(table(["row", "line", "problem"], [[str(r.row), str(r.line or ""), r.message] for r in shown]))


def tell_split(console: Console, split: Overlap) -> None:
    """How many rows would train and how many measure."""
    told = f"Split: {split.train_rows:,} rows to train on, {split.eval_rows:,} to measure on"
    if split.shared_rows:
        told += f"; {split.shared_rows:,} left out, since their prompts are in both"
    console.print(f"{told}.", soft_wrap=True)


def tell_examples(console: Console, found: Sequence[tuple[int, Example]]) -> None:
    """Rows as conversations, or as their texts."""
    if not found:
        console.print(NOTHING)
    for number, example in found:
        console.print(f"Row {number + 1:,}{f', line {example.line:,}' if example.line else ''}", soft_wrap=True)
        for message in example.messages:
            calls = f" {message.tool_calls}" if message.tool_calls else ""
            unlearned = " (read, not learned)" if message.weight == 0 else ""
            said = f"{message.content}{calls}".replace("\n", "↵")
            console.print(f"  {message.role + unlearned:<20} {plain(said)}", soft_wrap=True)
        if example.text is not None:
            console.print(f"  {'text':<20} {plain(example.text.replace(chr(10), '↵'))}", soft_wrap=True)


def tell_rows(console: Console, rows: Rows) -> None:
    """Rows as the model reads them, and which of it is learned."""
    if not rows.rows:
        console.print(NOTHING)
    for row in rows.rows:
        console.print(f"Row {row.row}{f', line {row.line}' if row.line else ''}: {_counts(row)}", soft_wrap=True)
        for mark, pieces in groupby(row.pieces, key=_mark):
            text = "".join(piece.text for piece in pieces).replace("\n", "↵")
            console.print(f"  {mark:<20} {plain(text)}", soft_wrap=True)


def _counts(row: Row) -> str:
    return plain(row.problem) if row.problem else f"{row.tokens} tokens, {row.trained} trained"


def _mark(piece: Piece) -> str:
    return f"{'trained' if piece.trained else 'not trained'}{', special' if piece.special else ''}"


def _files(files: list[str]) -> str:
    return f"{len(files)} file{'s' if len(files) != 1 else ''}"


def _cells(problem: Problem) -> list[str]:
    return [str(problem.row), str(problem.line or ""), problem.message, problem.advice, problem.excerpt]
