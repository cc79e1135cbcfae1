"""What the headers of CT files say of their slices: identity, geometry, pixel format, rescale; or why not."""

import math
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from pipeline.shell.dicom.bounded_file import open_regular
from pipeline.shell.dicom.file import (
    BROKEN_DICOM,
    DECODERS,
    NATIVE_SYNTAXES,
    PLAIN_SYNTAXES,
    UNDEFINED_LENGTH,
    DicomFile,
    one_line,
    parse_dicom,
    quiet,
)
from pipeline.shell.dicom.frame_elements import FrameElements, frame_groups, has_functional_groups, macro_items

MAX_PIXELS = 4096 * 4096
"""Larger slices are taken for a broken header; no CT scanner makes them, and decoding them would take the memory."""

ORTHONORMAL_TOLERANCE = 0.01
LONGEST_ID = 128

HEADER_TAGS = tuple(
    map(
        Tag,
        (
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
            "Rows",
            "Columns",
            "PixelSpacing",
            "BitsAllocated",
            "BitsStored",
            "HighBit",
            "PixelRepresentation",
            "PixelPaddingValue",
            "PixelPaddingRangeLimit",
            "RescaleIntercept",
            "RescaleSlope",
            "SharedFunctionalGroupsSequence",
            "PerFrameFunctionalGroupsSequence",
        ),
    )
)
PADDING_VALUE, PADDING_LIMIT = Tag("PixelPaddingValue"), Tag("PixelPaddingRangeLimit")

NAN3 = (math.nan,) * 3


class Header(NamedTuple):
    """What a file's header says of one slice; with a reason it cannot be used, and fields may be empty or NaN."""

    reason: str = ""
    """Empty for a usable slice, else one of schema.REASONS."""
    detail: str = ""
    frame: int = 0
    """The slice's number in its file, from 1; 0 for a header that speaks of the file as a whole: it is rejected."""
    frames: int = 0
    """How many the file has, where that is known."""
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
    padding_low: int | None = None
    """The least and the greatest stored value that is padding and no image; None where nothing is."""
    padding_high: int | None = None
    transfer_syntax: str = ""
    bytes: int = 0
    pixel_offset: int | None = None
    """Of the first pixel, in bytes, in files of one frame from which `pixels.stored_at` can take it: little endian, 16
    bits allocated, neither compressed nor deflated; None in others."""


class Elements(Protocol):
    """A data set, or the elements of one of its frames."""

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return an element's value, or the default where there is none."""


class _UnusableError(Exception):
    """A reason and a detail why a slice cannot be used."""


def read_headers(path: str | Path) -> list[Header]:
    """Return what a file's header says of each of its slices, without reading pixels; never raises for what is in it.

    One header for a classic file, one a frame for an enhanced or legacy-converted one (DICOM PS3.3 A.38, A.70), and
    one with frame 0 for a file none of whose frames can be used. Truncated uncompressed pixels are found by length.
    What could be read of ids and position is there, whatever the reason that a slice cannot be used.
    """
    size = 0
    try:
        file, size = open_regular(path)
        with file, quiet():
            if size == 0:
                return [Header("unreadable", "the file is empty")]
            return _headers(parse_dicom(file, size, HEADER_TAGS), size)
    except BROKEN_DICOM as error:
        return [Header("unreadable", one_line(error), bytes=size)]


def _headers(file: DicomFile, size: int) -> list[Header]:
    dataset = file.dataset
    header = Header(
        patient_id=_text(dataset, "PatientID"),
        study_id=_text(dataset, "StudyInstanceUID"),
        series_id=_text(dataset, "SeriesInstanceUID"),
        transfer_syntax=file.transfer_syntax,
        bytes=size,
    )
    try:
        header = _fill_ids(header)
        _check_is_slice(dataset)
        # Behind the checks of what it is: a dose report without pixels is no CT slice first of all.
        _check_pixels(file)
        header = header._replace(**_pixel_format(dataset))
    except _UnusableError as unusable:
        return [_rejected(header._replace(position_mm=_position(dataset)), unusable)]
    if not has_functional_groups(dataset):
        if header.frames == 1:
            return [_frame_header(header._replace(frame=1), dataset, file)]
        fault = f"{header.frames} frames, and no functional groups to say where each lies"
        return [header._replace(reason="unsupported pixel format", detail=fault)]
    groups, shared = frame_groups(dataset, file.budget)
    if len(groups) != header.frames and (groups or header.frames > 1):
        fault = f"{header.frames} frames, but functional groups of {len(groups)}"
        return [header._replace(reason="unusable geometry", detail=fault)]
    common = [*macro_items(shared, file.budget), dataset]
    headers = []
    for number in range(header.frames):
        frame = header._replace(frame=number + 1)
        try:
            elements = FrameElements([*macro_items(groups[number : number + 1], file.budget), *common])
            headers.append(_frame_header(frame, elements, file))
        except BROKEN_DICOM as error:
            headers.append(frame._replace(reason="unreadable", detail=one_line(error)))
    return headers


def _frame_header(header: Header, elements: Elements, file: DicomFile) -> Header:
    """Return the header of one frame, whose elements these are."""
    header = header._replace(
        position_mm=_position(elements), thickness_mm=_number(elements, "SliceThickness", math.nan)
    )
    try:
        if "LOCALIZER" in _text(elements, "FrameType").upper():
            raise _UnusableError("not a CT slice", "a localizer")
        header = header._replace(**_geometry(elements, header))
        header = header._replace(**_rescale(elements))
    except _UnusableError as unusable:
        return _rejected(header, unusable)
    if file.transfer_syntax in NATIVE_SYNTAXES:
        frame_bytes = header.rows * header.columns * int(file.dataset.BitsAllocated) // 8
        held = min(file.pixels.length, file.size - file.pixels.offset)
        if held < header.frame * frame_bytes:
            fault = f"holds {held} of {header.frames * frame_bytes} bytes of pixel data"
            return header._replace(reason="truncated pixel data", detail=fault)
        is_plain = file.transfer_syntax in PLAIN_SYNTAXES and file.dataset.BitsAllocated == 16 and header.frames == 1
        return header._replace(pixel_offset=file.pixels.offset if is_plain else None)
    return header


