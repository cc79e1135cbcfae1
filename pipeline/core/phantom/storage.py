"""How Hounsfield units become stored numbers: the kinds of pixel that the RSNA 2019 files hold."""

from dataclasses import dataclass

import numpy as np

WRAP = 4096
"""Twelve bits: where the wrapped files start again from 0."""


@dataclass(frozen=True)
class Storage:
    """One kind of pixel. `intercept` is the text in the file; `outside` the stored number outside the field of view."""

    name: str
    bits: int
    signed: bool
    intercept: str
    outside: int
    wrapped: bool = False

    @property
    def hu_range(self) -> tuple[int, int]:
        """Lowest and highest HU that a pixel inside the field of view can hold."""
        if self.wrapped:
            # The known repair adds 1000 to the stored number, takes 4096 off where it overflows, and sets -1000.
            return -1000, WRAP - 1 - 1000
        offset = round(float(self.intercept))
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)
        limits = np.iinfo(np.int16)  # what HU are kept in
        return max(low + offset, limits.min), min(high + offset, limits.max)


STORAGES = {
    storage.name: storage
    for storage in (
        Storage("unsigned 12", 12, False, "-1024", 0),
        Storage("unsigned 12, decimals", 12, False, "-1024.000000", 0),
        Storage("unsigned 12, -1000", 12, False, "-1000", 0),
        Storage("signed 16, -2000 outside", 16, True, "-1024", -2000),
        Storage("signed 16, -1024 outside", 16, True, "-1024.000000", -1024),
        Storage("signed 16, intercept 0", 16, True, "0", -2000),
        Storage("unsigned 12, wrapped", 12, False, "0", WRAP - 1000, wrapped=True),
        Storage("signed 12, intercept 0", 12, True, "0", -1024),
    )
}
"""Every kind, by name. Slope 1 in all, as in the RSNA files."""


def intended_hu(hu: np.ndarray, storage: Storage) -> np.ndarray:
    """Return HU rounded half up and clipped to what the storage holds: int16, shape as given."""
    low, high = storage.hu_range
    return np.clip(np.floor(hu + np.float32(0.5)), low, high).astype(np.int16)


def encode_pixels(hu: np.ndarray, storage: Storage) -> np.ndarray:
    """Return the numbers that a file of this kind stores for integer HU.

    `hu`: integers (rows, columns) within the storage's range. Result: uint16 or int16, the same shape. Raises
    ValueError for HU that the storage cannot hold.
    """
    low, high = storage.hu_range
    if hu.size and (hu.min() < low or hu.max() > high):
        raise ValueError(f"HU from {hu.min()} to {hu.max()}: {storage.name!r} holds {low} to {high}")
    stored = hu.astype(np.int32)
    stored = stored % WRAP if storage.wrapped else stored - round(float(storage.intercept))
    return stored.astype(np.int16 if storage.signed else np.uint16)
