"""Display windows and resizing: Hounsfield units in, an 8-bit image with one channel a window out."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

GREY_MAX = 255.0

INT16 = np.iinfo(np.int16)

WIDEST_EXACT = 2048
"""HU; the widest window for which `_window_and_halve` rounds ties up in float32 (see there)."""


def window_image(hu: np.ndarray, windows: Sequence[tuple[float, float]], size: int) -> np.ndarray:
    """Return the uint8 image (size, size, windows) of one slice.

    `hu` is (rows, columns), int16 or float32, in HU; each window is (centre, width) in HU. A window clips to
    [centre - width/2, centre + width/2] and maps linearly to 0..255 (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT); the
    windowed image is then resized, and rounded half up. That order is Burduja et al. 2020's, section 3.1; the other
    one differs by up to 98 grey levels at edges. Resizing is cv2's INTER_LINEAR: pixel centres at half a pixel, edges
    repeated, no smoothing beforehand. A slice that is not square is made square, as the paper's code would do.
    Where int16 HU are halved (512 x 512 to 256 x 256) in windows with whole edges, every tie is rounded up; elsewhere
    float32 may have lost the tie, and the grey level is the one below.

    Raises ValueError for an array that is not two-dimensional or empty, a window without width, or a size below 1.
    """
    if hu.ndim != 2 or hu.size == 0:
        raise ValueError(f"a slice is rows x columns, got shape {hu.shape}")
    if size < 1 or any(width <= 0 for _, width in windows):
        raise ValueError(f"size {size} and the widths of windows {tuple(windows)} must be above 0")
    image = np.empty((size, size, len(windows)), dtype=np.uint8)
    scales = _scales(tuple(map(tuple, windows)))
    hu = np.ascontiguousarray(hu)
    if scales.whole_edges and hu.dtype == np.int16 and hu.shape == (2 * size, 2 * size):
        _window_and_halve(hu, *scales.whole_edges, image)
    else:
        _window_and_resize(hu, scales.lows, scales.gains, *_taps(hu.shape[0], size), *_taps(hu.shape[1], size), image)
    return image


class _Scales(NamedTuple):
    """What the kernels want to know of windows, an element each."""

    lows: np.ndarray
    """Lower edges, HU, float32."""
    gains: np.ndarray
    """Grey levels a HU, float32."""
    whole_edges: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    """Lower and upper edges, HU, int16, and grey levels a HU of the sum of four; None where they are not whole, do not
    fit, or lie farther apart than WIDEST_EXACT."""


@lru_cache(maxsize=16)
def _scales(windows: tuple[tuple[float, float], ...]) -> _Scales:
    centres, widths = np.array(windows, dtype=np.float64).reshape(len(windows), 2).T
    lows, highs = centres - widths / 2, centres + widths / 2
    gains = (GREY_MAX / widths).astype(np.float32)
    is_whole = (lows == np.floor(lows)) & (highs == np.floor(highs)) & (widths <= WIDEST_EXACT)
    whole_edges = None
    if (is_whole & (lows >= INT16.min) & (highs <= INT16.max)).all():
        whole_edges = lows.astype(np.int16), highs.astype(np.int16), gains / 4
    return _Scales(lows.astype(np.float32), gains, whole_edges)


@lru_cache(maxsize=64)
def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each target pixel its two source pixels and the weight of the second."""
    centre = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(centre)
    weight = np.where((first < 0) | (first >= source - 1), 0.0, centre - first)
    # Unsigned, so that the kernel need not look for indices that count from the end: a fifth of its time.
    first = np.clip(first, 0, source - 1).astype(np.uint32)
    return first, np.minimum(first + 1, source - 1).astype(np.uint32), weight.astype(np.float32)


# No value is ever NaN; an infinite one stays what it is. Knowing so, the compiler makes SIMD minima and maxima.
@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "contract"})
def _window_and_resize(hu, lows, gains, top, bottom, down, left, right, across, image):
    # Row by row, so that one windowed row stays in the nearest cache; the inner loops are free of branches.
    columns, size = hu.shape[1], image.shape[1]
    row = np.empty(columns, np.float32)
    least, half, most = np.float32(0.0), np.float32(0.5), np.float32(255.0)
    for y in range(image.shape[0]):
        upper, lower = hu[top[y]], hu[bottom[y]]
        weight = down[y]
        for channel in range(image.shape[2]):
            gain = gains[channel]
            offset = -lows[channel] * gain
            for x in range(columns):
                a = min(max(np.float32(upper[x]) * gain + offset, least), most)
                b = min(max(np.float32(lower[x]) * gain + offset, least), most)
                row[x] = a + (b - a) * weight
            for x in range(size):
                first = row[left[x]]
                image[y, x, channel] = np.uint8(np.int32(first + (row[right[x]] - first) * across[x] + half))


# Sums of whole numbers in int16, 32 at a time, where the general kernel gathers and weighs float32.
@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "contract"})
def _window_and_halve(hu, lows, highs, gains, image):
    # Each pixel is the mean of 2 x 2 clipped values; `gains` are grey levels a unit of their sum. All sums are whole
    # steps of 1 / (4 * width) grey levels. Half a step more than a half lets every tie go up, and nothing else: up to
    # WIDEST_EXACT it is more than what float32 rounds away.
    columns, size, channels = hu.shape[1], image.shape[1], image.shape[2]
    pair = np.empty(columns, np.int16)
    pairs = pair.view(np.uint32)  # what makes one pixel: two sums of two, which are never negative
    grey = np.empty((channels, size), np.uint8)
    for y in range(size):
        upper, lower = hu[2 * y], hu[2 * y + 1]
        for channel in range(channels):
            low, high, gain = lows[channel], highs[channel], gains[channel]
            both = low + low
            up = np.float32(0.5) + np.float32(0.125) / np.float32(high - low)
            for x in range(columns):
                pair[x] = min(max(upper[x], low), high) + min(max(lower[x], low), high) - both
            line = grey[channel]
            for x in range(size):
                four = np.int32((pairs[x] & np.uint32(0xFFFF)) + (pairs[x] >> np.uint32(16)))
                line[x] = np.uint8(np.int32(np.float32(four) * gain + up))
        # Three stores one behind the other become one shuffle of the lines.
        if channels == 3:
            for x in range(size):
                image[y, x, 0] = grey[0, x]
                image[y, x, 1] = grey[1, x]
                image[y, x, 2] = grey[2, x]
        else:
            for channel in range(channels):
                for x in range(size):
                    image[y, x, channel] = grey[channel, x]
