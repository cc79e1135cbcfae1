"""The head as twelve smooth fields on a coarse grid: what is where, in signed distances.

Everything sharp in the pictures is the zero level of a smooth field, so a grid of 2.5 mm draws edges of 0.5 mm, and a
voxel costs one interpolation. Head coordinates: x to the patient's left, y to the back, z to the top, mm; the origin
lies at the sella. Shapes are written for a nominal adult head and scaled to the person.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.core.phantom.head import Head
from pipeline.core.phantom.shapes import _capsule, _ellipsoid, _ramp, _union, compiled
from pipeline.core.phantom.texture import PERIOD_NODES, TEXTURE_STEP_MM, band_noise

GRID_STEP_MM = 2.5
GRID_ORIGIN_MM = (-105.0, -125.0, -90.0)
GRID_NODES = (85, 97, 84)
"""Nodes along x, y, z."""

SKIN, CAVITY, BONE, AIR, ORBIT, FOLD, VENTRICLE, DEEP, CISTERN, MIDLINE, TENTORIUM, LUMP = range(12)
"""Columns of the fields. All are distances in mm, positive inside, but for FOLD (distance to the nearest sheet of a
sulcus, signed), MIDLINE (signed distance from the falx, left positive), TENTORIUM (positive below it) and LUMP (a
random field of unit standard deviation)."""

SULCUS_WAVELENGTH_MM = 25.0
"""Two sulci to a wave: gyri come out about 10 mm wide, as in life."""

LUMP_WAVELENGTH_MM = 30.0

FAR_MM = -20.0
"""Stands for the distance to what is nowhere near."""

BRAINSTEM_OFFSET = 30.0
"""More than the brainstem is wide, mm."""

HAEMATOMA_HEIGHT = 0.34
"""How far a scalp haematoma lifts the skin, relative to its radius."""

CAVITY_CENTRE_MM = (0.0, 0.0, 20.0)
"""The middle of the cavity's dome; sulci run towards it."""


class Shift(NamedTuple):
    """Mass effect: the midline is pushed by `push_mm` (towards the patient's right where positive) around a centre."""

    push_mm: float
    y: float
    z: float


SHIFT_REACH_MM = 32.0
"""Standard deviation of the push in y and z."""


def build_fields(rng: np.random.Generator, head: Head, shift: Shift) -> np.ndarray:
    """Return the fields of a head: float32 (z, y, x, 12), in the grid of this module."""
    folds = band_noise(rng, SULCUS_WAVELENGTH_MM)
    lumps = band_noise(rng, LUMP_WAVELENGTH_MM, bandwidth=0.5)
    nx, ny, nz = GRID_NODES
    fields = np.zeros((nz, ny, nx, 12), dtype=np.float32)
    _fill(fields, np.array(GRID_ORIGIN_MM), GRID_STEP_MM, head, shift, folds, lumps)
    fold = np.ascontiguousarray(fields[..., FOLD])
    slope = np.sqrt(sum(axis**2 for axis in np.gradient(fold, GRID_STEP_MM)))
    # Far from a sheet the slope may vanish; there the exact distance does not matter.
    fields[..., FOLD] = fold / np.maximum(slope, 0.35 * slope.mean())
    return fields


@compiled
def _periodic(cube, x, y, z):
    """Interpolate a periodic texture at a point given in mm."""
    u, v, w = x / TEXTURE_STEP_MM, y / TEXTURE_STEP_MM, z / TEXTURE_STEP_MM
    i, j, k = math.floor(u), math.floor(v), math.floor(w)
    a, b, c = u - i, v - j, w - k
    mask = PERIOD_NODES - 1
    i0, j0, k0 = int(i) & mask, int(j) & mask, int(k) & mask
    i1, j1, k1 = (i0 + 1) & mask, (j0 + 1) & mask, (k0 + 1) & mask
    low = (cube[k0, j0, i0] * (1 - a) + cube[k0, j0, i1] * a) * (1 - b) + (
        cube[k0, j1, i0] * (1 - a) + cube[k0, j1, i1] * a
    ) * b
    high = (cube[k1, j0, i0] * (1 - a) + cube[k1, j0, i1] * a) * (1 - b) + (
        cube[k1, j1, i0] * (1 - a) + cube[k1, j1, i1] * a
    ) * b
    return low * (1 - c) + high * c


