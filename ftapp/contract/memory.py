"""A model's weights + config + machine → bytes of memory by part, what `auto` becomes, and what to change; pure.

How the formulas were derived, and what they leave out, is in docs/memory.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from pydantic import Field

from ftapp.contract.base import Contract
from ftapp.contract.changes import changed, to_four_bits, to_rows_at_once
from ftapp.contract.config import AdapterConfig, FullConfig, LoraConfig, QloraConfig, RunConfig
from ftapp.contract.footprint import Footprint, footprint
from ftapp.contract.parameters import Architecture, Shapes, Weights, architecture, weights

AUTO_MICRO_LIMIT = 8
AUTO_LENGTH_LIMIT = 4096
"""Longest row, in tokens, that is trained on without being asked for."""
CONTEXT = {"cuda": 2**30, "cpu": 600 * 2**20}
"""What the process holds before the model: context, kernels, cuBLAS workspaces; or Python and its libraries."""
FRAGMENTATION = 0.03
"""Share of the rest that the allocator holds and cannot use."""
COMFORTABLE = 0.9
CHECKPOINTS = 3
"""At most on the disk at once: the best, the last, and the one that is being written."""

Verdict = Literal["fits", "tight", "does not fit", "unknown"]


@dataclass(frozen=True)
class Model:
    """A base model as its headers and config.json tell it."""

    groups: tuple[Weights, ...]
    facts: Architecture
    stored: int
    """Bytes of the tensors in the files."""


def read_model(shapes: Shapes, stored: int, config: Mapping[str, Any]) -> Model:
    """From the headers of the weights and the parsed config.json."""
    facts = architecture(config)
    return Model(tuple(weights(shapes, facts)), facts, stored)


class Machine(Contract):
    """Where the run would compute."""

    kind: Literal["cuda", "cpu"]
    name: str
    total: int | None = None
    """Memory, bytes; None if it is not known."""
    free: int | None = None
    """Memory, bytes, that a new process could take."""


class Plan(Contract):
    """What decides the memory of a step, with every `auto` resolved."""

    micro_size: int
    activation_checkpointing: bool
    row_tokens: int
    """Tokens of the longest row."""
    accumulates: bool
    """Whether gradients are kept from one micro-batch to the next."""


class Estimate(Contract):
    """Bytes at the moment of a training step that needs most."""

    plan: Plan
    weights: int
    """The base model as loaded."""
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass keeps for the backward pass, and what one layer computes with."""
    logits: int
    """The output head's tile and its gradients."""
    reserve: int
    """Driver context and fragmentation."""

    @property
    def allocated(self) -> int:
        """Without the reserve: what `torch.cuda.max_memory_allocated` measures."""
        return self.peak - self.reserve

    @property
    def peak(self) -> int:
        """All parts."""
        parts = self.weights + self.adapter + self.gradients + self.optimizer
        return parts + self.activations + self.logits + self.reserve


class Change(Contract):
    """Something to change so that the run fits."""

    words: str
    values: dict[str, Any]
    """Dotted config name → the value to set."""
    peak: int
    """Bytes, estimated with the change."""


class MemoryView(Contract):
    """What a run would need, and what there is."""

    estimate: Estimate
    machine: Machine
    verdict: Verdict
    disk: int = 0
    """Bytes that the run will have on the disk at most."""
    disk_free: int | None = None
    changes: list[Change] = Field(default_factory=list)
    """If it does not fit: the least harmful first, each enough by itself."""
    notes: list[str] = Field(default_factory=list)
    """What else a person should know of it."""


def verdict(peak: int, free: int | None) -> Verdict:
    """`fits` up to 90 % of the free memory, `tight` up to all of it; unknown if nobody knows what is free."""
    if free is None:
        return "unknown"
    return "fits" if peak <= COMFORTABLE * free else "tight" if peak <= free else "does not fit"


