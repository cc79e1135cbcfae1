"""Blood: where a lesion of a given kind and volume lies in a given head, and which points it fills."""

import math
from typing import NamedTuple

import numpy as np

from pipeline.core.phantom.anatomy import (
    CAVITY,
    CISTERN,
    FOLD,
    GRID_ORIGIN_MM,
    GRID_STEP_MM,
    LUMP,
    MIDLINE,
    TENTORIUM,
    VENTRICLE,
)
from pipeline.core.phantom.shapes import _ramp, compiled

EPIDURAL, INTRAPARENCHYMAL, INTRAVENTRICULAR, SUBARACHNOID, SUBDURAL = range(5)
"""Kinds of blood: the bit of each in a mask, RSNA's order."""

KIND, X, Y, Z, REACH, SIZE, HU, A, B, C, OEDEMA = range(11)
"""Columns of a lesion: kind, centre (head coordinates), radius of a ball round all of it (mm), the size that sets its
volume, density, three numbers of the kind's own, width of the dark rim (mm)."""

MAX_SIZE_MM = 110.0
VOLUME_STEPS = 13
"""Halvings of the interval when the size for a volume is sought: to 0.02 mm."""


class LesionPlan(NamedTuple):
    """What is asked of a lesion."""

    kind: int
    volume_ml: float
    hu: float


@compiled
def _sample(fields, x, y, z, out):
    """Interpolate all fields at a point (mm); outside the grid its edge goes on."""
    nz, ny, nx, _count = fields.shape
    u = min(max((x - GRID_ORIGIN_MM[0]) / GRID_STEP_MM, 0.0), nx - 1.001)
    v = min(max((y - GRID_ORIGIN_MM[1]) / GRID_STEP_MM, 0.0), ny - 1.001)
    w = min(max((z - GRID_ORIGIN_MM[2]) / GRID_STEP_MM, 0.0), nz - 1.001)
    i, j, k = int(u), int(v), int(w)
    a, b, c = np.float32(u - i), np.float32(v - j), np.float32(w - k)
    one = np.float32(1.0)
    w00, w01 = (one - b) * (one - c), b * (one - c)
    w10, w11 = (one - b) * c, b * c
    g00, g01, g10, g11 = fields[k, j], fields[k, j + 1], fields[k + 1, j], fields[k + 1, j + 1]
    for f in range(12):
        low = w00 * g00[i, f] + w01 * g01[i, f] + w10 * g10[i, f] + w11 * g11[i, f]
        high = w00 * g00[i + 1, f] + w01 * g01[i + 1, f] + w10 * g10[i + 1, f] + w11 * g11[i + 1, f]
        out[f] = low + a * (high - low)