@compiled
def _cavity(x, y, z, flatness):
    """The inside of the skull: dome, frontal, temporal and posterior fossae, foramen magnum."""
    # Narrower in front and lop-sided behind; the temples bulge.
    width = 68.0 + 0.05 * y - 0.0004 * y * y
    length = 83.0 + flatness * x / 70.0 * (1.0 if y > 0 else 0.3)
    dome = _ellipsoid(x, y, z, 0.0, 0.0, 20.0, max(width, 45.0) * 0.99, length, 71.0)
    ax = abs(x)
    # The roofs of the orbits rise on both sides of the cribriform plate; the floor climbs towards the forehead.
    floor = z - -4.0 - 10.0 * math.exp(-(((ax - 30.0) / 15.0) ** 2)) - 0.10 * max(-y - 30.0, 0.0)
    dome = min(dome, 0.9 * floor)
    temporal = _ellipsoid(ax, y, z, 40.0, -14.0, 4.0, 25.0, 32.0, 24.0)
    posterior = _ellipsoid(x, y, z, 0.0, 39.0, -10.0, 53.0, 41.0, 36.0)
    brainstem = _ellipsoid(x, y, z, 0.0, 12.0, -8.0, 17.0, 20.0, 30.0)
    canal = min(_capsule(x, y, z, 0.0, 25.0, -35.0, 0.0, 32.0, -150.0, 15.0, 10.0), -20.0 - z)
    return _union(_union(_union(dome, temporal, 4.0), posterior, 5.0), _union(brainstem, canal, 8.0), 5.0)


@compiled
def _face_bone(ax, y, z):
    """Bone outside the skull's own shell: petrous pyramids, clivus, orbits, cheeks, jaw, neck."""
    bone = _capsule(ax, y, z, 58.0, 26.0, -14.0, 13.0, 4.0, -8.0, 10.0, 5.5)
    bone = _union(bone, _capsule(ax, y, z, 58.0, 32.0, -20.0, 56.0, 26.0, -40.0, 11.0, 6.0), 3.0)  # mastoid
    bone = _union(bone, _capsule(ax, y, z, 0.0, 2.0, -4.0, 0.0, 14.0, -36.0, 8.0, 6.0), 3.0)  # clivus
    bone = _union(bone, _capsule(ax, y, z, 12.0, -24.0, 3.0, 48.0, -34.0, 12.0, 3.5, 4.5), 3.0)  # sphenoid wing
    orbit = _ellipsoid(ax, y, z, 28.0, -58.0, -10.0, 19.5, 33.0, 20.0)
    wall = min(orbit + 1.8, -(orbit - 1.2))
    wall = min(wall, y + 80.0)
    bone = _union(bone, wall, 2.0)
    cheek = _capsule(ax, y, z, 46.0, -72.0, -26.0, 62.0, -22.0, -26.0, 4.5, 2.6)
    antrum = _ellipsoid(ax, y, z, 26.0, -60.0, -48.0, 17.5, 22.0, 19.0)
    bone = _union(bone, _union(cheek, min(antrum + 1.6, -(antrum - 0.8)), 1.0), 1.0)
    nose = _capsule(ax, y, z, 0.0, -85.0, -5.0, 0.0, -98.0, -22.0, 3.6, 2.0)
    septum = min(0.9 - ax, _ellipsoid(ax, y, z, 0.0, -60.0, -40.0, 20.0, 32.0, 40.0), -14.0 - z)
    bone = max(bone, nose, septum)
    jaw = _capsule(ax, y, z, 51.0, -4.0, -24.0, 46.0, -22.0, -88.0, 5.0, 5.0)
    ring = _ellipsoid(ax, y, z, 0.0, 29.0, -62.0, 30.0, 27.0, 11.0)
    ring = min(ring, -_ellipsoid(ax, y, z, 0.0, 29.0, -62.0, 17.0, 16.0, 80.0))
    return max(bone, jaw, ring)


