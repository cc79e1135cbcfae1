"""What is drawn without learning: the density of fresh blood inside the skull."""

import numpy as np
from scipy import ndimage

BLOOD_HU = (45.0, 85.0)
"""Density of clotted blood; grey matter lies below, calcification and bone above."""

BONE_HU = 300.0

CLOSED_SHARE = 1 / 64
"""Gaps of the skull are closed up to this share of the image's side either way: 4 mm of a usual field of view."""


def inside_skull(hu: np.ndarray) -> np.ndarray:
    """Return which pixels of a slice (y, x) in HU lie inside the skull: enclosed by bone, and not next to it.

    Bone is closed across sutures and small openings, what it encloses is filled, and the bone taken away with one more
    pixel: where bone and brain share a pixel, its density is blood's. A slice whose ring of bone is open (orbits,
    foramen magnum) has no inside but for what the closing shuts.
    """
    bone = hu > BONE_HU
    reach = max(1, round(CLOSED_SHARE * max(hu.shape)))
    # Padded: the closing must not end at the image's edge, and the filling must find its way round the head.
    padded = np.pad(bone, reach + 1)
    closed = ndimage.binary_closing(padded, iterations=reach)
    filled = ndimage.binary_fill_holes(closed)[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
    return filled & ~ndimage.binary_dilation(bone, np.ones((3, 3), dtype=bool))


def threshold_mask(hu: np.ndarray) -> np.ndarray:
    """Return which pixels of a slice (y, x) in HU have the density of blood, 45 to 85 HU, inside the skull."""
    return (hu >= BLOOD_HU[0]) & (hu <= BLOOD_HU[1]) & inside_skull(hu)
