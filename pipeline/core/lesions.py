"""Lesions: the classes of a mask's pixels, the parts of a slice, the lesions of a scan and their sizes."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipeline.config import LABELS
from pipeline.core.lesion_size import abc2_ml, diameters_mm, volume_ml
from pipeline.core.strata import TYPES

DRAWN = TYPES | {"IPH": (*TYPES["IPH"], "intraventricular")}
"""The labels of each class that is drawn. Chang et al. have none for blood in the ventricles; it mostly comes from the
brain around them and lies against it, and left out it would be learned as background."""

CLASSES = tuple(DRAWN)
"""In the order of a network's classes, which count from 1: 0 is the background."""

TOUCHING = np.ones((3, 3, 3), dtype=bool)
"""Voxels of a lesion touch at faces, edges or corners: slices lie ten pixels apart, and an edge moves between them."""


class Parts(NamedTuple):
    """The connected parts of a slice's classes."""

    boxes: np.ndarray
    """(parts, 4) float32: x0, y0, x1, y1 in pixels, the outer edges of the part's pixels."""
    classes: np.ndarray
    """(parts,) int64, numbers from 1 in the order of CLASSES."""
    masks: np.ndarray
    """(parts, y, x), boolean."""


class LesionSize(NamedTuple):
    """A lesion of a scan."""

    type: str
    """One of CLASSES."""
    lesion: int
    """Its number among those of its type, from 1, the largest first."""
    volume_ml: float
    abc2_ml: float


def class_masks(mask: np.ndarray) -> np.ndarray:
    """Return which pixels belong to each class, boolean (classes, ...), of a mask (...) whose bit i is label i.

    A pixel may belong to several.
    """
    bits = [sum(1 << LABELS.index(label) for label in labels) for labels in DRAWN.values()]
    return np.stack([(mask & bit) > 0 for bit in bits])


def slice_parts(mask: np.ndarray, least_px: int = 1) -> Parts:
    """Return the connected parts of a slice's classes, of its mask (y, x) of labels' bits.

    Pixels that touch at a corner are connected. Parts of fewer than `least_px` pixels are dropped; where no other is
    left of the slice, its largest one is kept, so that a slice with hemorrhage never counts as one without.
    """
    boxes, classes, masks = [], [], []
    for number, own in enumerate(class_masks(mask), start=1):
        parts, _count = ndimage.label(own, TOUCHING[0])
        for part, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            boxes.append((columns.start, rows.start, columns.stop, rows.stop))
            classes.append(number)
            masks.append(parts == part)
    sizes = np.array([part.sum() for part in masks], dtype=np.int64)
    kept = np.flatnonzero(sizes >= min(least_px, sizes.max(initial=0)))
    return Parts(
        np.array(boxes, dtype=np.float32).reshape(-1, 4)[kept],
        np.array(classes, dtype=np.int64)[kept],
        np.array(masks, dtype=bool).reshape(-1, *mask.shape)[kept],
    )


def scan_lesions(masks: np.ndarray, row_mm: float, column_mm: float, z_mm: np.ndarray) -> list[LesionSize]:
    """Return the lesions of a scan: connected voxels of one class, with their volume and the same by ABC/2.

    masks: (classes, slices, y, x), boolean, slices in the order of z_mm (slices,), their places along the normal in mm,
    at any distances. Of a tilted series, too, slices are as far apart as along the normal, and a voxel's volume is its
    pixel's area times that. Volumes are NaN in a scan of a single slice, whose thickness no place tells.
    """
    found = []
    for name, mask in zip(CLASSES, masks, strict=True):
        lesions, count = ndimage.label(mask, TOUCHING)
        sizes = []
        for lesion, (_slices, rows, columns) in enumerate(ndimage.find_objects(lesions), start=1):
            # All slices stay: the first and the last of a lesion have neighbours that tell their thickness.
            own = lesions[:, rows, columns] == lesion
            volume = volume_ml(own, row_mm, column_mm, z_mm)
            sizes.append((int(own.sum()), volume, abc2_ml(*diameters_mm(own, row_mm, column_mm, z_mm))))
        order = sorted(range(count), key=lambda lesion: (-np.nan_to_num(sizes[lesion][1]), -sizes[lesion][0], lesion))
        found += [LesionSize(name, number, *sizes[lesion][1:]) for number, lesion in enumerate(order, start=1)]
    return found


def cached_pixel_mm(
    size_px: int, resampled_mm: float, rows: int, columns: int, row_mm: float, column_mm: float
) -> tuple[float, float]:
    """Return the distance of rows and of columns, in mm, in a cached image of `size_px` a side.

    resampled_mm: the view's spacing, or 0 where the whole slice (rows, columns) was resized to the image; row_mm,
    column_mm: the slice's own.
    """
    if resampled_mm:
        return resampled_mm, resampled_mm
    return rows * row_mm / size_px, columns * column_mm / size_px
