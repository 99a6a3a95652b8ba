"""A finished evaluation in words: the table of its figures, Markdown for the card, metrics for the Hub."""

import math
from typing import Any

from ftapp.contract.answers import in_words
from ftapp.contract.evaluation import MEASURES, NAMES, Contestant, EvaluationReport, Measure, Scores
from ftapp.contract.figures import Difference, Figure

ORDER: tuple[Contestant, ...] = ("base", "examples", "tuned")
UNRELATED = "Loss on unrelated text"
SHARES: tuple[Measure, ...] = ("exact", "format", "stopped")


def number(measure: Measure | str, value: float) -> str:
    """A value of a measure, in its unit."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "not a number"
    if measure in SHARES:
        return f"{100 * value:.0f} %" if value in (0, 1) else f"{100 * value:.1f} %"
    if measure in ("loss", "unrelated"):
        return f"{value:.3f}"
    if measure == "perplexity":
        return f"{value:.4g}"
    return f"{value:.1f}"


def with_interval(measure: Measure | str, figure: Figure) -> str:
    """A value with its 95 % interval."""
    low, high = number(measure, figure.low), number(measure, figure.high)
    if measure in SHARES:
        low = low.removesuffix(" %")
    return f"{number(measure, figure.value)} ({low} to {high})"


def figure_of(scores: Scores, measure: Measure) -> Figure | None:
    """One measure of a contestant."""
    figure: Figure | None = getattr(scores, measure)
    return figure


def measured(report: EvaluationReport) -> list[Measure]:
    """The measures that were taken, in the order in which they are shown."""
    return [name for name in MEASURES if any(figure_of(scores, name) is not None for scores in report.scores)]


def figures_table(report: EvaluationReport) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each measure: its name, each contestant's value with its interval."""
    taking_part = [scores for name in ORDER if (scores := report.of(name))]
    rows = []
    for measure in measured(report):
        cells = [figure_of(scores, measure) for scores in taking_part]
        rows.append([MEASURES[measure], *("–" if one is None else with_interval(measure, one) for one in cells)])
    rows.append(["Perplexity", *(with_interval("perplexity", scores.perplexity) for scores in taking_part)])
    forgot = {"base": report.unrelated.base, "tuned": report.unrelated.tuned}
    cells_of = [forgot.get(scores.contestant) for scores in taking_part]
    rows.append([UNRELATED, *("–" if one is None else with_interval("loss", one) for one in cells_of)])
    return ["", *(NAMES[scores.contestant] for scores in taking_part)], rows


def compared_table(report: EvaluationReport) -> tuple[list[str], list[list[str]]]:
    """The same with how the tuned model differs from each other contestant, where that is a difference."""
    headings, rows = figures_table(report)
    for rival in ORDER[:-1]:
        if report.of(rival):
            headings.append(f"Tuned against {NAMES[rival].lower()}")
            found = _differences(report, rival)
            rows = [[*row, found.get(row[0], "")] for row in rows]
    return headings, rows


def _differences(report: EvaluationReport, rival: Contestant) -> dict[str, str]:
    """A measure's title → how the tuned model differs from another contestant."""
    found = {
        MEASURES[measure]: _difference(measure, one.difference)
        for measure in measured(report)
        if (one := report.compared(measure, "tuned", rival))
    }
    return found | ({UNRELATED: _difference("loss", report.unrelated.difference)} if rival == "base" else {})


def _difference(measure: Measure, found: Difference) -> str:
    if not found.real:
        return "no difference"
    return f"{'+' if found.value > 0 else '−'}{number(measure, abs(found.value)).replace(' %', ' points')}"


def about(report: EvaluationReport) -> list[str]:
    """What the figures are of, in sentences: rows, limits, examples, format."""
    whose = "held out by the run" if report.held_out_by_run else f"of {report.dataset}"
    sentences = [
        f"n = {report.rows} rows {whose}" + (f", drawn from {report.available}" * (report.available > report.rows))
    ]
    if report.too_long:
        sentences.append(f"{report.too_long} rows too long for the context are left out")
    if report.seen_in_training:
        sentences.append(f"{report.seen_in_training} rows whose prompt was trained on are left out")
    if any(scores.exact for scores in report.scores):
        sentences.append(f"greedy answers of at most {report.max_new_tokens} tokens, the same for all")
    if report.base_unthinking:
        sentences.append("the base was asked to answer without thinking, as the rows do")
    if report.of("examples"):
        sentences.append(f"the base with examples was shown {report.examples:.1f} training rows a question on average")
    if report.format:
        sentences.append(f"format: {in_words(report.format)}")
    sentences.append("in brackets: 95 % intervals")
    return sentences


def card_lines(report: EvaluationReport) -> list[str]:
    """The evaluation as Markdown lines: the verdict, the table, what the figures are of."""
    headings, rows = compared_table(report)
    lines = [plain(report.verdict.sentence), *(plain(remark) for remark in report.verdict.remarks), ""]
    lines += [
        _row(headings),
        _row(["---"] * len(headings)),
        *map(_row, ([plain(cell) for cell in row] for row in rows)),
    ]
    return [*lines, "", "; ".join(plain(sentence) for sentence in about(report)) + "."]


def card_metrics(report: EvaluationReport) -> list[dict[str, Any]]:
    """The tuned model's figures as the Hub's model-index wants them: type, name, value; shares in percent."""
    tuned = report.of("tuned")
    if tuned is None:
        return []
    known: list[tuple[str, str, Figure | None, float]] = [
        ("exact_match", "Exact match (%)", tuned.exact, 100.0),
        ("chrf", "chrF, mean of sentences", tuned.overlap, 1.0),
        ("format_adherence", "In the format (%)", tuned.format, 100.0),
        ("loss", "Answer loss (nats a token)", tuned.loss, 1.0),
        ("perplexity", "Perplexity", tuned.perplexity, 1.0),
    ]
    return [
        {"type": type, "name": name, "value": round(figure.value * scale, 4)}
        for type, name, figure, scale in known
        if figure is not None and math.isfinite(figure.value)
    ]


def plain(text: str) -> str:
    """Text from people and models, with nothing in it that Markdown or HTML would act on."""
    signs = "\\`*_{}[]()#+!|<>&~$"
    return "".join(f"\\{sign}" if sign in signs else sign for sign in " ".join(text.split()))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
