"""Stored pixel values of DICOM files, frame by frame: native ones as they lie, compressed ones by the decoder."""

import struct
import time
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from typing import BinaryIO

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian

from pipeline.shell.dicom.bounded_file import BoundedFile, Budget
from pipeline.shell.dicom.decoder_process import decode_codestream
from pipeline.shell.dicom.file import NATIVE_SYNTAXES, PIXEL_DATA, PIXEL_VRS, UNDEFINED_LENGTH, parse_dicom, quiet
from pipeline.shell.dicom.headers import MAX_PIXELS

PIXEL_TAGS = tuple(
    map(
        Tag,
        (
            "PhotometricInterpretation",
            "NumberOfFrames",
            "Rows",
            "Columns",
            "BitsAllocated",
            "BitsStored",
            "PixelRepresentation",
            "ExtendedOffsetTable",
            "ExtendedOffsetTableLengths",
        ),
    )
)

MAX_CODESTREAM_BYTES = 1 << 26
"""No frame is larger when compressed: it would hold four times as much as MAX_PIXELS take uncompressed."""

PIXEL_DATA_TAG = struct.pack("<HH", *PIXEL_DATA)

MAX_FRAGMENTS = 200_000

FILE_SECONDS = 3.0
"""How long decoding a compressed file may take. A frame of 512 x 512 takes 13 ms in the slowest syntax."""
FRAME_SECONDS = 0.1
"""How much longer for each further frame."""


