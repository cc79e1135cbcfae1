"""Resampling a slice in its plane: Hounsfield units and masks in one geometry, and HU as a 16-bit image holds them."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

from pipeline.core.hounsfield import PADDING_HU

HU_OFFSET = 32768
"""What a 16-bit image's values lie above Hounsfield units."""

SIGN_BIT = np.uint16(HU_OFFSET)
"""Turned over in the two's complement of int16, it adds HU_OFFSET; turned over again, it takes it away."""


def resample_hu(hu: np.ndarray, row_mm: float, column_mm: float, pixel_mm: float, size: int) -> np.ndarray:
    """Return the int16 image (size, size) of one slice, in HU.

    `hu` is (rows, columns), int16 or float32, in HU; its rows lie row_mm apart, its columns column_mm. With pixel_mm
    above 0 the image's pixels are pixel_mm x pixel_mm, and its centre is the slice's: what lies beyond `size` pixels
    is cut off, pixels whose centre is outside the slice are air, PADDING_HU. With pixel_mm == 0 the whole slice is
    resized, square or not, whatever its spacing; a slice that has the size already stays as it is. Interpolation is
    cv2's INTER_LINEAR: pixel centres at half a pixel, edges repeated up to the slice's border, no smoothing beforehand.
    Results are rounded half up to whole HU; values that int16 does not hold count as its least or greatest.

    Grewal et al. 2018, section 2.2.1: 1 mm, 250 pixels. There slices went through the window first: a window of this
    image differs where interpolation has mixed values from beyond the window's edges.

    Raises ValueError for an array that is not two-dimensional or empty, a size below 1, a pixel_mm below 0, or, where
    it is above 0, for a spacing that is not.
    """
    down, across = _axes(hu, row_mm, column_mm, pixel_mm, size)
    image = np.full((size, size), PADDING_HU, dtype=np.int16)
    starts = down.start, across.start
    _interpolate(np.ascontiguousarray(hu), *starts, *down.taps, *across.taps, image)
    return image


def resample_mask(mask: np.ndarray, row_mm: float, column_mm: float, pixel_mm: float, size: int) -> np.ndarray:
    """Return the mask (size, size) of one slice: each pixel as the nearest one of `mask` (rows, columns) is.

    The geometry is that of `resample_hu`, which see for the arguments and what is raised; of two pixels that are
    equally near, the one further down or right is taken. Outside the slice it is 0.
    """
    down, across = _axes(mask, row_mm, column_mm, pixel_mm, size)
    image = np.zeros((size, size), dtype=mask.dtype)
    inside = tuple(slice(axis.start, axis.start + len(axis.nearest)) for axis in (down, across))
    image[inside] = mask[np.ix_(down.nearest, across.nearest)]
    return image


def stored_hu(hu: np.ndarray) -> np.ndarray:
    """Return int16 HU as a 16-bit image holds them: uint16, HU + HU_OFFSET, of the same shape."""
    return hu.view(np.uint16) ^ SIGN_BIT


def hu_of_stored(stored: np.ndarray) -> np.ndarray:
    """Return the int16 HU that a 16-bit image (uint16, any shape) holds: what `stored_hu` was given."""
    return (stored ^ SIGN_BIT).view(np.int16)


class _Axis(NamedTuple):
    """Where an image's rows, or columns, lie in the slice. Only those inside the slice are told of, (inside,) each."""

    start: int
    """The first one inside."""
    taps: tuple[np.ndarray, np.ndarray, np.ndarray]
    """The slice's two rows between which each lies, uint32, and the weight of the second, float64."""
    nearest: np.ndarray
    """The slice's row that each lies in."""


def _axes(pixels: np.ndarray, row_mm: float, column_mm: float, pixel_mm: float, size: int) -> tuple[_Axis, _Axis]:
    if pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"a slice is rows x columns, got shape {pixels.shape}")
    if size < 1 or not 0 <= pixel_mm < math.inf:
        raise ValueError(f"size {size} must be above 0 px, and pixel_mm {pixel_mm:g} not below 0 mm")
    if pixel_mm and not (0 < row_mm < math.inf and 0 < column_mm < math.inf):
        raise ValueError(f"rows {row_mm:g} mm and columns {column_mm:g} mm apart must be above 0 to be resampled")
    rows, columns = pixels.shape
    if pixel_mm:
        return _axis(rows, pixel_mm, row_mm, size), _axis(columns, pixel_mm, column_mm, size)
    return _axis(rows, rows, size, size), _axis(columns, columns, size, size)


@lru_cache(maxsize=64)
def _axis(count: int, pixel: float, spacing: float, size: int) -> _Axis:
    """Return where `size` pixels lie among `count` of the slice, which are so large; their centres are the same."""
    # Divided last, so that centres that lie halfway between two pixels do so exactly.
    place = ((2 * np.arange(size) + 1 - size) * pixel / spacing + count - 1) / 2
    # A centre on the very border is inside, at both ends: a mirrored slice has the mirrored image.
    inside = np.flatnonzero((place >= -0.5) & (place <= count - 0.5))
    start = int(inside[0]) if len(inside) else 0
    nearest = np.clip(np.floor(place[inside] + 0.5), 0, count - 1).astype(np.intp)
    place = np.clip(place[inside], 0, count - 1)
    first = np.floor(place)
    # Unsigned, so that the kernel need not look for indices that count from the end.
    taps = first.astype(np.uint32), np.minimum(first + 1, count - 1).astype(np.uint32), place - first
    return _Axis(start, taps, nearest)


# In float64, where all that int16 holds is exact, and so is the mean of two. No value is ever NaN, see windows.py; sums
# and products stay apart, so that every machine rounds alike.
@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _interpolate(hu, y_start, x_start, top, bottom, down, left, right, across, image):
    # Row by row, so that one interpolated row stays in the nearest cache.
    columns = hu.shape[1]
    row = np.empty(columns, np.float64)
    least, most = np.float64(-32768.0), np.float64(32767.0)
    for y in range(len(top)):
        upper, lower = hu[top[y]], hu[bottom[y]]
        weight = down[y]
        for x in range(columns):
            a = min(max(np.float64(upper[x]), least), most)
            b = min(max(np.float64(lower[x]), least), most)
            row[x] = a + (b - a) * weight
        for x in range(len(left)):
            first = row[left[x]]
            value = first + (row[right[x]] - first) * across[x]
            image[y_start + y, x_start + x] = np.int16(np.floor(value + 0.5))
