"""DICOM files as data sets without pixels, and where the pixels lie, within bounds of time and memory."""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import pydicom
from pydicom import Dataset
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.shell.dicom.bounded_file import BoundedFile, Budget, inflate

BROKEN_DICOM = (
    InvalidDicomError,
    BytesLengthException,
    NotImplementedError,  # a syntax, VR or character set that pydicom does not know
    OSError,
    EOFError,
    ValueError,
    TypeError,  # a value that is absent, or a list where one number belongs
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # the decoders' own complaint
    MemoryError,
    struct.error,
    zlib.error,
)
"""What reading a broken DICOM file raises, in pydicom and its decoders."""

NATIVE_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,  # native once the data set is inflated
)
"""Transfer syntaxes whose pixels lie in the data set as they are."""

PLAIN_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
"""Of those, the ones whose pixels lie in the file as a little endian machine holds them."""

DECODERS = (
    dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), "gdcm")
    | dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "gdcm")  # pyjpegls never returns from one that is cut short
    | dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), "pylibjpeg")
    | {RLELossless: "pydicom"}
)
"""pydicom's decoder for each compressed transfer syntax, always in a process of its own: of damaged codestreams, gdcm
may end the process that it runs in."""

HEAD_BYTES = 1 << 15
"""The header of most slices is shorter than this: then it is read at once, and can hold little that takes time."""

UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_DATA = (0x7FE0, 0x0010)
MAGIC = bytes(128) + b"DICM"
TRANSFER_SYNTAX_TAG = b"\x02\x00\x10\x00"
LONG_VRS = (b"OB", b"UN")
PIXEL_VRS = (b"OW", b"OB", b"UN")
DEFLATED = DeflatedExplicitVRLittleEndian.encode()


class PixelElement(NamedTuple):
    """Where the value of the pixel data element lies."""

    offset: int
    """Of its first byte, in the file."""
    length: int
    """As the element says it, in bytes; UNDEFINED_LENGTH for encapsulated pixels."""
    vr: str
    """Empty for implicit VR."""


class DicomFile(NamedTuple):
    """A data set up to its pixels, and the file that they are in."""

    dataset: Dataset
    transfer_syntax: str
    """Empty where the file does not say."""
    file: BinaryIO
    """The file that was given, or the inflated bytes of a deflated one."""
    size: int
    """Of that file, in bytes."""
    pixels: PixelElement | None
    fault: str
    """Why there is no pixel data element, where there is none."""
    budget: Budget
    """What may still be parsed of the file."""


def parse_dicom(file: BinaryIO, size: int, tags: Sequence[BaseTag]) -> DicomFile:
    """Return the elements `tags` of a file of `size` bytes that stands at its beginning, and the place of its pixels.

    Raises one of BROKEN_DICOM for what is no DICOM, and for what takes more than a header may (see Budget).
    """
    head = file.read(HEAD_BYTES)
    deflated_at = _deflated_at(head)
    if deflated_at:
        file.seek(deflated_at)
        file = _inflated(file)
        size = len(file.getvalue())
        head = file.read(HEAD_BYTES)
    small = BytesIO(head)
    try:
        dataset = pydicom.dcmread(small, stop_before_pixels=True, specific_tags=tags)
        pixels, fault = _pixel_element(small, dataset.original_encoding[1])
    except BROKEN_DICOM:
        if size <= len(head):
            raise
        pixels = None
    budget = Budget()
    if pixels is None and size > len(head):
        file.seek(0)
        bounded = BoundedFile(file, budget)
        dataset = pydicom.dcmread(bounded, stop_before_pixels=True, specific_tags=tags)
        pixels, fault = _pixel_element(bounded, dataset.original_encoding[1])
    syntax = DeflatedExplicitVRLittleEndian if deflated_at else dataset.file_meta.get("TransferSyntaxUID", "")
    return DicomFile(dataset, str(syntax or ""), file, size, pixels, fault, budget)


def sequence_items(dataset: Dataset, tag: BaseTag, budget: Budget) -> list[Dataset]:
    """Return the items of a sequence element, none where there is no such element; raises OSError beyond the budget.

    pydicom would parse a sequence of defined length without any bound.
    """
    element = dataset.get_item(tag)
    if element is None or not element.value:
        return []
    if not isinstance(element, RawDataElement):
        return list(element.value)
    file = BoundedFile(BytesIO(element.value), budget)
    length = len(element.value)
    return list(read_sequence(file, element.is_implicit_VR, element.is_little_endian, length, default_encoding))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from complaining about every file of an archive whose UIDs are `ID_...`; faults are ours to tell."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def one_line(error: BaseException) -> str:
    """Return an error's type and text, in one line of at most 200 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _deflated_at(head: bytes) -> int:
    """Return where the deflated data set of a file begins that is in the deflated transfer syntax; 0 for all others."""
    syntax, position = b"", len(MAGIC)
    if DEFLATED not in head:
        return 0
    # The file meta information is explicit little endian (DICOM PS3.10 7.1), and ends where group 2 ends.
    while head[position : position + 2] == b"\x02\x00":
        is_long = head[position + 4 : position + 6] in LONG_VRS
        value = position + (12 if is_long else 8)
        length = int.from_bytes(head[position + 8 : value] if is_long else head[position + 6 : value], "little")
        if head[position : position + 4] == TRANSFER_SYNTAX_TAG:
            syntax = head[value : value + length].rstrip(b" \0")
        position = value + length
    return position if syntax == DEFLATED else 0


def _inflated(file: BinaryIO) -> BytesIO:
    """Return a file whose data set is what the rest of `file` holds, inflated; it stands at its beginning."""
    syntax = ExplicitVRLittleEndian.encode()
    syntax += bytes(len(syntax) % 2)
    out = BytesIO()
    out.write(MAGIC + TRANSFER_SYNTAX_TAG + b"UI" + struct.pack("<H", len(syntax)) + syntax)
    inflate(file, out)
    out.seek(0)
    return out


def _pixel_element(file: Any, is_little: bool) -> tuple[PixelElement | None, str]:
    """Return the pixel data element that the file stands at, where the parser stopped, or why there is none."""
    order = "<" if is_little else ">"
    head = file.read(8)
    if len(head) < 8:
        return None, "the file ends before the pixel data"
    group, element = struct.unpack(f"{order}HH", head[:4])
    if (group, element) != PIXEL_DATA:
        return None, f"found element ({group:04X},{element:04X}) in place of pixel data"
    # A data set may be implicit where the file says explicit, and the reverse; pydicom reads both, but does not say
    # which it found. An implicit length never looks like one of these: all would be odd.
    if head[4:6] not in PIXEL_VRS:
        return PixelElement(file.tell(), struct.unpack(f"{order}L", head[4:])[0], ""), ""
    length = file.read(4)
    if len(length) < 4:
        return None, "the file ends before the pixel data"
    return PixelElement(file.tell(), struct.unpack(f"{order}L", length)[0], head[4:6].decode()), ""
