"""Cached images of kind `hu` and the masks beside them."""

from pathlib import Path

import cv2
import numpy as np

HU_OFFSET = 32768
"""What a cached image's values lie above Hounsfield units."""


def read_hu(path: Path) -> np.ndarray:
    """Return a cached image (y, x) int16 in HU; raises FileNotFoundError or OSError."""
    return (_read(path, np.uint16).astype(np.int32) - HU_OFFSET).astype(np.int16)


def read_mask(path: Path) -> np.ndarray:
    """Return a cached mask (y, x) uint8: bit i is label i of the usual order. Raises FileNotFoundError or OSError."""
    return _read(path, np.uint8)


def _read(path: Path, dtype: type) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: a cached image is missing; redo it with `make window FORCE=1`") from error
    except cv2.error as error:  # an empty file
        raise OSError(f"{path}: a cached image cannot be decoded; redo it with `make window FORCE=1`") from error
    if image is None or image.ndim != 2 or image.dtype != dtype:
        raise OSError(f"{path}: a cached image cannot be decoded; redo it with `make window FORCE=1`")
    return image
