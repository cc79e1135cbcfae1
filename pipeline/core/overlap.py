"""How far a drawn region and the true one are the same."""

import numpy as np


def dice(truth: np.ndarray, drawn: np.ndarray) -> float:
    """Return twice the common voxels over the voxels of both masks: 1 the same, 0 nothing in common.

    truth, drawn: booleans of one shape, all voxels of one size. NaN where both are empty: there is nothing to overlap.
    Raises ValueError where the shapes differ. Source: Dice, Ecology 26:297-302, 1945.
    """
    truth, drawn = np.asarray(truth, dtype=bool), np.asarray(drawn, dtype=bool)
    if truth.shape != drawn.shape:
        raise ValueError(f"the true mask has shape {truth.shape}, the drawn one {drawn.shape}")
    total = truth.sum() + drawn.sum()
    return float(2 * (truth & drawn).sum() / total) if total else float("nan")
