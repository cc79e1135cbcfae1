"""Display windows and resizing: Hounsfield units in, an 8-bit image with one channel a window out."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numba import njit

GREY_MAX = 255.0


def window_image(hu: np.ndarray, windows: Sequence[tuple[float, float]], size: int) -> np.ndarray:
    """Return the uint8 image (size, size, windows) of one slice.

    `hu` is (rows, columns), int16 or float32, in HU; each window is (centre, width) in HU. A window clips to
    [centre - width/2, centre + width/2] and maps linearly to 0..255 (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT); the
    windowed image is then resized, and rounded half up. That order is Burduja et al. 2020's, section 3.1; the other
    one differs by up to 98 grey levels at edges. Resizing is cv2's INTER_LINEAR: pixel centres at half a pixel, edges
    repeated, no smoothing beforehand. A slice that is not square is made square, as the paper's code would do.

    Raises ValueError for an array that is not two-dimensional or empty, a window without width, or a size below 1.
    """
    if hu.ndim != 2 or hu.size == 0:
        raise ValueError(f"a slice is rows x columns, got shape {hu.shape}")
    if size < 1 or any(width <= 0 for _, width in windows):
        raise ValueError(f"size {size} and the widths of windows {tuple(windows)} must be above 0")
    lows = np.array([centre - width / 2 for centre, width in windows], dtype=np.float32)
    gains = np.array([GREY_MAX / width for _, width in windows], dtype=np.float32)
    image = np.empty((size, size, len(windows)), dtype=np.uint8)
    _window_and_resize(
        np.ascontiguousarray(hu), lows, gains, *_taps(hu.shape[0], size), *_taps(hu.shape[1], size), image
    )
    return image


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
