"""The verdict: what the figures of an evaluation add up to, in one sentence; pure, the worker calls it."""

import math
from collections.abc import Sequence

from ftapp.contract.evaluation import MEASURES, Comparison, Contestant, Measure, Scores, Unrelated, Verdict
from ftapp.contract.figures import FEWEST_ROWS, Figure
from ftapp.contract.findings import figure_of, number, with_interval

TELLING = 0.1
"""Share of exactly right answers from which on they are what is judged by; below, the overlap tells more."""
NEARLY_ALL = 0.95
HALF = 0.5
WHAT: dict[Measure, str] = {"overlap": "overlap (chrF)", "loss": "loss"}
Compared = dict[tuple[Measure, Contestant, Contestant], Comparison]


def judge(
    rows: int, examples: float, scores: Sequence[Scores], comparisons: Sequence[Comparison], unrelated: Unrelated
) -> Verdict:
    """Prompt first, then fine-tune: measured. The tuned model against the base as it is and the base with examples."""
    by = {one.contestant: one for one in scores}
    compared = {(one.measure, one.first, one.second): one for one in comparisons}
    measure = _telling(scores)
    told = _Told(measure, by, rows, examples)
    remarks = [*_forgotten(unrelated), *_format(by, compared)]
    if rows < FEWEST_ROWS:
        sentence = f"{rows} row{'s are' if rows != 1 else ' is'} too few to say anything: hold out more rows."
        return Verdict(kind="too_few", sentence=sentence, remarks=[told.all(), *remarks])
    over_base = _better(compared, measure, "tuned", "base")
    over_examples = _better(compared, measure, "tuned", "examples")
    prompted = _better(compared, measure, "examples", "base")
    if over_base == "base":
        start = "Fine-tuning made it worse"
        advice = "other data or a lower learning rate is needed"
        if prompted == "examples":
            advice = "a prompt with examples is better and enough"
        return Verdict(kind="worse", sentence=f"{start}: {told.all()}; {advice}.", remarks=remarks)
    if over_base == "tuned" and over_examples == "tuned":
        return Verdict(kind="helped", sentence=f"Fine-tuning helped: {told.all()}.", remarks=told.next() + remarks)
    if over_base == "tuned" and "examples" not in by:
        return Verdict(kind="helped", sentence=f"Fine-tuning helped: {told.all()}.", remarks=told.next() + remarks)
    if prompted == "examples" and over_examples != "tuned":
        how = "does better than" if over_examples == "examples" else "does as well as"
        sentence = f"Prompting is enough: showing the base {told.shown()} {how} fine-tuning, {told.all()}."
        return Verdict(kind="prompting", sentence=sentence, remarks=told.next() + remarks)
    if over_base == "tuned":
        # better than the base as it is, while the prompt is better than neither: too few rows to tell them apart
        sentence = (
            f"Fine-tuning helped, but not measurably more than showing the base {told.shown()}: {told.all()}; "
            "more held-out rows would tell."
        )
        return Verdict(kind="helped", sentence=sentence, remarks=told.next() + remarks)
    if measure == "exact" and _at_least(by["base"].exact, NEARLY_ALL):
        sentence = f"Fine-tuning is not needed for these questions: {told.all()}."
        return Verdict(kind="not_needed", sentence=sentence, remarks=remarks)
    sentence = f"Fine-tuning made no difference that {rows} rows can show: {told.all()}; more or other data is needed."
    return Verdict(kind="no_difference", sentence=sentence, remarks=_learning(measure, compared, by) + remarks)


class _Told:
    """The figures behind the verdict, in words."""

    def __init__(self, measure: Measure, by: dict[Contestant, Scores], rows: int, examples: float) -> None:
        self._measure, self._by, self._rows, self._examples = measure, by, rows, examples

    def all(self) -> str:
        """Of the tuned model with its interval, then of the others."""
        tuned = figure_of(self._by["tuned"], self._measure)
        assert tuned is not None
        value = with_interval(self._measure, tuned)
        if self._measure == "exact":
            start = f"{value} of its {self._rows} answers are exactly right"
        else:
            start = f"its {WHAT[self._measure]} is {value}"
        examples = f" and {self._short('examples')} with {self.shown()}" if "examples" in self._by else ""
        return f"{start}, {self._short('base')} for the base as it is{examples}"

    def _short(self, contestant: Contestant) -> str:
        figure = figure_of(self._by[contestant], self._measure)
        return "–" if figure is None else number(self._measure, figure.value)

    def shown(self) -> str:
        """How many examples the prompt had."""
        count = f"{self._examples:.1f}".removesuffix(".0")
        return f"{count} example{'' if count == '1' else 's'} in the prompt"

    def next(self) -> list[str]:
        """What would be next where most answers are still wrong."""
        if self._measure != "exact" or _at_least(self._by["tuned"].exact, HALF):
            return []
        return ["Most answers are still not right: more data is the next step."]


def _telling(scores: Sequence[Scores]) -> Measure:
    """Exactly right answers where some contestant has a fair share of them, else the overlap; the loss of texts."""
    exact = [one.exact.value for one in scores if one.exact]
    if not exact:
        return "loss"
    return "exact" if max(exact) >= TELLING else "overlap"


def _better(compared: Compared, measure: Measure, first: Contestant, second: Contestant) -> Contestant | None:
    one = compared.get((measure, first, second))
    return one.better if one else None


def _at_least(figure: Figure | None, value: float) -> bool:
    return figure is not None and figure.value >= value


def _forgotten(unrelated: Unrelated) -> list[str]:
    before, after = unrelated.base.value, unrelated.tuned.value
    if not unrelated.difference.real or not (math.isfinite(before) and math.isfinite(after)):
        return []
    times = f"perplexity × {math.exp(min(after - before, 700)):.3g}"
    if after > before:
        return [f"It forgot something: the loss on unrelated text rose from {before:.3f} to {after:.3f} ({times})."]
    return [f"Nothing was forgotten: the loss on unrelated text fell from {before:.3f} to {after:.3f} ({times})."]


def _format(by: dict[Contestant, Scores], compared: Compared) -> list[str]:
    better = _better(compared, "format", "tuned", "base")
    before, after = by["base"].format, by["tuned"].format
    if better is None or before is None or after is None:
        return []
    change = f"from {number('format', before.value)} to {number('format', after.value)}"
    verb = "rose" if better == "tuned" else "fell"
    return [f"{MEASURES['format']}: {verb} {change} of the answers."]


def _learning(measure: Measure, compared: Compared, by: dict[Contestant, Scores]) -> list[str]:
    if measure == "loss" or _better(compared, "loss", "tuned", "base") != "tuned":
        return []
    before, after = by["base"].loss.value, by["tuned"].loss.value
    return [f"It did learn: the loss on the right answers fell from {before:.3f} to {after:.3f}."]
