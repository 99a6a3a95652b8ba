"""The demo's facts: what the little model learns, read from two tables and two rules."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
COUNTRY_RELATIONS = ("capital", "continent", "currency")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
TERMS = range(1, 11)

TOPICS = {
    "capital": "geography",
    "continent": "geography",
    "currency": "money",
    "opposite": "words",
    "plural": "words",
    "past": "words",
    "sound": "animals",
    "young": "animals",
    "color": "colors",
    "symbol": "science",
    "sum": "math",
    "day_after": "calendar",
    "day_before": "calendar",
    "month_after": "calendar",
    "month_before": "calendar",
    "month_number": "calendar",
}


@dataclass(frozen=True)
class Fact:
    """One thing to know: the `relation` of `subject` is `answer`."""

    relation: str
    subject: str
    answer: str

    @property
    def topic(self) -> str:
        return TOPICS[self.relation]


def load_facts() -> list[Fact]:
    """Every fact, always in the same order."""
    return [*_countries(), *_words(), *_sums(), *_calendar()]


def _table(name: str) -> Iterator[list[str]]:
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.split("\t")


def _countries() -> Iterator[Fact]:
    for country, *answers in _table("countries.tsv"):
        for relation, answer in zip(COUNTRY_RELATIONS, answers, strict=True):
            if answer:
                yield Fact(relation, country, answer)


def _words() -> Iterator[Fact]:
    for relation, subject, answer in _table("words.tsv"):
        yield Fact(relation, subject, answer)


def _sums() -> Iterator[Fact]:
    for first in TERMS:
        for second in TERMS:
            yield Fact("sum", f"{first} plus {second}", str(first + second))


def _calendar() -> Iterator[Fact]:
    for name, cycle in (("day", DAYS), ("month", MONTHS)):
        for place, subject in enumerate(cycle):
            yield Fact(f"{name}_after", subject, cycle[(place + 1) % len(cycle)])
            yield Fact(f"{name}_before", subject, cycle[place - 1])
    for number, month in enumerate(MONTHS, start=1):
        yield Fact("month_number", month, str(number))
