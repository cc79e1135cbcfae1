"""From shares of blood in voxels to masks, and from masks to labels."""

import numpy as np

KINDS = 5
"""Kinds of blood, one bit of a mask each: epidural, intraparenchymal, intraventricular, subarachnoid, subdural."""

LEAST_SHARE = 0.25
"""A voxel belongs to a kind's mask where that blood fills at least this share of it."""


def mask_from_shares(shares: np.ndarray) -> np.ndarray:
    """Return the mask of a slice: uint8 (rows, columns), bit i set where kind i fills at least a quarter of the voxel.

    `shares`: float32 (5, rows, columns), 0 to 1; (0, rows, columns) where there is no blood. Raises ValueError for
    another shape.
    """
    if shares.ndim != 3 or len(shares) not in (0, KINDS):
        raise ValueError(f"shares of shape {shares.shape}: expected ({KINDS}, rows, columns)")
    mask = np.zeros(shares.shape[1:], dtype=np.uint8)
    # A thousandth of slack: four sub-samples of a quarter each must reach the quarter in float32 too.
    for bit, share in enumerate(shares):
        mask |= (share >= LEAST_SHARE - 1e-3).view(np.uint8) << bit
    return mask


def labels_from_mask(mask: np.ndarray) -> tuple[int, ...]:
    """Return the six labels of a mask: five kinds in the order of the bits, then `any`, their maximum."""
    present = int(np.bitwise_or.reduce(mask, axis=None))
    labels = tuple((present >> bit) & 1 for bit in range(KINDS))
    return (*labels, int(present > 0))
