"""How long a training will take, from how fast past ones were; pure arithmetic."""

from collections.abc import Sequence
from math import ceil

from ftapp.contract.base import Contract
from ftapp.contract.config import RunConfig
from ftapp.contract.events import Resolved

SAME_MODEL = (0.9, 1.2)
"""How much shorter or longer a run may be than one of the same model: rows and batches differ."""
OTHER_MODEL = (0.6, 1.8)
"""The same for a run of another model: the time for a token grows about with the parameters, but not just so."""
PROBE = (0.7, 1.6)
"""The same for two steps of the same model: they need not be like the others."""
PROBE_STEPS = 2
AUTO_EVALUATIONS = 5
"""How often the held-out loss is measured over a run if nobody says."""


class Speed(Contract):
    """How fast a run was, and on what."""

    model: str
    method: str
    device: str
    parameters: int
    """Of the base model."""
    tokens_per_second: float
    other_seconds: float
    """Time at work that was not spent on training steps or on measuring the held-out loss: loading, saving."""
    steps: int = PROBE_STEPS + 1
    """That it trained."""
    seconds_an_evaluation: float = 0.0


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


def evaluations_of(config: RunConfig, rows: int) -> int:
    """How often a run will measure the held-out loss; `rows` are the dataset's, held-out rows included."""
    own, share = config.data.eval_dataset is not None, config.data.eval_fraction
    if not (own or share):
        return 0
    an_epoch = ceil(rows * (1.0 if own else 1 - share) / config.batch.effective_size)
    steps = ceil(config.duration.epochs * an_epoch)
    steps = min(steps, config.duration.max_steps or steps)
    return ceil(steps / evaluation_steps(config, steps))


def evaluation_steps(config: RunConfig, steps: int) -> int:
    """Steps between two measurements of a run of so many steps, `auto` resolved."""
    every = config.evaluation.steps
    return max(1, ceil(steps / AUTO_EVALUATIONS)) if every == "auto" else every


def idle(config: RunConfig, rows: int) -> dict[str, str]:
    """Dotted field name → why it could do nothing in a run on so many rows; empty if everything can."""
    patience, times = config.evaluation.early_stopping_patience, evaluations_of(config, rows)
    if patience is None or patience < times:
        return {}
    once = "once" if times == 1 else f"{times} times"
    reason = f"the run measures only {once}, so {patience} measurements without a lower loss cannot come about"
    return {"evaluation.early_stopping_patience": f"{reason}; measure more often, or lower it"}


def probe_of(config: RunConfig) -> RunConfig:
    """The first two steps of a run, measured once: whether it fits, and how fast it is."""
    evaluation = config.evaluation.model_copy(update={"steps": PROBE_STEPS, "early_stopping_patience": None})
    duration = config.duration.model_copy(update={"max_steps": PROBE_STEPS})
    return config.model_copy(update={"duration": duration, "evaluation": evaluation, "tracking": "none"})


def tokens_per_epoch(told: Resolved, config: RunConfig) -> int:
    """Of the whole dataset, about: what a run tells of it, as `measure` would.

    Rows held out of it are counted with it; those of a held-out dataset of its own are not.
    """
    held_out = 0.0 if config.data.eval_dataset else told.eval_rows / told.train_rows
    return round(told.train_tokens * (1 + held_out))


def estimate(
    tokens: int, evaluations: int, config: RunConfig, device: str, past: Sequence[Speed], parameters: int
) -> DurationEstimate:
    """From the past runs of `comparable`, of which there must be one; whole runs count more than a few steps."""
    whole = [speed for speed in past if speed.steps > PROBE_STEPS]
    tried = [speed for speed in past if speed.model == config.model.id]
    same = [speed for speed in whole if speed.model == config.model.id] or tried
    used = same or whole or past
    few = all(speed.steps <= PROBE_STEPS for speed in used)
    shorter, longer = OTHER_MODEL if not same else PROBE if few else SAME_MODEL
    rates = [speed.tokens_per_second * (1 if same else speed.parameters / parameters) for speed in used]
    others = [speed.other_seconds + evaluations * speed.seconds_an_evaluation for speed in used]
    runs = "two steps" if few else f"{len(rates)} earlier runs" if len(rates) > 1 else "an earlier run"
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
