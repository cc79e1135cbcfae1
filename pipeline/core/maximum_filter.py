"""Smaller volumes that keep what is bright: the maximum over blocks."""

from collections.abc import Sequence

import numpy as np


def maximum_filter(volume: np.ndarray, kernel: Sequence[int]) -> np.ndarray:
    """Return the maximum over blocks side by side: (z, y, x) becomes (z / kz, y / ky, x / kx), rounded up.

    volume: of any type and number of axes, such as HU (z, y, x); kernel: voxels of a block along each axis, such as
    (2, 2, 2), or (1, 2, 2) for thick slices. What is left at the end of an axis makes smaller blocks, as if padded with
    the smallest value. Raises ValueError for a kernel that has not one size of 1 or more an axis.
    Source: Patel et al. 2019, section III-C ("a maximum filter with a kernel size of 2x2x2").
    """
    if len(kernel) != volume.ndim or min(kernel) < 1:
        raise ValueError(
            f"a kernel of {tuple(kernel)} for a volume of {volume.shape}: give one size of 1 or more an axis"
        )
    for axis, size in enumerate(kernel):
        if size > 1:
            volume = _along(volume, axis, size)
    return volume


def _along(volume: np.ndarray, axis: int, size: int) -> np.ndarray:
    before = (slice(None),) * axis
    largest = volume[(*before, slice(0, None, size))].copy()
    for start in range(1, size):
        part = volume[(*before, slice(start, None, size))]
        beginning = largest[(*before, slice(0, part.shape[axis]))]  # the last block may have no such voxel
        np.maximum(beginning, part, out=beginning)
    return largest
