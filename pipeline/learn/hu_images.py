"""Cached images of kind `hu` and the masks beside them."""

from pathlib import Path

import numpy as np

from pipeline.core.resampling import hu_of_stored
from pipeline.shell.png import decode_grey


def read_hu(path: Path) -> np.ndarray:
    """Return a cached image (y, x) int16 in HU; raises FileNotFoundError or OSError."""
    return hu_of_stored(_read(path, np.uint16))


def read_mask(path: Path) -> np.ndarray:
    """Return a cached mask (y, x) uint8: bit i is label i of the usual order. Raises FileNotFoundError or OSError."""
    return _read(path, np.uint8)


def _read(path: Path, dtype: type) -> np.ndarray:
    try:
        image = decode_grey(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: a cached image is missing; redo it with `make window FORCE=1`") from error
    except ValueError as error:
        raise OSError(f"{path}: a cached image cannot be decoded; redo it with `make window FORCE=1`") from error
    if image.dtype != dtype:
        raise OSError(f"{path}: a cached image cannot be decoded; redo it with `make window FORCE=1`")
    return image
