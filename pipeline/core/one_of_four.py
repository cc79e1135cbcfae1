"""Augmentation by exactly one of four: original, rotated, mirrored, shifted. Drawn first, then applied."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

KINDS = ("original", "rotated", "mirrored", "shifted")
"""Equally likely. Source: Patel et al. 2019, sections III-C.1 and III-C.2."""


class Change(NamedTuple):
    """What is done to a volume (z, y, x)."""

    kind: str
    axis: int = 0
    """That a rotated volume turns about: 0, 1 or 2 for z, y or x."""
    angle_deg: float = 0.0
    """By which it turns, from the first of the other two axes to the second."""
    shift: tuple[int, int, int] = (0, 0, 0)
    """Of a shifted volume, in voxels along z, y and x."""


def draw_change(
    rng: np.random.Generator, angle_deg: float, shift: tuple[int, int, int], axes: Sequence[int] = (0, 1, 2)
) -> Change:
    """Return one of KINDS with equal chance, its numbers drawn evenly.

    angle_deg: the largest angle either way; shift: the largest shift either way along z, y and x, in voxels; axes:
    those to turn about, of which one is drawn.
    """
    kind = KINDS[rng.integers(len(KINDS))]
    if kind == "rotated":
        return Change(kind, axis=int(rng.choice(axes)), angle_deg=float(rng.uniform(-angle_deg, angle_deg)))
    if kind == "shifted":
        along_z, along_y, along_x = (int(rng.integers(-most, most + 1)) for most in shift)
        return Change(kind, shift=(along_z, along_y, along_x))
    return Change(kind)


def apply_change(volume: np.ndarray, change: Change, spacing_mm: tuple[float, float, float], fill: float) -> np.ndarray:
    """Return a volume (z, y, x) as a change makes it, in the same shape and type.

    spacing_mm: of voxels along z, y and x, so that thick slices turn as a rigid head does; fill: what comes in from
    outside, such as the HU of air. Rotation about the volume's centre interpolates linearly; mirroring exchanges left
    and right; shifting moves whole voxels. Raises ValueError for an unknown kind.
    """
    if change.kind == "original":
        return volume
    if change.kind == "mirrored":
        return volume[:, :, ::-1]
    if change.kind == "shifted":
        return _shifted(volume, change.shift, fill)
    if change.kind == "rotated":
        return _rotated(volume, change.axis, change.angle_deg, spacing_mm, fill)
    raise ValueError(f"a change of kind {change.kind!r}: it is one of {', '.join(KINDS)}")


def _shifted(volume: np.ndarray, shift: tuple[int, int, int], fill: float) -> np.ndarray:
    moved = np.full_like(volume, fill)
    sides = list(zip(shift, volume.shape, strict=True))
    to = tuple(slice(max(by, 0), max(size + min(by, 0), 0)) for by, size in sides)
    of = tuple(slice(max(-by, 0), max(size + min(-by, 0), 0)) for by, size in sides)
    moved[to] = volume[of]
    return moved


def _rotated(
    volume: np.ndarray, axis: int, angle_deg: float, spacing_mm: tuple[float, float, float], fill: float
) -> np.ndarray:
    first, second = (other for other in range(3) if other != axis)
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    back = np.eye(3)  # from where a voxel is to where it was, in mm
    back[first, first] = back[second, second] = cosine
    back[first, second], back[second, first] = sine, -sine
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    matrix = back * spacing[None, :] / spacing[:, None]  # the same in voxels
    centre = (np.asarray(volume.shape) - 1) / 2
    return ndimage.affine_transform(volume, matrix, centre - matrix @ centre, order=1, mode="constant", cval=fill)
