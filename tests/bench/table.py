"""One row of the table."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """A figure of ours against an opponent's, or against a limit."""

    figure: str
    unit: str
    ours: list[float]
    opponent: list[float]
    """Empty if the target is a plain limit."""
    target: float
    """The highest ratio, or the highest value, that is good enough."""
    against: str = ""

    @property
    def ratio(self) -> float:
        """Median of the ratios pair by pair, which machines that drift cannot bend."""
        return median(a / b for a, b in zip(self.ours, self.opponent, strict=True))

    @property
    def reached(self) -> bool:
        """Whether the target is met."""
        return (self.ratio if self.opponent else median(self.ours)) <= self.target

    def text(self) -> str:
        """As Markdown."""
        spread = f"{median(self.ours):.3g} {self.unit} ({min(self.ours):.3g} to {max(self.ours):.3g})"
        mark = "" if self.reached else " **missed**"
        if not self.opponent:
            return f"| {self.figure} | {spread} | | | ≤ {self.target:g} {self.unit}{mark} |"
        other = f"{median(self.opponent):.3g} {self.unit} ({self.against})"
        return f"| {self.figure} | {spread} | {other} | {self.ratio:.3f} | ≤ {self.target:g}{mark} |"