def longest_row(config: RunConfig, facts: Architecture, row_tokens: int | None) -> int:
    """Tokens of the longest row that training will see; without a measurement the longest allowed."""
    wanted = config.data.max_length
    limit = min(facts.context or AUTO_LENGTH_LIMIT, AUTO_LENGTH_LIMIT) if wanted == "auto" else wanted
    return min(row_tokens, limit) if row_tokens else limit


def resolve(
    model: Model,
    config: RunConfig,
    machine: Machine,
    row_tokens: int | None = None,
    world: int = 1,
    cost: Callable[[int], float] | None = None,
) -> Plan:
    """The plan of a run, for the estimate and for the worker.

    Micro-batch `auto`: of up to 8 rows that fit, the size that `cost` finds cheapest; the largest if nobody knows the
    rows. Activation checkpointing `auto`: on only with a GPU, and only if no micro-batch fits without it. If nothing
    fits, the smallest plan.
    """
    share = max(1, config.batch.effective_size // world)
    tokens = longest_row(config, model.facts, row_tokens)
    micro = config.batch.micro_size
    sizes = [n for n in range(min(AUTO_MICRO_LIMIT, share), 0, -1) if share % n == 0] if micro == "auto" else [micro]
    smallest = min(sizes)
    if cost:
        sizes.sort(key=cost)
    wanted = config.batch.activation_checkpointing
    choices = [wanted] if wanted != "auto" else [False] if machine.kind == "cpu" else [False, True]
    plans = [
        Plan(micro_size=size, activation_checkpointing=choice, row_tokens=tokens, accumulates=share > size)
        for choice in choices
        for size in sizes
    ]
    if machine.free is None:
        return next(plan for plan in plans if plan.activation_checkpointing == choices[-1])
    fitting = (plan for plan in plans if estimate(model, config, plan, machine).peak <= COMFORTABLE * machine.free)
    return next(fitting, plans[-1].model_copy(update={"micro_size": smallest}))


def estimate(model: Model, config: RunConfig, plan: Plan, machine: Machine) -> Estimate:
    """Bytes by part at the worst moment of a step; a trained parameter has 4 of gradient and 8 of AdamW, in fp32
    (arXiv:1910.02054, §3.1).
    """
    one = _footprint(model, config, machine)
    gradients, activations, logits = max(moments(model, config, plan, machine), key=sum)
    adapter = 0 if isinstance(config.method, FullConfig) else 4 * one.trained
    parts = one.weights + adapter + 8 * one.trained + gradients + activations + logits
    return Estimate(
        plan=plan,
        weights=one.weights,
        adapter=adapter,
        gradients=gradients,
        optimizer=8 * one.trained,
        activations=activations,
        logits=logits,
        reserve=CONTEXT[machine.kind] + int(FRAGMENTATION * parts),
    )


def moments(model: Model, config: RunConfig, plan: Plan, machine: Machine) -> list[tuple[int, int, int]]:
    """Bytes of gradients, activations and logits at the four moments of a step that may need most.

    The head's forward pass and its backward pass, with all that the layers kept; the start of the layers' backward
    pass; and its end, when all gradients are there.
    """
    one = _footprint(model, config, machine)
    tokens = plan.micro_size * (ceil(plan.row_tokens / 8) * 8 if machine.kind == "cuda" else plan.row_tokens)
    gradients = 4 * one.trained
    before = gradients if plan.accumulates else 0
    layer, passing = one.layer(tokens, plan.row_tokens), one.passing(tokens)
    inputs = one.checkpoints * tokens
    kept = inputs if plan.activation_checkpointing else one.kept(tokens, plan.row_tokens) + one.copies
    again = layer if plan.activation_checkpointing else 0
    return [
        (before, max(kept, inputs + one.copies), one.head_forward(tokens)),
        (before, kept, one.head_backward(tokens)),
        (before, kept + again + passing, 0),
        (gradients, layer + passing, 0),
    ]


def _footprint(model: Model, config: RunConfig, machine: Machine) -> Footprint:
    return footprint(model.groups, model.facts, model.stored, config.method, machine.kind)


def on_disk(model: Model, config: RunConfig) -> int:
    """Bytes: two checkpoints and the next one, with 4 a trained parameter and 8 of AdamW, and the result."""
    trained = _footprint(model, config, Machine(kind="cpu", name="")).trained
    return (CHECKPOINTS * 12 + 4) * trained


def predict(
    model: Model, config: RunConfig, machine: Machine, row_tokens: int | None = None, disk_free: int | None = None
) -> MemoryView:
    """The estimate of a config on a machine, whether it fits, and if not what to change."""
    found = estimate(model, config, resolve(model, config, machine, row_tokens), machine)
    judged = verdict(found.peak, machine.free)
    changes = list(_changes(model, config, machine, row_tokens, found.plan)) if judged == "does not fit" else []
    return MemoryView(
        estimate=found,
        machine=machine,
        verdict=judged,
        disk=on_disk(model, config),
        disk_free=disk_free,
        changes=changes,
        notes=list(_notes(model, config, machine)),
    )


def _notes(model: Model, config: RunConfig, machine: Machine) -> Iterator[str]:
    """bitsandbytes quantises `nn.Linear` only, and transformers 5 fuses a layer's experts into one tensor."""
    experts = sum(group.total for group in model.groups if group.kind == "experts")
    if experts and isinstance(config.method, QloraConfig) and not model.facts.quantised:
        bits = 16 if machine.kind == "cuda" else 32
        size = experts * bits / 8 / 2**30
        yield f"QLoRA leaves the experts unquantised: they stay in {bits} bit, {size:,.1f} GiB of the model."


def _changes(model: Model, config: RunConfig, machine: Machine, row_tokens: int | None, plan: Plan) -> Iterator[Change]:
    """For each lever its mildest value that is enough alone; until one is found, together with those before it."""
    before: dict[str, Any] = {}
    found = False
    for steps in _levers(config, plan):
        for values in [*steps, *([{**before, **step} for step in steps] if before and not found else [])]:
            new = changed(config, values)
            if new is None:
                continue
            peak = estimate(model, new, resolve(model, new, machine, row_tokens), machine).peak
            if machine.free is not None and peak <= machine.free:
                found = True
                yield Change(words=_words(values), values=values, peak=peak)
                break
        if steps:
            before |= steps[-1]


def _levers(config: RunConfig, plan: Plan) -> Iterator[list[dict[str, Any]]]:
    """Ways to need less, the least harmful first; within each from mild to strong."""
    size = config.batch.effective_size
    yield [to_rows_at_once(config, n) for n in range(plan.micro_size - 1, 0, -1) if size % n == 0]
    yield [] if plan.activation_checkpointing else [{"batch.activation_checkpointing": True}]
    lengths = [int(plan.row_tokens * share) // 64 * 64 for share in (0.75, 0.5, 0.25, 0.125)]
    yield [{"data.max_length": length} for length in lengths if length >= 64]
    method = config.method
    if isinstance(method, FullConfig):
        yield [{"method.type": "lora"}, to_four_bits(config)]
    elif isinstance(method, LoraConfig):
        yield [to_four_bits(config)]
    if isinstance(method, AdapterConfig) and config.model.adapter is None:  # an earlier adapter has its rank
        yield [{"method.rank": rank} for rank in (32, 16, 8, 4) if rank < method.rank]


def _words(values: Mapping[str, Any]) -> str:
    said = []
    for name, value in values.items():
        match name:
            case "batch.micro_size":
                said.append(f"micro-batch of {value}")
            case "batch.activation_checkpointing":
                said.append("activation checkpointing on, about 20 % slower")
            case "data.max_length":
                said.append(f"maximum length {value}, which leaves out or cuts longer rows")
            case "method.type":
                said.append(f"{'LoRA' if value == 'lora' else 'QLoRA'} as the method")
            case "method.rank":
                said.append(f"rank {value}")
            case "method.init":
                said.append(f"{value} initialisation")
            case _:
                said.append(f"packing {value}")
    text = "; ".join(said)
    return text[0].upper() + text[1:]
