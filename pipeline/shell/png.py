"""Cached images as PNG: quick to write and to read, whole or not there."""

import zlib
from pathlib import Path

import cv2
import numpy as np

from pipeline.shell.atomic import atomic_path

# Level 1 without row filters: these images are mostly flat, and decoding them is quickest. The strategy stands behind
# the level because cv2 resets it when it meets a level.
ENCODING = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_DEFAULT,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_NONE,
)


def write_png(path: Path, image: np.ndarray) -> str:
    """Write a uint8 image (y, x, channels) as PNG and return the file's CRC-32, 8 hex digits.

    Three channels become the file's red, green and blue. Raises ValueError for another number of channels than one or
    three.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8:
        raise ValueError(f"a PNG holds uint8 (y, x, 1 or 3), got {image.dtype} {image.shape}")
    # cv2 takes blue first.
    _, encoded = cv2.imencode(".png", image[:, :, ::-1], ENCODING)
    with atomic_path(path) as partial:
        partial.write_bytes(encoded)
    return f"{zlib.crc32(encoded):08x}"
