"""Where slices lie in the scanner and how the head lies in it.

Scanner coordinates are DICOM's patient coordinates: x to the patient's left, y to the back, z to the top, mm. The
gantry tilts about x; the table moves along z, so the slices of a tilted scan are displaced along z and not along
their normal, as real ones are.
"""

import math
from dataclasses import dataclass

import numpy as np

MAX_TILT_DEG = 27.0
"""The largest gantry tilt in the RSNA 2019 files."""


@dataclass(frozen=True)
class Geometry:
    """The planes of one scan and the head's pose in it.

    `origins_mm` (n, 3): centre of each slice's first pixel, in the order of acquisition. `row` and `column` (3,):
    directions of a row (towards growing column index) and of a column. `normal` (3,) points up.
    `rotation` (3, 3) and `position_mm` (3,) carry head coordinates to scanner coordinates.
    """

    origins_mm: np.ndarray
    thickness_mm: np.ndarray
    row: np.ndarray
    column: np.ndarray
    normal: np.ndarray
    pixel_mm: float
    side_px: int
    rotation: np.ndarray
    position_mm: np.ndarray

    @property
    def gravity(self) -> np.ndarray:
        """Down in head coordinates, (3,): the patient lies on the back."""
        return self.rotation.T @ np.array([0.0, 1.0, 0.0])


def rotation_matrix(pitch_deg: float, roll_deg: float, yaw_deg: float) -> np.ndarray:
    """Return the rotation (3, 3) by pitch about x, then roll about y, then yaw about z."""
    (cx, cy, cz), (sx, sy, sz) = (
        [math.cos(math.radians(a)) for a in (pitch_deg, roll_deg, yaw_deg)],
        [math.sin(math.radians(a)) for a in (pitch_deg, roll_deg, yaw_deg)],
    )
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def slice_heights(rng: np.random.Generator, count: int, uneven: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return heights of `count` slices along the normal over the sella (n,) and their thickness (n,), both mm.

    A scan goes from below the skull's base to the vertex: about 5 mm apart; an uneven one finer in the base (as the
    habit was before spiral scanners) and coarser above.
    """
    top = rng.uniform(92.0, 101.0)
    if uneven:
        fine = count // 2
        steps = np.concatenate([np.full(fine, 4.0), np.full(count - fine, 6.0)])
    else:
        steps = np.full(count, 5.0 if count > 26 else float(rng.choice([5.0, 5.2, 5.4])))
        if count > 34:  # the whole head in thinner slices
            steps[:] = 4.5
    heights = np.cumsum(steps)
    return heights - heights[-1] + top, steps


def scan_geometry(
    rng: np.random.Generator,
    heights_mm: np.ndarray,
    thickness_mm: np.ndarray,
    tilt_deg: float,
    side_px: int,
) -> Geometry:
    """Return the planes of a scan at the given heights over the sella, and a pose for the head.

    `heights_mm`, `thickness_mm`: (n,). Raises ValueError for a tilt beyond MAX_TILT_DEG.
    """
    if abs(tilt_deg) > MAX_TILT_DEG:
        raise ValueError(f"gantry tilt {tilt_deg} degrees: at most {MAX_TILT_DEG}")
    tilt = math.radians(tilt_deg)
    row = np.array([1.0, 0.0, 0.0])
    column = np.array([0.0, math.cos(tilt), -math.sin(tilt)])
    normal = np.cross(row, column)
    # The tilt is chosen to follow the head, so what is left between them is small.
    rotation = rotation_matrix(-tilt_deg + rng.normal(0.0, 4.0), rng.normal(0.0, 3.0), rng.normal(0.0, 5.0))
    position = np.array([rng.normal(0.0, 4.0), rng.normal(0.0, 4.0), rng.uniform(-60.0, 60.0)])
    field_mm = rng.uniform(222.0, 250.0) + 0.8 * abs(tilt_deg)
    pixel_mm = round(field_mm / side_px, 6)
    # The table moves along z only: over the scan the head drifts across the tilted planes; its middle is centred.
    middle = float(heights_mm.mean())
    centre_y = position[1] + (rotation @ np.array([0.0, 0.0, middle]))[1]
    z = (normal @ position + heights_mm - normal[1] * centre_y) / normal[2]
    centres = np.stack([np.full_like(z, position[0]), np.full_like(z, centre_y), z], axis=1)
    first_pixel = 0.5 * (side_px - 1) * pixel_mm * (row + column)
    return Geometry(
        origins_mm=np.round(centres - first_pixel, 6),
        thickness_mm=thickness_mm,
        row=row,
        column=column,
        normal=normal,
        pixel_mm=pixel_mm,
        side_px=side_px,
        rotation=rotation,
        position_mm=position,
    )


def pixel_to_head(geometry: Geometry, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return, in head coordinates (mm), slice `index`'s first pixel, and the steps to the next column and row, and up.

    Each is (3,); the last one goes through the slice's whole thickness along the normal.
    """
    back = geometry.rotation.T
    return (
        back @ (geometry.origins_mm[index] - geometry.position_mm),
        back @ (geometry.row * geometry.pixel_mm),
        back @ (geometry.column * geometry.pixel_mm),
        back @ (geometry.normal * geometry.thickness_mm[index]),
    )
