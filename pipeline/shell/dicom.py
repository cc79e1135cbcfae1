"""DICOM files of CT slices: headers without pixels, and stored pixel values."""

import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    RLETransferSyntaxes,
)

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

MAX_PIXELS = 4096 * 4096
"""Larger slices are taken for a broken header; no CT scanner makes them, and decoding them would take the memory."""

NATIVE_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
"""Transfer syntaxes whose pixels lie in the file as they are."""

DECODERS = (
    dict.fromkeys(RLETransferSyntaxes, "pydicom")
    | dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls")
    | dict.fromkeys(JPEG2000TransferSyntaxes, "pylibjpeg")
)
"""The decoder for each compression that has more than one: of a broken file, gdcm's and pylibjpeg's decoder of run
lengths may end the whole process. JPEG is gdcm's alone."""

ORTHONORMAL_TOLERANCE = 0.01
UNDEFINED_LENGTH = 0xFFFFFFFF
LONGEST_ID = 128
PIXEL_DATA = Tag("PixelData")

FORMAT_TAGS = ("Rows", "Columns", "BitsAllocated", "PixelRepresentation")
HEADER_TAGS = (
    *FORMAT_TAGS,
    "ImageType",
    "Modality",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PixelSpacing",
    "BitsStored",
    "HighBit",
    "RescaleIntercept",
    "RescaleSlope",
)

NAN3 = (math.nan,) * 3


class Header(NamedTuple):
    """What a file's header says of its slice; with a reason it cannot be used, and fields may be empty or NaN."""

    reason: str = ""
    """Empty for a usable slice, else one of schema.REASONS."""
    detail: str = ""
    patient_id: str = ""
    study_id: str = ""
    series_id: str = ""
    position_mm: tuple[float, float, float] = NAN3
    """ImagePositionPatient: centre of the first pixel, x to the left, y to the back, z to the head."""
    orientation: tuple[float, ...] = NAN3 + NAN3
    """ImageOrientationPatient: direction of a row, then of a column."""
    rows: int = 0
    columns: int = 0
    row_mm: float = math.nan
    """Distance between neighbouring rows."""
    column_mm: float = math.nan
    thickness_mm: float = math.nan
    bits: int = 0
    """BitsStored."""
    signed: bool = False
    slope: float = math.nan
    intercept: float = math.nan
    transfer_syntax: str = ""
    bytes: int = 0


class _UnusableError(Exception):
    """A reason and a detail why a slice cannot be used."""


def read_header(path: str | Path) -> Header:
    """Return what a file's header says, without reading its pixels; never raises for what is in the file.

    Truncated uncompressed pixels are found by length. A file whose header could be read keeps its ids and position,
    whatever the reason that it cannot be used.
    """
    size = 0
    try:
        with _quiet(), open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return Header("unreadable", "the file is empty")
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(HEADER_TAGS))
            return _header(dataset, file, size)
    except BROKEN_DICOM as error:
        return Header("unreadable", _one_line(error), bytes=size)


def decode_pixels(data: bytes) -> np.ndarray:
    """Return the stored values (rows, columns), int16 or uint16, of a DICOM file's bytes.

    Uncompressed pixels are a view of `data` where their byte order is the machine's; all else goes through pydicom's
    decoders. Raises one of BROKEN_DICOM where the pixels cannot be decoded.
    """
    with _quiet():
        file = BytesIO(data)
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(FORMAT_TAGS))
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        if dataset.file_meta.TransferSyntaxUID not in NATIVE_SYNTAXES or dataset.BitsAllocated != 16:
            return _decode_compressed(data, rows, columns)
        _pixel_element(dataset, file)
        order = "<" if dataset.original_encoding[1] else ">"
        stored_type = np.dtype(f"{order}{'i' if dataset.PixelRepresentation else 'u'}2")
        stored = np.frombuffer(data, stored_type, count=rows * columns, offset=file.tell()).reshape(rows, columns)
        return stored.astype(stored_type.newbyteorder("="), copy=False)


def _decode_compressed(data: bytes, rows: int, columns: int) -> np.ndarray:
    dataset = pydicom.dcmread(BytesIO(data))
    stored = pixel_array(dataset, decoding_plugin=DECODERS.get(dataset.file_meta.TransferSyntaxUID, ""))
    if stored.shape != (rows, columns):
        raise ValueError(f"decoded to shape {stored.shape}, the header says {rows} x {columns}")
    if stored.dtype not in (np.int16, np.uint16):
        raise ValueError(f"decoded to {stored.dtype}, expected 16 bits")
    return stored


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom from complaining about every file of an archive whose UIDs are `ID_...`; faults are ours to tell."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _header(dataset: Dataset, file: BinaryIO, size: int) -> Header:
    header = Header(
        patient_id=_text(dataset, "PatientID"),
        study_id=_text(dataset, "StudyInstanceUID"),
        series_id=_text(dataset, "SeriesInstanceUID"),
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")),
        position_mm=_numbers(dataset, "ImagePositionPatient", 3) or NAN3,
        thickness_mm=_number(dataset, "SliceThickness", math.nan),
        bytes=size,
    )
    try:
        header = _fill_ids(header)
        _check_is_slice(dataset)
        # Behind the checks of what it is: a dose report without pixels is no CT slice first of all.
        pixel_bytes = _pixel_bytes(dataset, file, header.transfer_syntax, size)
        header = header._replace(**_pixel_format(dataset))
        header = header._replace(**_geometry(dataset, header))
        header = header._replace(**_rescale(dataset))
    except _UnusableError as unusable:
        return header._replace(reason=unusable.args[0], detail=unusable.args[1])
    expected = header.rows * header.columns * 2
    if pixel_bytes is not None and pixel_bytes < expected:
        return header._replace(
            reason="truncated pixel data", detail=f"holds {pixel_bytes} of {expected} bytes of pixel data"
        )
    return header