def _rejected(header: Header, unusable: _UnusableError) -> Header:
    return header._replace(reason=unusable.args[0], detail=unusable.args[1])


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


def _check_pixels(file: DicomFile) -> None:
    """Check that there are pixels, in the form that the transfer syntax says (DICOM PS3.5 A.4)."""
    if file.pixels is None:
        raise _UnusableError("no pixel data", file.fault)
    if file.size <= file.pixels.offset or file.pixels.length == 0:
        raise _UnusableError("no pixel data", "the pixel data is empty")
    syntax = file.transfer_syntax
    is_encapsulated = file.pixels.length == UNDEFINED_LENGTH
    if syntax in NATIVE_SYNTAXES:
        if is_encapsulated:
            raise _UnusableError("unusable transfer syntax", f"the pixel data is encapsulated, {syntax} is native")
    elif syntax not in DECODERS:
        raise _UnusableError("unusable transfer syntax", f"no decoder for {syntax}" if syntax else "it is missing")
    elif not is_encapsulated:
        raise _UnusableError("unusable transfer syntax", f"the pixel data is native, {syntax} is compressed")


def _pixel_format(dataset: Dataset) -> dict[str, Any]:
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    allocated, bits = _whole(dataset, "BitsAllocated"), _whole(dataset, "BitsStored")
    samples, frames = _whole(dataset, "SamplesPerPixel", 1), _whole(dataset, "NumberOfFrames", 1)
    representation, photometric = _whole(dataset, "PixelRepresentation"), _text(dataset, "PhotometricInterpretation")
    faults = (
        (samples != 1, f"{samples} samples a pixel"),
        (photometric not in ("MONOCHROME1", "MONOCHROME2"), f"photometric interpretation {photometric!r}"),
        (frames < 0, f"{frames} frames"),
        (rows < 1 or columns < 1, f"{rows} rows, {columns} columns"),
        (rows * columns > MAX_PIXELS, f"{rows} rows, {columns} columns: more than {MAX_PIXELS} pixels"),
        (allocated not in (8, 16), f"{allocated} bits allocated"),
        (not 1 <= bits <= allocated, f"{bits} bits stored"),
        (_whole(dataset, "HighBit", bits - 1) != bits - 1, "the high bit is not the last of the bits stored"),
        (representation not in (0, 1), f"pixel representation {representation}"),
    )
    for is_fault, detail in faults:
        if is_fault:
            raise _UnusableError("unsupported pixel format", detail)
    signed = representation == 1
    found = {"rows": rows, "columns": columns, "bits": bits, "signed": signed, "frames": max(frames, 1)}
    return found | _padding(dataset, allocated, signed)


def _padding(dataset: Dataset, allocated: int, signed: bool) -> dict[str, int]:
    """Return the range of stored values that are padding (DICOM PS3.3 C.7.5.1.1.2), nothing where there is none."""
    value = _stored_value(dataset, PADDING_VALUE, allocated, signed)
    if value is None:
        return {}
    limit = _stored_value(dataset, PADDING_LIMIT, allocated, signed)
    ends = (value, value if limit is None else limit)
    return {"padding_low": min(ends), "padding_high": max(ends)}


def _stored_value(dataset: Dataset, tag: Tag, allocated: int, signed: bool) -> int | None:
    """Return an element of one stored value as a pixel of that value would be read; None where there is none.

    Files exist that say -2000 as US 63536, or 63536 as SS -2000: only the bits count, not the VR.
    """
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement) or not element.value or len(element.value) > 4:
        return None
    bits = int.from_bytes(element.value, "little" if element.is_little_endian else "big") % (1 << allocated)
    return bits - (1 << allocated) if signed and bits >> (allocated - 1) else bits


def _geometry(elements: Elements, header: Header) -> dict[str, Any]:
    orientation = _numbers(elements, "ImageOrientationPatient", 6)
    spacing = _numbers(elements, "PixelSpacing", 2)
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


def _rescale(elements: Elements) -> dict[str, Any]:
    slope, intercept = _number(elements, "RescaleSlope", math.nan), _number(elements, "RescaleIntercept", math.nan)
    if not math.isfinite(slope) or slope == 0 or not math.isfinite(intercept):
        given = f"{_text(elements, 'RescaleSlope') or 'missing'}, {_text(elements, 'RescaleIntercept') or 'missing'}"
        raise _UnusableError("unusable rescale", f"slope and intercept are {given}")
    return {"slope": slope, "intercept": intercept}


def _position(elements: Elements) -> tuple[float, float, float]:
    return _numbers(elements, "ImagePositionPatient", 3) or NAN3


def _text(elements: Elements, keyword: str) -> str:
    value = elements.get(keyword)
    return "" if value is None else str(value).strip()


def _number(elements: Elements, keyword: str, default: float) -> float:
    try:
        return float(elements.get(keyword, default))
    except (TypeError, ValueError):
        return math.nan


def _numbers(elements: Elements, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return an element's values where they are `count` finite numbers."""
    try:
        values = tuple(float(value) for value in elements.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _whole(elements: Elements, keyword: str, default: int = -1) -> int:
    """Return an element's whole number; `default` where it is missing or empty, -1 where it is something else."""
    value = elements.get(keyword)
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        return -1
