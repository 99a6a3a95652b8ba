"""The order of the training rows: it depends on the seed and the epoch alone, so a resumed run sees what is left."""

from collections.abc import Callable, Iterator, Sized
from typing import Any

import torch
from torch.utils.data import Sampler


class EpochOrder(Sampler[int]):
    """A sampler that draws from the global generator, drawing from one of its own that begins anew at each epoch.

    Otherwise an evaluation, or an interruption, changes the order of the rows that follow: some are seen twice.
    """

    def __init__(self, sampler: Any, seed: int, epoch: Callable[[], float]) -> None:
        self._sampler = sampler
        self._seed = seed
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self._sampler.generator = torch.Generator().manual_seed(self._seed + int(self._epoch() + 1e-6))
        return iter(self._sampler)

    def __len__(self) -> int:
        sized: Sized = self._sampler
        return len(sized)
