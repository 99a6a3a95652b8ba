"""The order of the training rows: it depends on the seed and the epoch alone, so a resumed run sees what is left."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler


class EpochOrder(Sampler[int]):
    """Batches of rows drawn at random; inside a batch the rows stand by length, so that a micro-batch pads little.

    What is learned is what plain random order teaches: a batch adds up the same rows however they are dealt to
    micro-batches. Batches of like lengths would pad less still, but they learn worse: the last ones of an epoch, or
    the short rows, weigh too much. The batch with the longest row comes first: if it does not fit, that shows at once.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int, epoch: Callable[[], float]) -> None:
        """`lengths` in tokens, one for each row; `size` in rows of an optimizer step, those of all ranks."""
        self._lengths = torch.tensor(lengths)
        self._size = size
        self._seed = seed
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        # a generator of its own: an evaluation that draws from the global one would change what follows
        generator = torch.Generator().manual_seed(self._seed + int(self._epoch() + 1e-6))
        batches = list(torch.randperm(len(self), generator=generator).split(self._size))
        longest = int(self._lengths.argmax()) if batches else 0
        first = next((number for number, batch in enumerate(batches) if longest in batch), 0)
        if first < len(batches) - 1:  # the last one may be smaller and stays last
            batches[0], batches[first] = batches[first], batches[0]
        for batch in batches:
            yield from batch[self._lengths[batch].argsort(descending=True, stable=True)].tolist()

    def __len__(self) -> int:
        return len(self._lengths)


def step_cost(lengths: Sequence[int], size: int, micro: int, overhead: int) -> float:
    """What an optimizer step of `size` rows costs in tokens, padding included, in micro-batches of `micro` rows.

    `overhead` is what one micro-batch costs beside its tokens, in tokens. The mean of up to 256 random batches.
    """
    drawn = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))[: 256 * size]
    size = min(size, len(drawn))
    batches = torch.tensor(lengths)[drawn[: len(drawn) // size * size]].view(-1, size)
    longest = batches.sort(descending=True).values[:, ::micro].double()
    return float((micro * longest + overhead).sum(dim=1).mean())
