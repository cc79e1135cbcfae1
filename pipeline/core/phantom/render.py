"""A slice of the head: HU and shares of blood, averaged over the slice's thickness."""

import math

import numpy as np

from pipeline.core.phantom.anatomy import (
    AIR,
    BONE,
    CAVITY,
    CISTERN,
    DEEP,
    FOLD,
    LUMP,
    MIDLINE,
    ORBIT,
    SKIN,
    TENTORIUM,
    VENTRICLE,
)
from pipeline.core.phantom.head import Head
from pipeline.core.phantom.hemorrhage import HU, KIND, OEDEMA, REACH, SIZE, X, _blood, _sample
from pipeline.core.phantom.masks import KINDS
from pipeline.core.phantom.shapes import _ramp, compiled

SUB_SLICES = 4
"""Samples through a slice's thickness: a quarter each, the least share that makes a label."""

BLOCK_PX = 8
"""Blocks of pixels whose centre lies far outside the skin are skipped."""

STRIDE_PX = 4
"""Fields are read at every fourth pixel of a row and run straight in between: closer than their own grid's nodes.
Divides BLOCK_PX."""

AIR_HU = -1000.0
FAT_HU = -85.0
MUSCLE_HU = 55.0
SKIN_HU = 25.0
CORTEX_HU = 1250.0
DIPLOE_HU = 520.0
SCALP_BLOOD_HU = 62.0
EDGE_MM = 0.8
"""Width over which an edge is drawn: about the resolution of a head scanner."""


