"""Stored values of a CT slice to Hounsfield units: padding, unused bits, the repair of values that wrapped round."""

import numpy as np
from numba import njit

WRAP_BITS = 12
WRAP_RANGE = 1 << WRAP_BITS
WRAP_SHIFT = 1000
"""The repair adds this to the stored values; the repaired slice then has the intercept -1000."""
WRAP_INTERCEPT = -100.0
"""Unsigned 12-bit slices with a greater intercept cannot show air as they stand: their values wrapped."""

PADDING_HU = -1024
"""What padded pixels become: they are no image, and air is what lies outside of one."""

NO_PADDING = (1, 0)
"""The range of values that holds none."""

INT16 = np.iinfo(np.int16)


def is_wrapped(bits: int, signed: bool, intercept: float) -> bool:
    """Return whether a slice is one of RSNA 2019's whose values wrapped round at 4096.

    They are 12-bit unsigned with an intercept above -100. A 12-bit signed slice with intercept 0 is right as it is.
    """
    return bits == WRAP_BITS and not signed and intercept > WRAP_INTERCEPT


def to_hu(
    stored: np.ndarray,
    slope: float,
    intercept: float,
    bits: int,
    signed: bool,
    padding: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return the Hounsfield units (rows, columns) of stored values (rows, columns): slope * stored + intercept.

    stored: int16 or uint16, of which the lowest `bits` hold the value. Values from padding[0] to padding[1], both
    included, are no image (DICOM PS3.3 C.7.5.1.1.2) and become PADDING_HU; they are found before anything else is done.
    int16 where slope and intercept are whole numbers and every value fits, float32 otherwise. Wrapped slices are
    repaired. The photometric interpretation plays no part: MONOCHROME1 inverts the display only, "after any VOI gray
    scale transformations have been performed" (DICOM PS3.3 C.7.6.3.1.2), and the rescale comes before those
    (PS3.3 C.11.1.1.2).
    """
    if float(slope).is_integer() and float(intercept).is_integer() and not is_wrapped(bits, signed, intercept):
        hu = _whole_hu(stored, slope, intercept, bits, signed, padding)
        if hu is not None:
            return hu
    if padding is None:
        return _rescaled(_used_bits(stored, bits, signed), slope, intercept, bits, signed)
    is_padding = (stored >= padding[0]) & (stored <= padding[1])
    if is_padding.all():
        return np.full(stored.shape, PADDING_HU, dtype=np.int16)
    # Some value of the image takes their place meanwhile, so that they do not widen its range.
    image = np.where(is_padding, stored[~is_padding][0], stored)
    hu = _rescaled(_used_bits(image, bits, signed), slope, intercept, bits, signed)
    hu[is_padding] = PADDING_HU
    return hu


def _whole_hu(
    stored: np.ndarray, slope: float, intercept: float, bits: int, signed: bool, padding: tuple[int, int] | None
) -> np.ndarray | None:
    """Return int16 HU in one pass over the slice, as nearly all slices allow; None where a value does not fit."""
    hu = np.empty(stored.shape, dtype=np.int16)
    low, high = NO_PADDING if padding is None else padding
    least, most = _rescale_whole(
        np.ascontiguousarray(stored).reshape(-1), _modulo(slope), _modulo(intercept), low, high, hu.reshape(-1)
    )
    if least > most:  # padding alone
        return hu
    used_least, used_most = _range_of_bits(bits, signed)
    ends = (slope * least + intercept, slope * most + intercept)
    fits = used_least <= least and most <= used_most and INT16.min <= min(ends) and max(ends) <= INT16.max
    return hu if fits else None


@njit(cache=True, nogil=True)
def _rescale_whole(stored, slope, intercept, low, high, hu):
    # Returns the least and the greatest value that is no padding. Arithmetic modulo 2^16 is exact where the results
    # fit, which the caller sees from those two.
    least, most = np.int32(1 << 16), np.int32(-(1 << 16))
    low, high = np.int32(low), np.int32(high)
    for i in range(stored.size):
        value = np.int32(stored[i])
        is_padding = (value >= low) & (value <= high)
        least = least if is_padding else min(least, value)
        most = most if is_padding else max(most, value)
        hu[i] = np.int16(PADDING_HU) if is_padding else np.int16(value * slope + intercept)
    return least, most


def _range_of_bits(bits: int, signed: bool) -> tuple[int, int]:
    """Return the least and the greatest value that so many bits hold."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _used_bits(stored: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Return values of which only the lowest `bits` count (DICOM PS3.5 8.1.1); those above may hold old overlays.

    Values that fit into `bits`, as nearly all do, are returned as they are.
    """
    low, high = _range_of_bits(bits, signed)
    if low <= stored.min() and stored.max() <= high:
        return stored
    unused = 8 * stored.itemsize - bits
    return (stored << unused) >> unused


def _rescaled(stored: np.ndarray, slope: float, intercept: float, bits: int, signed: bool) -> np.ndarray:
    if is_wrapped(bits, signed, intercept):
        shifted = stored.astype(np.int32) + WRAP_SHIFT
        stored, intercept = np.where(shifted >= WRAP_RANGE, shifted - WRAP_RANGE, shifted), float(-WRAP_SHIFT)
    if float(slope).is_integer() and float(intercept).is_integer():
        ends = (slope * int(stored.min()) + intercept, slope * int(stored.max()) + intercept)
        if INT16.min <= min(ends) and max(ends) <= INT16.max:
            # Arithmetic modulo 2^16 is exact, because the results fit; wide integers would cost four times as much.
            narrow = stored.astype(np.int16)
            if slope != 1:
                narrow = narrow * _modulo(slope)
            return narrow + _modulo(intercept) if intercept else narrow
    return (stored * np.float64(slope) + intercept).astype(np.float32)


def _modulo(whole: float) -> np.int16:
    """Return a whole number modulo 2^16 as int16."""
    return np.array(int(whole) % (1 << 16), dtype=np.uint16).astype(np.int16)[()]