@compiled
def _sinuses(ax, y, z, cells, frontal):
    """Air: nose, ethmoid, sphenoid, maxillary and frontal sinuses, mastoid cells, ear canals, throat."""
    air = _ellipsoid(ax, y, z, 0.0, -58.0, -20.0, 9.5, 26.0, 12.0)
    air = max(air, _ellipsoid(ax, y, z, 6.0, -62.0, -42.0, 6.5, 30.0, 20.0))
    air = max(air, _ellipsoid(ax, y, z, 7.0, -16.0, -12.0, 7.0, 12.0, 8.0))
    air = max(air, _ellipsoid(ax, y, z, 26.0, -60.0, -48.0, 15.5, 20.0, 17.0))
    if frontal > 0.55:
        air = max(air, _ellipsoid(ax, y, z, 10.0, -87.0, 10.0, 12.0 * frontal, 3.6, 13.0 * frontal))
    air = max(air, _ellipsoid(ax, y, z, 57.0, 30.0, -18.0, 8.0 * cells, 12.0 * cells, 14.0 * cells))
    air = max(air, _capsule(ax, y, z, 52.0, 12.0, -16.0, 90.0, 14.0, -18.0, 3.0, 3.6))
    return max(air, _capsule(ax, y, z, 0.0, -12.0, -45.0, 0.0, -8.0, -120.0, 11.0, 9.0))


@compiled
def _ventricles(x, y, z, size, skew):
    """Lateral ventricles with frontal, occipital and temporal horns, third, aqueduct, fourth."""
    s = size * (1.0 + (skew if x > 0 else -skew))
    ax = abs(x)
    # The horns are flatter than tubes: measured across, x counts for more than it is.
    horn = _capsule(ax * 1.25, y, z, 17.0, -37.0, 21.0, 11.0, -14.0, 35.0, 4.6 * s, 6.2 * s)
    body = _capsule(ax * 1.25, y, z, 11.0, -14.0, 36.0, 20.0, 22.0, 38.0, 6.2 * s, 6.4 * s)
    atrium = _capsule(ax * 1.1, y, z, 20.0, 22.0, 37.0, 26.0, 34.0, 31.0, 6.2 * s, 8.0 * s)
    occipital = _capsule(ax, y, z, 24.0, 34.0, 30.0, 25.0, 57.0, 25.0, 7.0 * s, 3.0 * s)
    temporal = _capsule(ax, y, z, 25.0, 32.0, 27.0, 33.0, 10.0, 5.0, 5.0 * s, 2.4 * s)
    tip = _capsule(ax, y, z, 33.0, 10.0, 5.0, 31.0, -8.0, 0.0, 2.4 * s, 1.8 * s)
    lateral = _union(
        _union(_union(horn, body, 3.0), atrium, 4.0), _union(occipital, _union(temporal, tip, 1.0), 2.0), 3.0
    )
    lateral = min(lateral, ax - 1.2)  # the septum
    third = _ellipsoid(x, y, z, 0.0, 1.0, 15.0, 2.0 + 1.6 * s, 14.0, 10.0)
    aqueduct = _capsule(x, y, z, 0.0, 16.0, 10.0, 0.0, 27.0, -6.0, 1.2, 1.4)
    fourth = _ellipsoid(x, y, z, 0.0, 32.0, -15.0, 7.5 * s, 5.5 * s, 10.0)
    return max(lateral, third, aqueduct, fourth)


