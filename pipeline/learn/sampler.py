"""An order of items that depends on the seed and the epoch alone."""

from collections.abc import Iterator

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
