"""Masks of hemorrhage as they come with a data set: one channel of 8 bits, bit i is label i."""

import cv2
import numpy as np

from pipeline.config import LABELS
from pipeline.shell.dicom.bounded_file import open_regular
from pipeline.shell.png import GREY, HEADER, HEADER_AT, PIXELS_AT, SIGNATURE

MAX_BYTES = 1 << 26
"""Larger files are not read: four bytes a pixel of the largest slice."""


class MaskError(Exception):
    """A mask that cannot be used; the text says why, in one line."""


def read_source(path: str) -> bytes:
    """Return the bytes of a mask's file; raises MaskError where it is not there, cannot be read, or is too large."""
    try:
        file, size = open_regular(path)
        with file:
            if size > MAX_BYTES:
                raise MaskError(f"{path}: has {size} bytes, more than {MAX_BYTES}; it is not read")
            return file.read()
    except OSError as error:
        raise MaskError(f"{path}: {type(error).__name__}: {error.strerror or error}") from error


def decode_source(data: bytes, rows: int, columns: int, path: str) -> np.ndarray:
    """Return the mask (rows, columns) uint8 that a PNG file holds.

    Raises MaskError where the file is no PNG or damaged, where it has another shape or another layout than one channel
    of 8 bits, and where a bit is set that is no label. `path` is named in its text.
    """
    # Seen before anything is decoded: what a damaged header asks for may not fit into memory.
    if len(data) < PIXELS_AT or not data.startswith(SIGNATURE) or data[HEADER_AT + 4 : HEADER_AT + 8] != b"IHDR":
        raise MaskError(f"{path}: {len(data)} bytes that are no PNG")
    found_columns, found_rows, depth, colour_type, *_ = HEADER.unpack_from(data, HEADER_AT + 8)
    if (depth, colour_type) != (8, GREY):
        raise MaskError(f"{path}: bit depth {depth} and colour type {colour_type}, expected 8 and {GREY}, greyscale")
    if (found_rows, found_columns) != (rows, columns):
        raise MaskError(f"{path}: {found_rows} x {found_columns} pixels, the slice has {rows} x {columns}")
    try:
        mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        mask = None
    if mask is None or mask.shape != (rows, columns):
        raise MaskError(f"{path}: {len(data)} bytes that are a damaged PNG, or one with transparency")
    most = int(mask.max())
    if most >> len(LABELS):
        raise MaskError(f"{path}: values up to {most}; bit i is label i, none is above {2 ** len(LABELS) - 1}")
    return mask