def _fill_ids(header: Header) -> Header:
    series = header.series_id
    if not series:
        raise _UnusableError("not a CT slice", "SeriesInstanceUID is missing")
    # A scan's id names a folder of the cache.
    if len(series) > LONGEST_ID or series.startswith(".") or any(c in "/\\" or not c.isprintable() for c in series):
        raise _UnusableError("not a CT slice", f"SeriesInstanceUID {series[:LONGEST_ID]!r} cannot name a folder")
    # Without a patient's id the study is the smallest unit that surely belongs to one patient.
    study = header.study_id or series
    return header._replace(study_id=study, patient_id=header.patient_id or study)


def _check_is_slice(dataset: Dataset) -> None:
    modality = _text(dataset, "Modality")
    if modality != "CT":
        raise _UnusableError("not a CT slice", f"Modality is {modality}" if modality else "Modality is missing")
    if "LOCALIZER" in _text(dataset, "ImageType").upper():
        raise _UnusableError("not a CT slice", "a localizer")


def _pixel_bytes(dataset: Dataset, file: BinaryIO, transfer_syntax: str, size: int) -> int | None:
    """Return how many bytes of pixel data an uncompressed file holds; None where only decoding can tell."""
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        return None
    try:
        length = _pixel_element(dataset, file)
    except ValueError as error:
        raise _UnusableError("no pixel data", str(error)) from error
    held = size - file.tell()
    if held <= 0 or length == 0:
        raise _UnusableError("no pixel data", "the pixel data is empty")
    if transfer_syntax not in NATIVE_SYNTAXES:
        return None
    return held if length == UNDEFINED_LENGTH else min(length, held)


def _pixel_element(dataset: Dataset, file: BinaryIO) -> int:
    """Read the head of the pixel data element, where dcmread stopped; return the value's length in bytes.

    Leaves the file at the value. Raises ValueError where another element, or none, stands there.
    """
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    tag = file.read(4)
    if len(tag) < 4:
        raise ValueError("the file ends before the pixel data")
    group, element = struct.unpack(f"{order}HH", tag)
    if (group, element) != (PIXEL_DATA.group, PIXEL_DATA.element):
        raise ValueError(f"found element ({group:04X},{element:04X}) in place of pixel data")
    head = file.read(4 if implicit else 8)
    return struct.unpack(f"{order}L", head[-4:])[0]


def _pixel_format(dataset: Dataset) -> dict[str, Any]:
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    allocated, bits = _whole(dataset, "BitsAllocated"), _whole(dataset, "BitsStored")
    samples, frames = _whole(dataset, "SamplesPerPixel", 1), _whole(dataset, "NumberOfFrames", 1)
    representation, photometric = _whole(dataset, "PixelRepresentation"), _text(dataset, "PhotometricInterpretation")
    faults = (
        (samples != 1, f"{samples} samples a pixel"),
        (photometric not in ("MONOCHROME1", "MONOCHROME2"), f"photometric interpretation {photometric!r}"),
        (frames not in (0, 1), f"{frames} frames"),
        (rows < 1 or columns < 1, f"{rows} rows, {columns} columns"),
        (rows * columns > MAX_PIXELS, f"{rows} rows, {columns} columns: more than {MAX_PIXELS} pixels"),
        (allocated != 16, f"{allocated} bits allocated"),
        (not 1 <= bits <= 16, f"{bits} bits stored"),
        (_whole(dataset, "HighBit", bits - 1) != bits - 1, "the high bit is not the last of the bits stored"),
        (representation not in (0, 1), f"pixel representation {representation}"),
    )
    for is_fault, detail in faults:
        if is_fault:
            raise _UnusableError("unsupported pixel format", detail)
    return {"rows": rows, "columns": columns, "bits": bits, "signed": representation == 1}


def _geometry(dataset: Dataset, header: Header) -> dict[str, Any]:
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    spacing = _numbers(dataset, "PixelSpacing", 2)
    if not all(map(math.isfinite, header.position_mm)):
        raise _UnusableError("unusable geometry", "ImagePositionPatient is missing or not three numbers")
    if orientation is None:
        raise _UnusableError("unusable geometry", "ImageOrientationPatient is missing or not six numbers")
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    if np.abs(np.array([row @ row - 1, column @ column - 1, row @ column])).max() > ORTHONORMAL_TOLERANCE:
        raise _UnusableError("unusable geometry", "ImageOrientationPatient is not two unit vectors at right angles")
    if spacing is None or min(spacing) <= 0:
        raise _UnusableError("unusable geometry", "PixelSpacing is missing or not two numbers above 0")
    return {"orientation": orientation, "row_mm": spacing[0], "column_mm": spacing[1]}


def _rescale(dataset: Dataset) -> dict[str, Any]:
    slope, intercept = _number(dataset, "RescaleSlope", math.nan), _number(dataset, "RescaleIntercept", math.nan)
    if not math.isfinite(slope) or slope == 0 or not math.isfinite(intercept):
        given = f"{_text(dataset, 'RescaleSlope') or 'missing'}, {_text(dataset, 'RescaleIntercept') or 'missing'}"
        raise _UnusableError("unusable rescale", f"slope and intercept are {given}")
    return {"slope": slope, "intercept": intercept}


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    try:
        return float(dataset.get(keyword, default))
    except (TypeError, ValueError):
        return math.nan


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return an element's values where they are `count` finite numbers."""
    try:
        values = tuple(float(value) for value in dataset.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _whole(dataset: Dataset, keyword: str, default: int = -1) -> int:
    """Return an element's whole number; `default` where it is missing or empty, -1 where it is something else."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        return -1


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
