"""Whether a slice shows the cranial cavity, told by its Hounsfield units: soft tissue that bone encloses."""

import numpy as np
from scipy import ndimage

BONE_HU = 200
"""The skull's bone lies above it, even thinned by partial volume; blood (up to 90 HU) and the falx lie below."""
SOFT_TISSUE_HU = (0, 100)
"""Brain, fluid and blood."""
LEAST_SHARE = 0.02
"""Of the slice's area: 10 cm2 of a field of view of 22 cm, more than the fluid of a sinus, less than the brain at the
level of the posterior fossa."""


def enclosed_soft_tissue(hu: np.ndarray) -> float:
    """Return which share of a slice (y, x) in HU is soft tissue that bone encloses in the slice's plane, 0 to 1.

    Enclosed is what no path, from pixel to pixel across their sides, leads out of without crossing bone.
    """
    areas, count = ndimage.label(hu < BONE_HU)
    if count == 0:
        return 0.0
    is_open = np.zeros(count + 1, dtype=bool)
    is_open[0] = True  # bone itself
    for edge in (areas[0], areas[-1], areas[:, 0], areas[:, -1]):
        is_open[edge] = True
    low, high = SOFT_TISSUE_HU
    return float((~is_open[areas] & (hu >= low) & (hu <= high)).mean())


def shows_cranial_cavity(hu: np.ndarray) -> bool:
    """Return whether a slice (y, x) in HU shows part of the cranial cavity: enough enclosed soft tissue.

    Patel et al. 2019 (section II-B) segment the cavity by multi-atlas registration; this rule stands in its place.
    """
    return enclosed_soft_tissue(hu) >= LEAST_SHARE
