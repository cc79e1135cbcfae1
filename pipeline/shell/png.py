"""Cached images as PNG: quick to write and to read, whole or not there."""

import struct
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib

from pipeline.shell.atomic import write_atomic

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk: it holds nothing, so it is the same in all files."""

HEADER = struct.Struct(">LLBBBBB")
"""IHDR: columns, rows, bit depth, colour type, methods of compression, filtering, interlacing (section 11.2.1)."""
DEPTH = 8
METHODS = (0, 0, 0)
"""Deflate, a filter type in front of each row, no interlacing."""
COLOUR_TYPES = {1: 0, 3: 2}
"""Of greyscale and of truecolour, by channels (section 11.1, table 11.1)."""
CHANNELS = {colour_type: channels for channels, colour_type in COLOUR_TYPES.items()}

NO_FILTER = 0
"""The filter type (section 9.2). These images are mostly flat: they pack as well as they are."""
LEVEL = 1
"""Of compression, 0 to 3. Level 2 saves 4 % of the bytes and takes 10 % longer."""

CHUNK_BYTES = 12
"""Of a chunk besides its data: length and type before it, CRC behind it (section 5.3)."""
HEADER_AT = len(SIGNATURE)
PIXELS_AT = HEADER_AT + CHUNK_BYTES + HEADER.size


def write_png(path: str | Path, image: np.ndarray) -> str:
    """Write a uint8 image (y, x, channels) as PNG and return the file's CRC-32, 8 hex digits.

    Three channels become the file's red, green and blue. Raises ValueError for another number of channels than one or
    three, and for an image without pixels.
    """
    encoded = encode_png(image)
    write_atomic(path, encoded)
    return f"{isal_zlib.crc32(encoded):08x}"


def encode_png(image: np.ndarray) -> bytes:
    """Return a uint8 image (y, x, channels) as a PNG file: signature, IHDR, one IDAT, IEND.

    One channel becomes greyscale, three red, green and blue; raises ValueError for anything else, and without pixels.
    Sections here are those of the PNG specification (W3C, third edition).
    """
    if image.ndim != 3 or image.shape[2] not in COLOUR_TYPES or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"a PNG holds uint8 (y, x, 1 or 3), got {image.dtype} {image.shape}")
    rows, columns, channels = image.shape
    lines = np.empty((rows, 1 + columns * channels), dtype=np.uint8)
    lines[:, 0] = NO_FILTER
    lines[:, 1:] = image.reshape(rows, columns * channels)
    header = HEADER.pack(columns, rows, DEPTH, COLOUR_TYPES[channels], *METHODS)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", isal_zlib.compress(lines, LEVEL)) + END


def decode_png(data: bytes) -> np.ndarray:
    """Return the image (y, x, 3) uint8 that a PNG file holds, in the file's red, green and blue, greyscale thrice.

    Files as `encode_png` makes them are decoded here, in a quarter of the time that cv2 takes, which reads all others.
    Raises ValueError for what is no image, is cut short, or contradicts one of its checksums.
    """
    image = _decode_own(data)
    if image is None and data:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(f"{len(data)} bytes that are no PNG, or a damaged one")
    return image


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk: length, type, data, and the CRC-32 of type and data (section 5.3)."""
    crc = isal_zlib.crc32(content, isal_zlib.crc32(kind))
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", crc)


def _decode_own(data: bytes) -> np.ndarray | None:
    """Return the image of a file as `encode_png` makes them, None for any other."""
    (rows, columns, channels), packed = _own_parts(data)
    line = 1 + columns * channels
    try:
        unpacked = isal_zlib.decompress(packed, bufsize=rows * line) if packed else b""
    except isal_zlib.error:
        return None
    if not unpacked or len(unpacked) != rows * line:
        return None
    lines = np.frombuffer(unpacked, np.uint8).reshape(rows, line)
    if lines[:, 0].any():  # filtered
        return None
    image = lines[:, 1:].copy().reshape(rows, columns, channels)
    return image if channels == 3 else image.repeat(3, axis=2)


def _own_parts(data: bytes) -> tuple[tuple[int, int, int], memoryview]:
    """Return the shape and the compressed pixels of a file laid out as `encode_png` does; no pixels of any other."""
    nothing = (0, 0, 0), memoryview(b"")
    end = len(data) - len(END)
    if end < PIXELS_AT + CHUNK_BYTES or not data.startswith(SIGNATURE) or not data.endswith(END):
        return nothing
    header, packed = _content(data, HEADER_AT, PIXELS_AT, b"IHDR"), _content(data, PIXELS_AT, end, b"IDAT")
    if not header or not packed:
        return nothing
    columns, rows, depth, colour_type, *methods = HEADER.unpack(header)
    if depth != DEPTH or colour_type not in CHANNELS or tuple(methods) != METHODS:
        return nothing
    return (rows, columns, CHANNELS[colour_type]), packed


def _content(data: bytes, start: int, end: int, kind: bytes) -> memoryview:
    """Return the data of the chunk that fills data[start:end]; nothing where that is no whole chunk of the type."""
    length, found = struct.unpack_from(">L4s", data, start)
    checked = memoryview(data)[start + 4 : end - 4]
    is_whole = found == kind and length == len(checked) - len(kind)
    if not is_whole or isal_zlib.crc32(checked) != int.from_bytes(data[end - 4 : end], "big"):
        return memoryview(b"")
    return checked[len(kind) :]