class PixelFile:
    """The frames of a DICOM file.

    Raises one of BROKEN_DICOM, here and from `frame`, where the pixels cannot be decoded.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Read the header of a file of `size` bytes that stands at its beginning, and must stay open."""
        with quiet():
            parsed = parse_dicom(file, size, PIXEL_TAGS)
            dataset = parsed.dataset
            if parsed.pixels is None:
                raise ValueError(parsed.fault)
            self._file, self._size, self._pixels = parsed.file, parsed.size, parsed.pixels
            self._syntax = parsed.transfer_syntax
            self._shape = (int(dataset.Rows), int(dataset.Columns))
            self._bytes_per_pixel = int(dataset.BitsAllocated) // 8
            self._signed = dataset.PixelRepresentation == 1
            self._is_big = self._syntax == ExplicitVRBigEndian
            if self._syntax not in NATIVE_SYNTAXES:
                self._format = {
                    "transfer_syntax": self._syntax,
                    "rows": self._shape[0],
                    "columns": self._shape[1],
                    "bits_allocated": int(dataset.BitsAllocated),
                    "bits_stored": int(dataset.BitsStored),
                    "pixel_representation": int(self._signed),
                    "photometric_interpretation": str(dataset.PhotometricInterpretation),
                }
                self._frames = int(dataset.get("NumberOfFrames") or 1)
                offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
                self._offsets = offsets if all(offsets) else None
        if self._bytes_per_pixel not in (1, 2) or not 0 < self._shape[0] * self._shape[1] <= MAX_PIXELS:
            raise ValueError(f"{self._shape[0]} x {self._shape[1]} pixels of {self._bytes_per_pixel} bytes")
        self._next = 0
        self._seconds_left = FILE_SECONDS - FRAME_SECONDS

    def frame(self, number: int) -> np.ndarray:
        """Return the stored values (rows, columns) of a frame, counted from 1: int16 or uint16, 8 bits widened.

        Bits above BitsStored are as they lie in the file. Native 16-bit pixels of a file in memory are a view of it
        where their byte order is the machine's. Frames of a compressed file are quickest in ascending order.
        """
        stored = self._native(number) if self._syntax in NATIVE_SYNTAXES else self._compressed(number)
        wide = np.int16 if self._signed else np.uint16
        return stored.astype(wide, copy=False)

    def _native(self, number: int) -> np.ndarray:
        if self._pixels.length == UNDEFINED_LENGTH:
            raise ValueError(f"the pixel data is encapsulated, {self._syntax} is native")
        length = self._shape[0] * self._shape[1] * self._bytes_per_pixel
        start = (number - 1) * length
        if start + length > min(self._pixels.length, self._size - self._pixels.offset):
            raise EOFError(f"the pixel data ends before frame {number} does")
        if self._is_big and self._bytes_per_pixel == 1 and self._pixels.vr == "OW":
            return self._swapped_bytes(start, length)
        sign = "i" if self._signed else "u"
        stored_type = np.dtype(f"{'>' if self._is_big else '<'}{sign}{self._bytes_per_pixel}")
        return np.frombuffer(self._bytes(start, length), stored_type).reshape(self._shape)

    def _swapped_bytes(self, start: int, length: int) -> np.ndarray:
        """Return 8-bit pixels that lie in big endian words of 16 bits (DICOM PS3.5 8.1.1, annex A.3)."""
        first = start % 2
        words = np.frombuffer(self._bytes(start - first, (first + length + 1) // 2 * 2), ">u2")
        pixels = words.astype("<u2").view(np.int8 if self._signed else np.uint8)
        return pixels[first : first + length].reshape(self._shape)

    def _bytes(self, start: int, length: int) -> bytes | memoryview:
        """Return bytes of the pixel data's value; raises EOFError where the file ends before them."""
        start += self._pixels.offset
        if isinstance(self._file, BytesIO):
            data = memoryview(self._file.getvalue())[start : start + length]  # no copy
        else:
            self._file.seek(start)
            data = self._file.read(length)
        if len(data) < length:
            raise EOFError(f"the file ends {length - len(data)} bytes before the frame does")
        return data

    def _compressed(self, number: int) -> np.ndarray:
        if self._seconds_left <= 0:
            raise TimeoutError("the frames before took all the time that the file may take")
        codestream = self._codestream(number)
        began = time.monotonic()
        self._seconds_left += FRAME_SECONDS
        try:
            stored = decode_codestream(codestream, self._format, self._seconds_left)
        finally:
            self._seconds_left -= time.monotonic() - began
        if stored.shape != self._shape:
            raise ValueError(f"decoded to shape {stored.shape}, the header says {self._shape[0]} x {self._shape[1]}")
        if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
            raise ValueError(f"decoded to {stored.dtype}, expected 8 or 16 bits")
        return stored

    def _codestream(self, number: int) -> bytes:
        """Return the compressed bytes of a frame; the fragments of those before it are passed over (PS3.5 A.4)."""
        if number <= self._next or not self._next:
            self._file.seek(self._pixels.offset)
            self._budget = Budget()
            self._codestreams: Iterator[bytes] = generate_frames(
                BoundedFile(self._file, self._budget), number_of_frames=self._frames, extended_offsets=self._offsets
            )
            self._next = 0
        codestream = None
        while self._next < number:
            self._budget.reads, self._budget.byte_count = MAX_FRAGMENTS, MAX_CODESTREAM_BYTES
            codestream = next(self._codestreams, None)
            self._next += 1
        if not codestream:
            raise EOFError(f"the pixel data ends before frame {number}")
        return codestream


def stored_at(data: bytes, offset: int, rows: int, columns: int, signed: bool) -> np.ndarray | None:
    """Return the stored values (rows, columns), int16 or uint16, of a file whose header was read before.

    They are a view of the file's bytes from `offset` on (see Header.pixel_offset). None where the file does not say any
    more what it said then: rows, columns, 16 bits allocated, the sign, and that its pixel data begin there and are long
    enough. Then it is to be read from its beginning. Source: DICOM PS3.5 7.1.2, 7.1.3 and 8.1.1.
    """
    is_explicit = data[offset - 12 : offset - 8] == PIXEL_DATA_TAG and data[offset - 8 : offset - 6] in PIXEL_VRS
    is_implicit = data[offset - 8 : offset - 4] == PIXEL_DATA_TAG
    length = int.from_bytes(data[offset - 4 : offset], "little")
    fits = 2 * rows * columns <= min(length, len(data) - offset) and length != UNDEFINED_LENGTH
    if not fits or not (is_explicit or is_implicit):
        return None
    if any(data.find(element, 0, offset) < 0 for element in _format_elements(rows, columns, signed, is_explicit)):
        return None
    stored = np.frombuffer(data, "<i2" if signed else "<u2", rows * columns, offset).reshape(rows, columns)
    return stored.astype(np.int16 if signed else np.uint16, copy=False)


@lru_cache(maxsize=64)
def _format_elements(rows: int, columns: int, signed: bool, is_explicit: bool) -> tuple[bytes, ...]:
    """Return Rows, Columns, BitsAllocated and PixelRepresentation as they stand in a file of 16 bits a pixel."""
    head = struct.pack("<2sH", b"US", 2) if is_explicit else struct.pack("<L", 2)
    values = {0x0010: rows, 0x0011: columns, 0x0100: 16, 0x0103: int(signed)}
    return tuple(struct.pack("<HH4sH", 0x0028, element, head, value) for element, value in values.items())


def decode_pixels(data: bytes, frame: int = 1) -> np.ndarray:
    """Return the stored values (rows, columns), int16 or uint16, of one frame of a DICOM file's bytes.

    Raises one of BROKEN_DICOM where the pixels cannot be decoded.
    """
    return PixelFile(BytesIO(data), len(data)).frame(frame)
