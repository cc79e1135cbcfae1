"""Masks as text: how many pixels in a row are out of the mask, then in it, then out of it again."""

import numpy as np


def mask_text(mask: np.ndarray) -> str:
    """Return a mask (y, x) as run lengths, row after row, beginning with those out of it: `3 2 7`.

    The first number is 0 where the first pixel belongs to the mask. Source: the uncompressed form of COCO's masks,
    which goes column after column.
    """
    pixels = np.asarray(mask, dtype=bool).ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff(np.r_[0, changes, pixels.size])
    return " ".join(map(str, [0, *lengths] if pixels[0] else lengths))


def text_mask(text: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask (y, x), boolean, of such a text; raises ValueError where it has another number of pixels."""
    lengths = np.array(text.split(), dtype=np.int64)
    if lengths.sum() != shape[0] * shape[1]:
        raise ValueError(f"run lengths of {lengths.sum()} pixels for a mask of {shape[0]} x {shape[1]}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape)