def render_slice(
    fields: np.ndarray,
    head: Head,
    inclusions: np.ndarray,
    lesions: np.ndarray,
    frame: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    background: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice without noise: HU float32 (rows, columns) and shares of blood float32 (5, rows, columns).

    `fields`: (z, y, x, 12); `inclusions`: (n, 7); `lesions`: (m, 11); `frame`: first pixel, steps to the next column,
    row, and through the thickness, each (3,), mm in head coordinates; `background`: HU (rows, columns) where the head
    is not. Shares have no kinds, (0, rows, columns), where the scan has no lesions.
    """
    rows, columns = background.shape
    hu = background.astype(np.float32)
    shares = np.zeros((KINDS, rows, columns) if len(lesions) else (0, rows, columns), dtype=np.float32)
    _render(fields, head, inclusions, lesions, *frame, hu, shares)
    return hu, shares


@compiled
def _mix(a, b, share):
    return a + (b - a) * share


@compiled
def _brain(f, head):
    """HU at a point inside the skull."""
    cavity, lump = f[CAVITY], f[LUMP]
    fluid = head.fluid_hu
    rim = head.rim_mm * (1.0 + 0.4 * lump)
    depth = cavity - rim
    if f[TENTORIUM] < 0.0:
        reach = head.sulcus_depth_mm * (1.0 + 0.25 * lump)
        taper = depth / reach
        sheet = abs(f[FOLD])
        width = head.sulcus_mm * (1.0 - taper * taper)
        sulcus = sheet - width if taper < 1.0 else sheet + 6.0 * (taper - 1.0) * reach * 0.2
        fissure = abs(f[MIDLINE]) - 0.5 - 0.6 * head.rim_mm if cavity < 24.0 else 99.0
        surface = min(depth, sulcus, fissure, -f[CISTERN])
        grey = max(1.0 - _ramp(surface - 3.8, 1.6), 0.9 * _ramp(f[DEEP], 2.0))
        hu = _mix(head.white_hu, head.grey_hu, grey) + 0.5 * lump
    else:
        # Folia: thin shells that follow the surface, too fine to be seen as more than a grain.
        folia = math.sin(cavity * 1.6 + 0.8 * f[FOLD])
        surface = min(depth, -f[CISTERN])
        hu = _mix(head.white_hu + 3.0, head.grey_hu - 1.0, 0.65 + 0.25 * folia)
    if head.lucency_hu > 0.0 and f[VENTRICLE] > -16.0:
        hu -= head.lucency_hu * math.exp(min(f[VENTRICLE], 0.0) * 0.18)
    wet = max(_ramp(-surface, 1.0), _ramp(f[VENTRICLE], EDGE_MM))
    hu = _mix(hu, fluid, wet)
    return hu


@compiled
def _membranes(hu, f, head, y, z):
    """Falx, tentorium and the great sinuses over what else is there."""
    cavity, side, tent = f[CAVITY], abs(f[MIDLINE]), abs(f[TENTORIUM])
    if side > 6.0 and tent > 4.5:
        return hu
    above = ((y - 2.0) / 62.0) ** 2 + ((z - 20.0) / 48.0) ** 2
    if f[TENTORIUM] < 0.5 and z > 5.0 and above > 1.0:
        hu = _mix(hu, head.falx_hu, _ramp(0.55 - side, EDGE_MM) * (0.75 + 0.25 * min(max(f[LUMP], -1.0), 1.0)))
        sinus = 4.5 - 0.8 * cavity - side
        hu = _mix(hu, head.sinus_hu, _ramp(min(sinus, 5.5 - cavity), 1.0))
    if cavity < 30.0:
        hu = _mix(hu, head.sinus_hu - 4.0, 0.8 * _ramp(0.6 - tent, EDGE_MM))
    if y > 35.0 and cavity < 6.0:
        hu = _mix(hu, head.sinus_hu, _ramp(min(3.5 - tent, 5.0 - cavity), 1.0))
    return hu


@compiled
def _shell(f, head, x, y, z):
    """HU at a point of the head outside the brain: scalp, face, neck, bone and air."""
    skin, cavity, bone, lump = f[SKIN], f[CAVITY], f[BONE], f[LUMP]
    if cavity > -26.0 and z > -12.0:  # scalp
        muscle = _ramp(3.0 + (18.0 - z) * 0.12 - abs(-cavity - head.skull_mm - 3.0), 1.5) if z < 42.0 else 0.0
        muscle *= _ramp(-abs(y + 18.0) + 34.0, 8.0) if y < 30.0 else 1.0
        hu = _mix(FAT_HU, MUSCLE_HU, max(muscle, 0.75 * _ramp(bone + 1.3, 1.0)))
    else:
        planes = math.sin(0.15 * x + 2.2 * lump) + math.sin(0.19 * y - 1.7 * lump + 0.1 * z)
        hu = _mix(MUSCLE_HU, FAT_HU, 0.8 * _ramp(0.16 + 0.1 * lump - abs(planes), 0.25))
        hu = _mix(hu, FAT_HU, _ramp(6.0 + 1.5 * lump - skin, 2.0))
    hu = _mix(hu, SKIN_HU, _ramp(1.5 - skin, EDGE_MM))
    if head.haematoma_mm > 0.0:
        dx = x / head.scale_x - head.haematoma_x
        dy = y / head.scale_y - head.haematoma_y
        dz = z / head.scale_z - head.haematoma_z
        swelling = 0.95 * head.haematoma_mm - math.sqrt(dx * dx + dy * dy + dz * dz)
        hu = _mix(hu, SCALP_BLOOD_HU, _ramp(min(swelling, skin - 2.5), 1.5))
    hu = _mix(hu, FAT_HU, _ramp(f[ORBIT], EDGE_MM))
    core = min(bone, -cavity) - head.table_mm * (0.75 if z > -5.0 else 0.55)
    hardness = _mix(CORTEX_HU, DIPLOE_HU + 140.0 * lump, _ramp(core, 1.2))
    hu = _mix(hu, hardness, _ramp(bone, EDGE_MM))
    if f[AIR] > -1.0:
        walls = 1.0
        ax = abs(x)
        if ax > 44.0 and z > -34.0 and ax < 70.0:  # mastoid cells
            walls = _ramp(math.sin(1.3 * x + lump) + math.sin(1.25 * y + 0.8 * x) + math.sin(1.4 * z) + 0.4, 0.8)
        elif ax < 13.0 and -30.0 < z < 2.0 and y < -28.0:  # ethmoid cells
            walls = _ramp(abs(math.sin(0.42 * x)) + abs(math.sin(0.33 * y + 0.05 * x)) - 0.45, 0.4)
        hu = _mix(hu, AIR_HU + 20.0, _ramp(f[AIR], EDGE_MM) * walls)
    return hu


@compiled
def _reachable(table, count, first, radius_column, p, direction, step, columns, found, low, high):
    """List the rows of a table of balls that a line of pixels meets, with the columns of pixels where it does.

    `first`: column of the centre's x. Returns how many were found.
    """
    n = 0
    for index in range(count):
        dx, dy, dz = table[index, first] - p[0], table[index, first + 1] - p[1], table[index, first + 2] - p[2]
        along = dx * direction[0] + dy * direction[1] + dz * direction[2]
        off2 = dx * dx + dy * dy + dz * dz - along * along
        radius = table[index, radius_column] + 1.0
        if radius_column != REACH:
            radius = max(radius, table[index, radius_column + 1] + 1.0, table[index, radius_column + 2] + 1.0)
        if off2 < radius * radius:
            half = math.sqrt(radius * radius - off2)
            a, b = int((along - half) / step), int((along + half) / step) + 1
            if b >= 0 and a < columns:
                found[n], low[n], high[n] = index, max(a, 0), min(b, columns - 1)
                n += 1
    return n


@compiled
def _render(fields, head, inclusions, lesions, first, to_column, to_row, through, hu, shares):  # noqa: PLR0912, PLR0915
    """Fill hu and shares; one long loop, because a call with arrays per voxel would cost more than the voxel."""
    rows, columns = hu.shape
    f, ahead, slope = np.empty(12, np.float32), np.empty(12, np.float32), np.empty(12, np.float32)
    p = np.empty(3)
    step = math.sqrt((to_column**2).sum())
    direction = to_column / step
    kept = np.zeros((rows // BLOCK_PX + 1, columns // BLOCK_PX + 1), np.bool_)
    margin = 0.75 * BLOCK_PX * step + 0.5 * math.sqrt((through**2).sum()) + 3.0
    for br in range(kept.shape[0]):
        for bc in range(kept.shape[1]):
            q = first + to_row * ((br + 0.5) * BLOCK_PX) + to_column * ((bc + 0.5) * BLOCK_PX)
            _sample(fields, q[0], q[1], q[2], f)
            kept[br, bc] = f[SKIN] > -margin
    n_in, n_le = len(inclusions), len(lesions)
    in_found, in_low, in_high = np.empty(n_in, np.int64), np.empty(n_in, np.int64), np.empty(n_in, np.int64)
    le_found, le_low, le_high = np.empty(n_le, np.int64), np.empty(n_le, np.int64), np.empty(n_le, np.int64)
    total = np.zeros(columns, np.float32)
    covered = np.zeros(columns, np.float32)
    weight = np.float32(1.0 / SUB_SLICES)
    for r in range(rows):
        total[:] = 0.0
        covered[:] = 0.0
        for s in range(SUB_SLICES):
            offset = (s + 0.5) / SUB_SLICES - 0.5
            for axis in range(3):
                p[axis] = first[axis] + r * to_row[axis] + offset * through[axis]
            count_in = _reachable(inclusions, n_in, 0, 3, p, direction, step, columns, in_found, in_low, in_high)
            count_le = _reachable(lesions, n_le, X, REACH, p, direction, step, columns, le_found, le_low, le_high)
            sampled = -1  # the column that `ahead` was read at
            for c in range(columns):
                if not kept[r // BLOCK_PX, c // BLOCK_PX]:
                    continue
                x, y, z = p[0] + c * to_column[0], p[1] + c * to_column[1], p[2] + c * to_column[2]
                if c % STRIDE_PX == 0:
                    if sampled == c:
                        f[:] = ahead
                    else:
                        _sample(fields, x, y, z, f)
                    sampled = c + STRIDE_PX
                    nx, ny, nz = (
                        x + STRIDE_PX * to_column[0],
                        y + STRIDE_PX * to_column[1],
                        z + STRIDE_PX * to_column[2],
                    )
                    _sample(fields, nx, ny, nz, ahead)
                    for n in range(12):
                        slope[n] = (ahead[n] - f[n]) * np.float32(1.0 / STRIDE_PX)
                else:
                    for n in range(12):
                        f[n] += slope[n]
                cover = _ramp(f[SKIN], EDGE_MM)
                if cover <= 0.0:
                    continue
                inside = _ramp(f[CAVITY], EDGE_MM)
                value = 0.0
                if inside < 1.0:
                    value = _shell(f, head, x, y, z)
                if inside > 0.0:
                    value = _mix(value, _membranes(_brain(f, head), f, head, y, z), inside)
                for n in range(count_in):
                    if in_low[n] <= c <= in_high[n]:
                        item = inclusions[in_found[n]]
                        dx, dy, dz = (x - item[0]) / item[3], (y - item[1]) / item[4], (z - item[2]) / item[5]
                        near = (1.0 - math.sqrt(dx * dx + dy * dy + dz * dz)) * min(item[3], item[4], item[5])
                        value = _mix(value, item[6], _ramp(near, EDGE_MM))
                for n in range(count_le):
                    if le_low[n] <= c <= le_high[n] and inside > 0.0:
                        lesion = lesions[le_found[n]]
                        deep = _blood(lesion, lesion[SIZE], f, x, y, z)
                        if lesion[OEDEMA] > 0.0 and deep > -lesion[OEDEMA] - 2.0:
                            value -= 11.0 * _ramp(deep + lesion[OEDEMA], 4.0) * _ramp(-f[VENTRICLE], EDGE_MM)
                        share = _ramp(deep, EDGE_MM)
                        if share > 0.0:
                            value = _mix(value, lesion[HU] + 2.5 * f[LUMP], share)
                            # Of two lesions of one kind in a voxel, each fills its own part of it.
                            kind = int(lesion[KIND])
                            shares[kind, r, c] = min(shares[kind, r, c] + weight * np.float32(share), np.float32(1.0))
                total[c] += weight * np.float32(value * cover)
                covered[c] += weight * np.float32(cover)
        for c in range(columns):
            if covered[c] > 0.0:
                hu[r, c] = hu[r, c] * (np.float32(1.0) - covered[c]) + total[c]