@compiled
def _blood(lesion, size, f, x, y, z):
    """Distance (mm) into a lesion, positive inside, given the fields at the point."""
    cavity = f[CAVITY]
    kind = int(lesion[KIND])
    dx, dy, dz = x - lesion[X], y - lesion[Y], z - lesion[Z]
    if kind == EPIDURAL:
        # A ball from outside (centre A mm off the bone) pushes the dura in: a lens, sharp on both sides.
        return min(cavity, size - math.sqrt(dx * dx + dy * dy + dz * dz))
    if kind == INTRAPARENCHYMAL:
        r = math.sqrt((dx * lesion[A]) ** 2 + (dy * lesion[B]) ** 2 + (dz * lesion[C]) ** 2)
        inside = size * (1.0 + 0.16 * f[LUMP]) + 0.35 * min(size, 8.0) * 0.1 * f[FOLD] - r
        return min(inside, cavity - 1.5, 0.5 - f[VENTRICLE])
    if kind == INTRAVENTRICULAR:
        # A level: everything in the ventricles that is lower than `size` along gravity (A, B, C).
        depth = lesion[A] * x + lesion[B] * y + lesion[C] * z
        return min(f[VENTRICLE] + 0.3, depth - (MAX_SIZE_MM * 0.5 - size))
    if kind == SUBARACHNOID:
        near = size * (1.0 + 0.15 * f[LUMP]) - math.sqrt(dx * dx + dy * dy + dz * dz)
        sulci = max(lesion[A] * max(1.0 - cavity / lesion[B], 0.0) ** 0.5 - abs(f[FOLD]), 1.3 * lesion[A] - cavity)
        if cavity > lesion[B] or f[TENTORIUM] > 0.0:
            sulci = -2.0
        fissure = min(lesion[C] - abs(f[MIDLINE]), 12.0 - f[VENTRICLE]) if cavity < 16.0 else -2.0
        return min(near, max(sulci, fissure, f[CISTERN] + 0.6), cavity, -0.5 - f[VENTRICLE])
    # Subdural: a layer on the dura that thins towards its edges and stays on its side of the falx.
    if lesion[C] != 0.0:  # along the falx: C is the side
        u = (dy / 46.0) ** 2 + (dz / 26.0) ** 2
        layer = 0.28 * size * max(1.0 - u, 0.0) * 0.5
        offset = lesion[C] * f[MIDLINE] - 0.6
        return min(offset, layer - offset, cavity)
    u = (dx * dx + dy * dy + dz * dz) / (lesion[A] * lesion[A])
    layer = 0.28 * size * max(1.0 - u, 0.0) ** 0.7 * (1.0 + 0.1 * f[LUMP])
    return min(cavity, layer - cavity, lesion[B] * f[MIDLINE] - 1.0, 1.5 - f[TENTORIUM])


@compiled
def _volume_mm3(lesion, size, fields, step):
    """Volume of a lesion, by sampling the ball round it every `step` mm."""
    f = np.empty(12, np.float32)
    n = int(lesion[REACH] / step) + 1
    total = 0.0
    for k in range(-n, n + 1):
        for j in range(-n, n + 1):
            for i in range(-n, n + 1):
                if (i * i + j * j + k * k) * step * step > lesion[REACH] ** 2:
                    continue
                x, y, z = lesion[X] + i * step, lesion[Y] + j * step, lesion[Z] + k * step
                _sample(fields, x, y, z, f)
                total += _ramp(_blood(lesion, size, f, x, y, z), step)
    return total * step**3


def lesion_volume_ml(lesion: np.ndarray, fields: np.ndarray, step_mm: float) -> float:
    """Return the volume of a placed lesion in mL, sampled every `step_mm`."""
    return _volume_mm3(lesion, lesion[SIZE], fields, step_mm) / 1000.0


