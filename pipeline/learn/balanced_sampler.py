"""As many positives as negatives in an epoch, in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from pipeline.config import UserError
from pipeline.learn.seeds import seed_of


class BalancedSampler(Sampler):
    """Yields (epoch, index): all items of the rarer class once, and as many of the other, drawn anew each epoch.

    is_positive: (items,). Raises UserError where a class is empty.
    """

    def __init__(self, is_positive: np.ndarray, seed: tuple[int, ...]) -> None:
        self.classes = [np.flatnonzero(is_positive), np.flatnonzero(~np.asarray(is_positive, dtype=bool))]
        self.count = min(map(len, self.classes))
        if self.count == 0:
            positive, negative = map(len, self.classes)
            raise UserError(
                f"nothing to balance: {positive} positive and {negative} negative items to train on; "
                "use a larger data set, or other folds"
            )
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose items come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return 2 * self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng(seed_of(*self.seed, self.epoch))
        drawn = np.concatenate([rng.permutation(items)[: self.count] for items in self.classes])
        return ((self.epoch, int(index)) for index in rng.permutation(drawn))
