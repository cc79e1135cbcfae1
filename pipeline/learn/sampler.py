"""An order of items that depends on the seed and the epoch alone."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from pipeline.config import UserError
from pipeline.learn.seeds import seed_of


class EpochSampler(Sampler):
    """Yields (epoch, index), shuffled by (seed, epoch) or in order; Lightning tells it the epoch."""

    def __init__(self, length: int, seed: tuple[int, ...] | None = None) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.seed is not None:
            np.random.default_rng(seed_of(*self.seed, self.epoch)).shuffle(order)
        return ((self.epoch, int(index)) for index in order)


class GroupSampler(EpochSampler):
    """Yields (epoch, item, time): so many items of each group, drawn anew each epoch by (seed, epoch), shuffled.

    groups: items; counts: how many of each. Of a group with fewer items all are drawn, then all again; `time` counts
    that, 0 at the first.
    """

    def __init__(self, groups: Sequence[np.ndarray], counts: Sequence[int], seed: tuple[int, ...]) -> None:
        super().__init__(sum(counts), seed)
        self.groups = groups
        self.counts = counts

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        rng = np.random.default_rng(seed_of(*self.seed, self.epoch))
        drawn = np.concatenate(
            [_drawn(rng, group, count) for group, count in zip(self.groups, self.counts, strict=True)]
        )
        rng.shuffle(drawn)
        return ((self.epoch, int(item), int(time)) for item, time in drawn)


def _drawn(rng: np.random.Generator, group: np.ndarray, count: int) -> np.ndarray:
    """Return (count, 2), items and times."""
    times = np.arange(count) // max(1, len(group))
    items = [rng.permutation(group) for _ in range(int(times[-1]) + 1 if count else 0)]
    return np.column_stack([np.concatenate([group[:0], *items])[:count], times])


def balanced_sampler(is_positive: np.ndarray, seed: tuple[int, ...]) -> GroupSampler:
    """Return a sampler of all items of the rarer class and as many of the other; is_positive: (items,).

    Raises UserError where a class is empty.
    """
    classes = both_classes(is_positive)
    return GroupSampler(classes, [min(map(len, classes))] * 2, seed)


def both_classes(is_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive and the negative items; is_positive: (items,). Raises UserError where there are none."""
    classes = np.flatnonzero(is_positive), np.flatnonzero(~np.asarray(is_positive, dtype=bool))
    if not all(map(len, classes)):
        positive, negative = map(len, classes)
        raise UserError(
            f"nothing to balance: {positive} positive and {negative} negative items to train on; "
            "use a larger data set, or other folds"
        )
    return classes
