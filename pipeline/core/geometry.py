"""Where CT slices lie in the patient: normal, position along it, tilt and spacing."""

import numpy as np

NEARLY_UPRIGHT = 0.05
"""Slices whose normal has a smaller z component are taken as sagittal or coronal (steeper than 87 degrees)."""


def slice_normals(orientation: np.ndarray) -> np.ndarray:
    """Return unit normals (slices, 3) of ImageOrientationPatient (slices, 6), pointing cranially.

    The normal is row direction x column direction (DICOM PS3.3 C.7.6.2.1.1; +x left, +y posterior, +z cranial). Where
    it has next to no z component, its largest component is made positive.
    """
    orientation = np.asarray(orientation, dtype=np.float64)
    normals = np.cross(orientation[:, :3], orientation[:, 3:])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    largest = np.take_along_axis(normals, np.abs(normals).argmax(axis=1)[:, None], axis=1)[:, 0]
    leading = np.where(np.abs(normals[:, 2]) > NEARLY_UPRIGHT, normals[:, 2], largest)
    return normals * np.where(leading < 0, -1.0, 1.0)[:, None]


def common_normal(normals: np.ndarray) -> np.ndarray:
    """Return one unit normal (3,) for slices whose normals (slices, 3) agree but for rounding.

    Positions of one scan are projected on one normal: a patient's origin may lie far from the slices, where a hundredth
    of a degree already counts.
    """
    # Mostly they are all the same, and the median takes its time.
    middle = normals[0] if (normals == normals[0]).all() else np.median(normals, axis=0)
    return middle / np.linalg.norm(middle)


def tilts_deg(normals: np.ndarray) -> np.ndarray:
    """Return each slice's tilt (slices,) about the patient's left-right axis, in degrees; 0 for an axial slice.

    Positive where the normal leans backwards: the slice's anterior edge lies higher than its posterior edge.
    """
    return np.degrees(np.arctan2(normals[:, 1], normals[:, 2]))


def spacings_mm(z_mm: np.ndarray) -> np.ndarray:
    """Return each slice's spacing (slices,) in mm, of positions z_mm (slices,) in ascending order.

    The mean of the gaps to both neighbours; at the ends the only gap; NaN for a single slice.
    """
    if len(z_mm) < 2:
        return np.full(len(z_mm), np.nan)
    gaps = np.diff(z_mm)
    return (np.append(gaps, gaps[-1]) + np.insert(gaps, 0, gaps[0])) / 2
