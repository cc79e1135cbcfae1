"""Stored values of a CT slice to Hounsfield units, with the repair of values that wrapped round."""

import numpy as np

WRAP_BITS = 12
WRAP_RANGE = 1 << WRAP_BITS
WRAP_SHIFT = 1000
"""The repair adds this to the stored values; the repaired slice then has the intercept -1000."""
WRAP_INTERCEPT = -100.0
"""Unsigned 12-bit slices with a greater intercept cannot show air as they stand: their values wrapped."""

INT16 = np.iinfo(np.int16)


def is_wrapped(bits: int, signed: bool, intercept: float) -> bool:
    """Return whether a slice is one of RSNA 2019's whose values wrapped round at 4096.

    They are 12-bit unsigned with an intercept above -100. A 12-bit signed slice with intercept 0 is right as it is.
    """
    return bits == WRAP_BITS and not signed and intercept > WRAP_INTERCEPT


def to_hu(stored: np.ndarray, slope: float, intercept: float, bits: int, signed: bool) -> np.ndarray:
    """Return the Hounsfield units (rows, columns) of stored values (rows, columns): slope * stored + intercept.

    int16 where slope and intercept are whole numbers and every value fits, float32 otherwise. Wrapped slices are
    repaired. The photometric interpretation plays no part: MONOCHROME1 inverts the display only, "after any VOI gray
    scale transformations have been performed" (DICOM PS3.3 C.7.6.3.1.2), and the rescale comes before those
    (PS3.3 C.11.1.1.2).
    """
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
