"""Seeds from what a thing is, never from when it happens: same slice, same epoch, same numbers, whoever asks."""

import numpy as np


def seed_of(*parts: int) -> int:
    """Return a 32-bit seed that belongs to these non-negative integers, such as (seed, fold, epoch, slice)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
