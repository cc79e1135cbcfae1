"""Write CT slices as DICOM files with the tags of the RSNA 2019 files and no others."""

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

PREAMBLE = b"\0" * 128
PIXEL_DATA_TAG = (0x7FE0, 0x0010)


@dataclass(frozen=True)
class SliceHeader:
    """What a file says of its slice; identifiers and numbers as text stand in the file as they are."""

    slice_id: str
    patient_id: str
    study_id: str
    series_id: str
    origin_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: float
    bits: int
    intercept: str
    window_centre: tuple[str, ...]
    window_width: tuple[str, ...]
    implicit_vr: bool


def write_slice(path: Path, header: SliceHeader, stored: np.ndarray, truncated: bool = False) -> None:
    """Write one file. `stored`: uint16 or int16 (rows, columns); its sign becomes PixelRepresentation.

    The same arguments give the same bytes. With `truncated` the file ends half way through its pixels, while their
    length still claims all.
    """
    # The identifiers of these files are no valid UIDs: pydicom would warn of every one.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    pixels = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    length = struct.pack("<L", len(pixels))
    element = struct.pack("<HH", *PIXEL_DATA_TAG) + (length if header.implicit_vr else b"OW\0\0" + length)
    head = _head_bytes(header, stored)
    path.write_bytes(head + element + (pixels[: len(pixels) // 2] if truncated else pixels))


def _head_bytes(header: SliceHeader, stored: np.ndarray) -> bytes:
    """Return all of the file that stands before the pixels."""
    data = Dataset()
    data.SOPInstanceUID = header.slice_id
    data.Modality = "CT"
    data.PatientID = header.patient_id
    data.StudyInstanceUID = header.study_id
    data.SeriesInstanceUID = header.series_id
    data.StudyID = ""
    data.ImagePositionPatient = [f"{value:.6f}" for value in header.origin_mm]
    data.ImageOrientationPatient = [f"{value:.6f}" for value in header.orientation]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.PixelSpacing = [f"{header.pixel_mm:.6f}"] * 2
    data.BitsAllocated = 16
    data.BitsStored = header.bits
    data.HighBit = header.bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.WindowCenter = list(header.window_centre)
    data.WindowWidth = list(header.window_width)
    data.RescaleIntercept = header.intercept
    data.RescaleSlope = "1"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = header.slice_id
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if header.implicit_vr else ExplicitVRLittleEndian
    data.file_meta = meta
    data.preamble = PREAMBLE
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, implicit_vr=header.implicit_vr, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()
