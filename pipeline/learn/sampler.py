"""An order of items that depends on the seed and the epoch alone."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

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


class GroupSampler(Sampler):
    """Yields (epoch, item, time): equally many of each group, shuffled by (seed, epoch); Lightning tells it the epoch.

    Of a group with fewer than `each` items all are drawn, then all again; `time` counts them, 0 at the first.
    """

    def __init__(self, groups: Sequence[np.ndarray], each: int, seed: tuple[int, ...]) -> None:
        self.groups = groups
        self.each = each
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.each * len(self.groups)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        rng = np.random.default_rng(seed_of(*self.seed, self.epoch))
        drawn = np.concatenate([self._drawn(rng, group) for group in self.groups])
        rng.shuffle(drawn)
        return ((self.epoch, int(item), int(time)) for item, time in drawn)

    def _drawn(self, rng: np.random.Generator, group: np.ndarray) -> np.ndarray:
        """Return (each, 2), items and times."""
        times = np.arange(self.each) // len(group)
        items = np.concatenate([rng.permutation(group) for _ in range(times[-1] + 1)])
        return np.column_stack([items[: self.each], times])
