"""The order of the training rows: every row once, at random, with little padding, the longest first."""

import random

from ftapp.workers.order import EpochOrder, step_cost

LENGTHS = [1 + int(random.Random(number).expovariate(1 / 60)) for number in range(203)]


def test_an_epoch_has_every_row_once_in_batches_drawn_at_random() -> None:
    first, again, next_one = (list(EpochOrder(LENGTHS, 8, 42, lambda e=epoch: e)) for epoch in (0.0, 0.0, 1.0))  # type: ignore[misc]
    assert first == again != next_one
    assert sorted(first) == sorted(next_one) == list(range(203))
    assert LENGTHS[first[0]] == max(LENGTHS)
    batches = [[LENGTHS[row] for row in first[begin : begin + 8]] for begin in range(0, 203, 8)]
    assert all(batch == sorted(batch, reverse=True) for batch in batches)
    median = sorted(LENGTHS)[101]
    mixed = sum(batch[-1] < median < batch[0] for batch in batches)
    assert mixed > 0.8 * len(batches), "long and short rows are learned together"


def test_the_longest_row_may_stand_in_the_last_and_smaller_batch() -> None:
    for row in range(5):
        lengths = [100 if number == row else 10 for number in range(5)]
        assert sorted(EpochOrder(lengths, 4, 42, lambda: 0.0)) == list(range(5))


def test_a_micro_batch_is_as_large_as_padding_lets_it_be() -> None:
    def cheapest(lengths: list[int], overhead: int) -> int:
        return min((8, 4, 2, 1), key=lambda micro: step_cost(lengths, 8, micro, overhead))

    assert step_cost([50] * 64, 8, 4, 10) == 8 * 50 + 2 * 10
    assert cheapest([50] * 64, 64) == 8
    assert cheapest(LENGTHS, 64) in (2, 4)
    assert cheapest(LENGTHS, 2048) == 8
    assert cheapest([2000 if number % 8 == 0 else 20 for number in range(64)], 64) == 1
    assert step_cost([7, 9, 3], 8, 2, 0) == 2 * 9 + 2 * 3
