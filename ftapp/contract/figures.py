"""A figure over rows with its interval, and whether two of them differ: statistics only; the evaluation calls it."""

import math
from collections.abc import Sequence

from ftapp.contract.base import Contract

Z = 1.96
"""Standard errors on each side of a 95 % interval."""
STANDARD_ERRORS = 2.0
"""A difference under so many standard errors is no difference."""
FEWEST_ROWS = 8
"""With fewer rows nothing is called a difference."""


class Figure(Contract):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(Contract):
    """How far apart two figures on the same rows are."""

    value: float
    standard_error: float
    """Of the difference, paired row by row."""
    rows: int

    @property
    def real(self) -> bool:
        """Whether it is at least two standard errors, over enough rows."""
        enough = self.rows >= FEWEST_ROWS and math.isfinite(self.value)
        return enough and self.value != 0 and abs(self.value) >= STANDARD_ERRORS * self.standard_error


def share(right: Sequence[bool]) -> Figure:
    """The share of true values, 0 to 1, with Wilson's score interval (JASA 22, 1927)."""
    n = len(right)
    if not n:
        return Figure(value=math.nan, low=math.nan, high=math.nan)
    p = sum(right) / n
    middle, scale = p + Z * Z / (2 * n), 1 + Z * Z / n
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    # at the ends the bound is the share itself, which rounding may miss
    low = 0.0 if p == 0 else (middle - half) / scale
    high = 1.0 if p == 1 else (middle + half) / scale
    return Figure(value=p, low=low, high=high)


def mean(values: Sequence[float]) -> Figure:
    """The mean, 1.96 standard errors to each side."""
    value, error = _mean_error(values)
    return Figure(value=value, low=value - Z * error, high=value + Z * error)


def ratio(sums: Sequence[float], weights: Sequence[float]) -> Figure:
    """Sum over sum, such as loss over tokens; the standard error is the ratio estimator's (Cochran 1977, 6.4)."""
    value = sum(sums) / sum(weights) if sum(weights) else math.nan
    error = _root_sum(_influence(sums, weights))
    return Figure(value=value, low=value - Z * error, high=value + Z * error)


def perplexity(loss: Figure) -> Figure:
    """The exponential of a loss, and of its interval."""
    return Figure(value=_exp(loss.value), low=_exp(loss.low), high=_exp(loss.high))


def share_difference(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """First share less second, on the same rows.

    The standard error is that of the shares with half a row added to each of the four pairs of outcomes, which
    does not vanish when few rows differ (Agresti and Min, Statistics in Medicine 24, 2005).
    """
    n = len(first)
    if not n:
        return Difference(value=math.nan, standard_error=math.nan, rows=0)
    gained = sum(a and not b for a, b in zip(first, second, strict=True))
    lost = sum(b and not a for a, b in zip(first, second, strict=True))
    error = math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / (n + 2)) / (n + 2)
    return Difference(value=(gained - lost) / n, standard_error=error, rows=n)


def mean_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """First mean less second, on the same rows."""
    value, error = _mean_error([a - b for a, b in zip(first, second, strict=True)])
    return Difference(value=value, standard_error=error, rows=len(first))


def ratio_difference(
    first: Sequence[float], first_weights: Sequence[float], second: Sequence[float], second_weights: Sequence[float]
) -> Difference:
    """First ratio less second, on the same rows."""
    value = ratio(first, first_weights).value - ratio(second, second_weights).value
    both = zip(_influence(first, first_weights), _influence(second, second_weights), strict=True)
    return Difference(value=value, standard_error=_root_sum([a - b for a, b in both]), rows=len(first))


def _mean_error(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    value = sum(values) / len(values)
    return value, _root_sum([(one - value) / len(values) for one in values])


def _influence(sums: Sequence[float], weights: Sequence[float]) -> list[float]:
    """What each row adds to the ratio's deviation."""
    total = sum(weights)
    value = sum(sums) / total if total else math.nan
    return [(one - value * weight) / total if total else math.nan for one, weight in zip(sums, weights, strict=True)]


def _root_sum(parts: Sequence[float]) -> float:
    n = len(parts)
    return math.sqrt(n / (n - 1) * sum(part * part for part in parts)) if n > 1 else 0.0


def _exp(value: float) -> float:
    return math.exp(value) if not value > 700 else math.inf
