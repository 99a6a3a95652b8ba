"""Answers → figures: each contestant's scores and how they compare, row by row; pure, the worker calls it."""

from collections.abc import Sequence

from ftapp.contract import figures
from ftapp.contract.evaluation import Answer, AnsweredRow, Comparison, Contestant, Measure, Scores, Unrelated

PAIRS: tuple[tuple[Contestant, Contestant], ...] = (("tuned", "base"), ("tuned", "examples"), ("examples", "base"))
Sums = Sequence[tuple[float, int]]
"""A loss, summed over so many tokens, for each passage."""


def scores_of(contestant: Contestant, rows: Sequence[AnsweredRow], has_format: bool) -> Scores:
    """One contestant's figures over all rows."""
    answers = [row.answers[contestant] for row in rows]
    loss = figures.ratio([one.loss for one in answers], [one.tokens for one in answers])
    known = Scores(
        contestant=contestant,
        loss=loss,
        perplexity=figures.perplexity(loss),
        tokens=sum(one.tokens for one in answers),
    )
    if not _answered(answers):
        return known
    return known.model_copy(
        update={
            "exact": figures.share([one.exact for one in answers]),
            "overlap": figures.mean([one.overlap for one in answers]),
            "format": figures.share([one.in_format for one in answers]) if has_format else None,
            "stopped": figures.share([one.stopped for one in answers]),
            "length": figures.mean([one.length for one in answers]),
        }
    )


def comparisons_of(
    contestants: Sequence[Contestant], rows: Sequence[AnsweredRow], has_format: bool
) -> list[Comparison]:
    """Every measure of every two contestants, paired by row."""
    found = []
    for first, second in PAIRS:
        if first in contestants and second in contestants:
            a, b = ([row.answers[name] for row in rows] for name in (first, second))
            for measure, difference in _differences(a, b, has_format):
                found.append(Comparison(measure=measure, first=first, second=second, difference=difference))
    return found


def unrelated_of(base: Sums, tuned: Sums) -> Unrelated:
    """What the fixed text's passages say of what was forgotten."""
    return Unrelated(
        base=figures.ratio(*_columns(base)),
        tuned=figures.ratio(*_columns(tuned)),
        difference=figures.ratio_difference(*_columns(tuned), *_columns(base)),
        tokens=sum(tokens for _, tokens in base),
    )


def _columns(sums: Sums) -> tuple[list[float], list[float]]:
    return [loss for loss, _ in sums], [float(tokens) for _, tokens in sums]


def _answered(answers: Sequence[Answer]) -> bool:
    return bool(answers) and all(one.text is not None for one in answers)


def _differences(
    a: Sequence[Answer], b: Sequence[Answer], has_format: bool
) -> list[tuple[Measure, figures.Difference]]:
    loss = figures.ratio_difference(
        [one.loss for one in a], [one.tokens for one in a], [one.loss for one in b], [one.tokens for one in b]
    )
    found: list[tuple[Measure, figures.Difference]] = [("loss", loss)]
    if not (_answered(a) and _answered(b)):
        return found
    found.append(("exact", figures.share_difference([one.exact for one in a], [one.exact for one in b])))
    found.append(("overlap", figures.mean_difference([one.overlap for one in a], [one.overlap for one in b])))
    if has_format:
        in_format = [one.in_format for one in a], [one.in_format for one in b]
        found.append(("format", figures.share_difference(*in_format)))
    found.append(("stopped", figures.share_difference([one.stopped for one in a], [one.stopped for one in b])))
    found.append(("length", figures.mean_difference([one.length for one in a], [one.length for one in b])))
    return found
