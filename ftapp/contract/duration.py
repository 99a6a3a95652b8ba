"""How long a training will take, from how fast past ones were; pure arithmetic."""

from collections.abc import Sequence

from ftapp.contract.base import Contract
from ftapp.contract.config import RunConfig

SAME_MODEL = (0.9, 1.2)
"""How much shorter or longer a run may be than one of the same model: rows and batches differ."""
OTHER_MODEL = (0.6, 1.8)
"""The same for a run of another model: the time for a token grows about with the parameters, but not just so."""


class Speed(Contract):
    """How fast a run was, and on what."""

    model: str
    method: str
    device: str
    parameters: int
    """Of the base model."""
    tokens_per_second: float
    other_seconds: float
    """Time at work that was not spent on training steps: loading, measuring, saving."""


class DurationEstimate(Contract):
    """How long a training will take, from the start of its process to its end."""

    low: float
    """Seconds."""
    high: float
    """Seconds."""
    tokens: int
    """That it will train on, over all epochs."""
    basis: str
    """What the estimate is made of, in words."""
    dollars_low: float | None = None
    """Where the price of the machine is known."""
    dollars_high: float | None = None
    hardware: str = ""
    """The machine that has this price."""

    def priced(self, hardware: str, dollars_per_hour: float) -> "DurationEstimate":
        """With what it costs on a machine."""
        low, high = (seconds / 3600 * dollars_per_hour for seconds in (self.low, self.high))
        return self.model_copy(update={"hardware": hardware, "dollars_low": low, "dollars_high": high})


def tokens_to_train(config: RunConfig, tokens_per_epoch: int, rows: int) -> int:
    """Tokens over the whole run; `tokens_per_epoch` and `rows` are the dataset's, held-out rows included."""
    share = 1.0 if config.data.eval_dataset else 1 - config.data.eval_fraction
    tokens = tokens_per_epoch * share * config.duration.epochs
    if config.duration.max_steps:
        tokens = min(tokens, config.duration.max_steps * config.batch.effective_size * tokens_per_epoch / max(1, rows))
    return round(tokens)


def estimate(tokens: int, config: RunConfig, device: str, past: Sequence[Speed], parameters: int) -> DurationEstimate:
    """From the past runs of `comparable`, of which there must be one."""
    same = [speed for speed in past if speed.model == config.model.id]
    shorter, longer = SAME_MODEL if same else OTHER_MODEL
    rates = [speed.tokens_per_second * (1 if same else speed.parameters / parameters) for speed in same or past]
    others = [speed.other_seconds for speed in same or past]
    runs = f"{len(rates)} earlier runs" if len(rates) > 1 else "an earlier run"
    of = "this model" if same else "another model, scaled by the number of parameters,"
    return DurationEstimate(
        low=shorter * (tokens / max(rates) + min(others)),
        high=longer * (tokens / min(rates) + max(others)),
        tokens=tokens,
        basis=f"from {runs} of {of} with {config.method.type} on {device}",
    )


def comparable(config: RunConfig, device: str, past: Sequence[Speed]) -> list[Speed]:
    """The past runs that say something about this one: of the same method on the same device."""
    return [one for one in past if (one.method, one.device) == (config.method.type, device) and one.parameters]