def place_lesion(
    rng: np.random.Generator, plan: LesionPlan, fields: np.ndarray, gravity: np.ndarray, side: float
) -> np.ndarray:
    """Place a lesion in a head so that it has the planned volume, or the most that its space holds.

    `fields`: float32 (z, y, x, 12). `gravity`: (3,) unit vector in head coordinates, down. `side`: +1 left, -1 right.
    Result: float64 (11,), columns as this module names them.
    """
    lesion = np.zeros(11)
    lesion[KIND], lesion[HU] = plan.kind, plan.hu
    radius = (3000.0 * plan.volume_ml / (4.0 * math.pi)) ** (1.0 / 3.0)  # of the ball of that volume, mm
    if plan.kind == EPIDURAL:
        surface, outward = _on_skull(rng, fields, side, low_z=22.0, high_z=62.0)
        ball = max(2.0 * radius, 16.0) * rng.uniform(1.0, 1.2)
        # The ball's centre lies outside; its growing radius pushes the dura inward.
        lesion[X : Z + 1] = surface + 0.75 * ball * outward
        lesion[REACH] = 0.75 * ball + 2.6 * radius + 4.0
    elif plan.kind == INTRAPARENCHYMAL:
        lesion[X : Z + 1] = _in_brain(rng, side, radius)
        shape = rng.uniform(0.8, 1.25, 3)
        lesion[A : C + 1] = shape / np.prod(shape) ** (1.0 / 3.0)
        lesion[REACH] = 1.9 * radius + 3.0
        lesion[OEDEMA] = 0.0 if radius < 3.0 else rng.uniform(3.0, 6.0)
    elif plan.kind == INTRAVENTRICULAR:
        lesion[X : Z + 1] = (0.0, 12.0, 18.0)
        lesion[A : C + 1] = gravity
        lesion[REACH] = 66.0
    elif plan.kind == SUBARACHNOID:
        basal = plan.volume_ml > 6.0 or rng.random() < 0.35
        if basal:
            lesion[X : Z + 1] = (side * rng.uniform(8.0, 26.0), rng.uniform(-14.0, -4.0), rng.uniform(6.0, 14.0))
        else:
            surface, outward = _on_skull(rng, fields, side, low_z=30.0, high_z=78.0)
            lesion[X : Z + 1] = surface - 5.0 * outward
        lesion[A], lesion[B], lesion[C] = rng.uniform(1.2, 1.7), rng.uniform(10.0, 15.0), rng.uniform(1.2, 1.8)
        lesion[REACH] = min(14.0 + 4.2 * radius, 75.0)
    else:
        along_falx = rng.random() < 0.25
        if along_falx:
            lesion[X : Z + 1] = (0.0, rng.uniform(-20.0, 25.0), rng.uniform(58.0, 68.0))
            lesion[C] = side
            lesion[REACH] = 52.0
        else:
            surface, _ = _on_skull(rng, fields, side, low_z=35.0, high_z=62.0)
            lesion[X : Z + 1] = surface
            lesion[A] = min(18.0 + 1.9 * radius + rng.uniform(0.0, 10.0), 76.0)
            lesion[B] = side
            lesion[REACH] = lesion[A]
    lesion[SIZE] = _size_for(lesion, plan.volume_ml, fields)
    return lesion


def _size_for(lesion: np.ndarray, volume_ml: float, fields: np.ndarray) -> float:
    """Return the size that gives the lesion its volume, by halving the interval of sizes."""
    step = float(np.clip(lesion[REACH] / 20.0, 0.1, 2.4))
    low, high = 0.0, MAX_SIZE_MM
    for _ in range(VOLUME_STEPS):
        middle = 0.5 * (low + high)
        if _volume_mm3(lesion, middle, fields, step) < 1000.0 * volume_ml:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _on_skull(
    rng: np.random.Generator, fields: np.ndarray, side: float, low_z: float, high_z: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a point (3,) on the inner table of one side of the dome, and the outward direction there (3,)."""
    start = np.array([side * 8.0, 0.0, rng.uniform(low_z, high_z)])
    azimuth = rng.uniform(-0.28, 0.30) * np.pi
    outward = np.array([side * math.cos(azimuth), math.sin(azimuth), 0.0])
    f = np.empty(12, np.float32)
    point = start
    for _ in range(200):  # at most 100 mm: no cavity is wider
        _sample(fields, *point, f)
        if f[CAVITY] <= 0.0:
            break
        point = point + 0.5 * outward
    return point, outward


def _in_brain(rng: np.random.Generator, side: float, radius: float) -> np.ndarray:
    """Return a centre (3,) for bleeding into the brain: basal ganglia, lobes, or cerebellum."""
    place = rng.random()
    if place < 0.45 and radius < 20.0:
        centre = np.array([side * 26.0, -2.0, 19.0])
    elif place < 0.9 or radius > 14.0:
        centre = np.array([side * 36.0, rng.uniform(-40.0, 48.0), rng.uniform(38.0, 58.0)])
        centre[0] *= 1.0 - 0.25 * abs(centre[1]) / 50.0
    else:
        centre = np.array([side * 20.0, 48.0, -14.0])
    return centre + rng.normal(0.0, 3.0, 3)
