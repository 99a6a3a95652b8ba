"""Which rows are held out: by hashes of first prompts, so that one prompt is never on both sides."""

from collections.abc import Sequence
from typing import Any

from ftapp.contract.examples import Example
from ftapp.store.checking import key, normal


def group_of(example: Example) -> int:
    """What rows share that must stay on one side: their first prompt, or their whole text."""
    prompt = next((m.content for m in example.messages if m.role == "user"), example.text or "")
    return key(normal(prompt))


def held_out(groups: Any, fraction: float, seed: int) -> Any:
    """True for each row to hold out: at least one and at most half, unless `fraction` is 0 or there is one prompt.

    The same groups, fraction and seed give the same rows on every machine.
    """
    import numpy

    held = numpy.zeros(len(groups), bool)
    if fraction == 0 or len(groups) < 2:
        return held
    unique, which, counts = numpy.unique(groups, return_inverse=True, return_counts=True)
    wanted = min(max(1, round(fraction * len(groups))), len(groups) // 2)
    chosen = numpy.zeros(len(unique), bool)
    left = wanted
    for group in numpy.argsort(_mixed(unique, seed), kind="stable").tolist():
        if counts[group] <= left:
            chosen[group] = True
            left -= int(counts[group])
            if not left:
                break
    if left == wanted and len(unique) > 1:
        chosen[int(numpy.argmin(counts))] = True
    return chosen[which]


def _mixed(values: Any, seed: int) -> Any:
    """A hash of each value and the seed (SplitMix64)."""
    import numpy

    with numpy.errstate(over="ignore"):
        mixed = values + numpy.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> numpy.uint64(31))


def split(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training rows and held-out rows, in the order given; rows with the same first prompt stay on one side."""
    import numpy

    held = held_out(numpy.array([group_of(example) for example in examples], "<u8"), fraction, seed).tolist()
    return (
        [example for example, out in zip(examples, held, strict=True) if not out],
        [example for example, out in zip(examples, held, strict=True) if out],
    )