@compiled
def _deep_grey(ax, y, z):
    """Caudate, lentiform nucleus and thalamus."""
    caudate = _ellipsoid(ax, y, z, 15.5, -20.0, 25.0, 5.0, 11.0, 10.0)
    lentiform = _ellipsoid(ax - 0.20 * abs(y + 4.0), y, z, 23.0, -4.0, 18.0, 6.5, 18.0, 10.0)
    thalamus = _ellipsoid(ax, y, z, 11.0, 11.0, 20.0, 7.5, 13.0, 9.5)
    return max(caudate, lentiform, thalamus)


@compiled
def _cisterns(ax, y, z, c):
    """Fluid at the base: suprasellar, ambient, quadrigeminal, prepontine, cisterna magna; and the Sylvian fissures."""
    supra = _ellipsoid(ax, y, z, 0.0, -7.0, 4.0, 12.0 * c, 10.0 * c, 7.0)
    peduncles = _ellipsoid(ax, y, z, 0.0, 13.0, 5.0, 17.5, 14.5, 22.0)
    ring = min(2.6 * c - abs(peduncles), _ellipsoid(ax, y, z, 0.0, 13.0, 6.0, 26.0, 24.0, 12.0))
    quadrigeminal = _ellipsoid(ax, y, z, 0.0, 28.0, 12.0, 11.0, 3.4 * c, 7.0)
    prepontine = _ellipsoid(ax, y, z, 0.0, -2.0, -12.0, 11.0, 4.0 * c, 14.0)
    magna = _ellipsoid(ax, y, z, 0.0, 69.0, -30.0, 14.0 * c, 9.0 * c, 11.0)
    bent = ax + 0.008 * (y + 2.0) ** 2 + 1.3 * math.sin(0.38 * y + 0.1 * z)
    insula = _ellipsoid(bent, y, z, 42.0, -2.0, 17.0, 2.2 * c, 19.0, 13.0)
    stem = _ellipsoid(
        ax, y - 0.45 * (ax - 40.0) + 1.4 * math.sin(0.3 * ax + 0.12 * z), z, 49.0, -14.0, 14.0, 12.0, 2.6 * c, 15.0
    )
    base = max(supra, ring, quadrigeminal, prepontine)
    return max(base, magna, insula, stem)


