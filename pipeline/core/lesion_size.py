"""How large a lesion is: its volume from a mask, and the same estimated by ABC/2, as it is done by hand.

Source of ABC/2: Kothari et al., The ABCs of measuring intracerebral hemorrhage volumes. Stroke 27:1304-1305, 1996.
"""

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from pipeline.core.geometry import spacings_mm

MM3_PER_ML = 1000.0

WHOLE_SLICE, HALF_SLICE = 0.75, 0.25
"""A slice counts whole above, half from, and not at all below these shares of the largest slice's area."""


def volume_ml(mask: np.ndarray, row_mm: float, column_mm: float, z_mm: np.ndarray) -> float:
    """Return the volume of a mask in mL.

    mask: (slices, rows, columns), boolean; row_mm, column_mm: distance of rows and of columns; z_mm: (slices,), places
    of the slices, ascending, at any distances. NaN in a scan of a single slice: its place does not tell its thickness.
    """
    areas_mm2 = np.asarray(mask, dtype=bool).sum(axis=(1, 2)) * row_mm * column_mm
    return _sum_mm(areas_mm2, z_mm) / MM3_PER_ML


def abc2_ml(a_mm: float, b_mm: float, c_mm: float) -> float:
    """Return a lesion's volume in mL by ABC/2, from its three diameters in mm: an ellipsoid with pi taken as 3."""
    return a_mm * b_mm * c_mm / 2 / MM3_PER_ML


def diameters_mm(mask: np.ndarray, row_mm: float, column_mm: float, z_mm: np.ndarray) -> tuple[float, float, float]:
    """Return the diameters A, B and C of one lesion in mm, all 0 for an empty mask; arguments as `volume_ml`.

    A is the longest line across the lesion in the slice where its area is largest (the lowest such slice), B the
    longest one at a right angle to A in that slice, C the sum of slice spacings, each slice weighted by its area's
    share of the largest: above 75 % whole, from 25 % half, below not at all. Lines run across the outline that a taut
    string around the lesion's pixels would take, corners included. C is NaN in a scan of a single slice.
    """
    mask = np.asarray(mask, dtype=bool)
    areas = mask.sum(axis=(1, 2))
    if not areas.any():
        return 0.0, 0.0, 0.0
    outline = _outline_mm(mask[areas.argmax()], row_mm, column_mm)
    lengths = squareform(pdist(outline))
    start, end = np.unravel_index(lengths.argmax(), lengths.shape)
    shares = areas / areas.max()
    weights = np.select([shares > WHOLE_SLICE, shares >= HALF_SLICE], [1.0, 0.5], 0.0)
    return float(lengths[start, end]), _longest_across(outline, start, end), _sum_mm(weights, z_mm)


def _sum_mm(values: np.ndarray, z_mm: np.ndarray) -> float:
    """Return the sum of slices' values times their spacings; a slice without value needs no spacing."""
    held = values > 0
    return float(values[held] @ spacings_mm(np.asarray(z_mm, dtype=np.float64))[held])


def _outline_mm(mask: np.ndarray, row_mm: float, column_mm: float) -> np.ndarray:
    """Return the convex outline of a slice's pixels, (vertices, 2) in mm, in order around it."""
    rows, columns = np.nonzero(mask)
    corners = np.concatenate([np.stack([rows + i, columns + k], axis=1) for i in (0, 1) for k in (0, 1)])
    corners = np.unique(corners, axis=0)
    return corners[ConvexHull(corners).vertices] * (row_mm, column_mm)


def _longest_across(outline: np.ndarray, start: int, end: int) -> float:
    """Return the longest line across a convex outline (vertices, 2) at a right angle to that from vertex to vertex.

    The outline is widest, in that direction, at one of its vertices.
    """
    along = (outline[end] - outline[start]) / np.linalg.norm(outline[end] - outline[start])
    x = (outline - outline[start]) @ along
    y = (outline - outline[start]) @ np.array([-along[1], along[0]])
    # The diameter divides the outline into a side above it and one below; its ends belong to both.
    y[[start, end]] = 0.0
    above, below = y >= 0, y <= 0
    width = [np.interp(x, *_by_x(x[side], np.abs(y[side]))) for side in (above, below)]
    return float(np.max(width[0] + width[1]))


def _by_x(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(x)
    return x[order], y[order]
