"""Solid shapes as signed distances in mm, positive inside; compiled, called for every node of a head's grid."""

import math

from numba import njit

compiled = njit(cache=True, error_model="numpy", fastmath=True)
"""How every kernel of the phantom is compiled: no number here is infinite or missing, so sums may be
reordered."""


@compiled
def _ellipsoid(x, y, z, cx, cy, cz, rx, ry, rz):
    """Distance to an ellipsoid's surface, exact on the surface and of the right sign everywhere (I. Quilez's bound)."""
    ux, uy, uz = (x - cx) / rx, (y - cy) / ry, (z - cz) / rz
    k0 = math.sqrt(ux * ux + uy * uy + uz * uz)
    k1 = math.sqrt((ux / rx) ** 2 + (uy / ry) ** 2 + (uz / rz) ** 2)
    if k1 < 1e-9:
        return min(rx, ry, rz)
    return k0 * (1.0 - k0) / k1


@compiled
def _capsule(x, y, z, ax, ay, az, bx, by, bz, ra, rb):
    """Distance to a tapered tube from point a (radius ra) to point b (radius rb)."""
    px, py, pz = x - ax, y - ay, z - az
    qx, qy, qz = bx - ax, by - ay, bz - az
    h = (px * qx + py * qy + pz * qz) / (qx * qx + qy * qy + qz * qz)
    h = min(max(h, 0.0), 1.0)
    dx, dy, dz = px - qx * h, py - qy * h, pz - qz * h
    return ra + (rb - ra) * h - math.sqrt(dx * dx + dy * dy + dz * dz)


@compiled
def _union(a, b, k):
    """Union of two solids whose seam is rounded over k mm."""
    h = max(k - abs(a - b), 0.0) / k
    return max(a, b) + h * h * k * 0.25


@compiled
def _ramp(distance, width):
    """Share of a sampling aperture of `width` mm that lies inside, from the signed distance of its centre."""
    return min(max(0.5 + distance / width, 0.0), 1.0)