@compiled
def _fill(fields, origin, step, head, shift, folds, lumps):  # noqa: PLR0915
    """Fill all nodes; one long loop, as the fields share what they are made of."""
    for k in range(fields.shape[0]):
        for j in range(fields.shape[1]):
            for i in range(fields.shape[2]):
                px, py, pz = origin[0] + i * step, origin[1] + j * step, origin[2] + k * step
                x, y, z = px / head.scale_x, py / head.scale_y, pz / head.scale_z
                ax = abs(x)
                node = fields[k, j, i]
                cavity = _cavity(x, y, z, head.flatness)
                lump = _periodic(lumps, px, py, pz)
                node[CAVITY], node[LUMP] = cavity, lump
                thickness = head.skull_mm * (1.0 + 0.05 * lump + 0.25 * max(y, 0.0) / 80.0 - 0.2 * ax / 70.0)
                thickness *= min(max((z + 75.0) / 30.0, 0.3), 1.0)  # thin round the neck's canal
                if z < 22.0 and y < -5.0:  # and at the roofs of the orbits
                    thickness *= 1.0 - 0.55 * min((22.0 - z) / 12.0, 1.0) * min((-5.0 - y) / 10.0, 1.0)
                thickness = max(thickness, 2.2)
                shell = cavity + thickness
                at_base = z < 35.0 and cavity < 8.0
                node[BONE] = _union(shell, _face_bone(ax, y, z), 2.0) if at_base else shell
                node[AIR] = _sinuses(ax, y, z, head.cells, head.frontal_sinus) if at_base else FAR_MM
                node[ORBIT] = _ellipsoid(ax, y, z, 28.0, -58.0, -10.0, 18.0, 32.0, 18.5) if at_base else FAR_MM
                scalp = head.scalp_mm * (1.0 + 0.08 * lump)
                if z < 40.0:  # temporal muscle and nape
                    side = min(max((40.0 - z) / 40.0, 0.0), 1.0)
                    scalp += side * (3.5 * math.exp(-(((y + 25.0) / 22.0) ** 2)) + 5.0 * max(y - 30.0, 0.0) / 50.0)
                skin = shell + scalp
                face = _ellipsoid(x, y, z, 0.0, -38.0, -45.0, 66.0, 58.0, 62.0)
                face = _union(face, _capsule(x, y, z, 0.0, -92.0, -6.0, 0.0, -104.0, -34.0, 7.0, 12.0), 6.0)
                neck = _capsule(x, y, z, 0.0, 32.0, -46.0, 0.0, 42.0, -160.0, 61.0, 58.0)
                skin = _union(_union(skin, face, 12.0), neck, 14.0)
                lids = _ellipsoid(ax, y, z, 31.0, -70.0, -10.0, 17.0, 17.5, 16.0)
                skin = _union(skin, lids, 6.0)
                ear = _ellipsoid(ax, y, z, 80.0, 18.0, -8.0, 7.0, 15.0, 26.0)
                skin = _union(skin, min(ear, -_ellipsoid(ax, y, z, 84.0, 12.0, -10.0, 5.5, 10.0, 16.0)), 2.0)
                if head.haematoma_mm > 0.0:
                    away2 = (x - head.haematoma_x) ** 2 + (y - head.haematoma_y) ** 2 + (z - head.haematoma_z) ** 2
                    skin += HAEMATOMA_HEIGHT * head.haematoma_mm * math.exp(-away2 / head.haematoma_mm**2)
                node[SKIN] = skin
                if cavity < -8.0:  # no brain here, nor within a cell of the grid
                    node[MIDLINE], node[VENTRICLE], node[DEEP] = x, FAR_MM, FAR_MM
                    node[CISTERN], node[TENTORIUM], node[FOLD] = FAR_MM, FAR_MM, 0.0
                    continue
                # Mass effect moves the brain, not the bone; it fades towards the sides.
                push = shift.push_mm * math.exp(
                    -((py - shift.y) ** 2 + (pz - shift.z) ** 2) / (2.0 * SHIFT_REACH_MM**2)
                )
                bx = x + push * max(1.0 - (x / 65.0) ** 2, 0.0)
                abx = abs(bx)
                # The brainstem has neither falx nor sulci: within it both are moved out of reach.
                stem = BRAINSTEM_OFFSET * _ramp(_ellipsoid(bx, y, z, 0.0, 13.0, -10.0, 16.5, 14.0, 36.0), 3.0)
                node[MIDLINE] = bx + 0.6 * lump + stem
                node[VENTRICLE] = _ventricles(bx, y, z, head.ventricle, head.ventricle_skew)
                node[DEEP] = _deep_grey(abx, y, z)
                node[CISTERN] = min(_cisterns(abx, y, z, head.cistern), cavity)
                tent = 30.0 - 0.42 * ax - 0.012 * (y - 25.0) ** 2 * (1.0 if y > 25.0 else 0.6) - z
                node[TENTORIUM] = min(tent, y - 24.0 + 0.2 * ax)
                # Sulci run inward: the texture is read at a point pulled towards a middle radius.
                qx, qy, qz = bx, py, pz - CAVITY_CENTRE_MM[2]
                radius = math.sqrt(qx * qx + qy * qy + qz * qz) + 1e-6
                pull = (60.0 / max(radius, 38.0)) ** 0.75
                mirror = 90.0 if bx > 0.0 else 0.0  # the two hemispheres are not copies of one field
                node[FOLD] = _periodic(folds, qx * pull + mirror, qy * pull, qz * pull) + stem
