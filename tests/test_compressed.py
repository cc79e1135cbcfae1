"""Every compressed transfer syntax that the decoders know, through the main path: right pixels, or a reason."""

import base64
import hashlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
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

from pipeline import index, window
from pipeline.core.windows import window_image
from pipeline.shell.dicom.file import DECODERS, NATIVE_SYNTAXES
from pipeline.shell.dicom.pixels import decode_pixels
from tests.dicom_files import COLUMNS, ROWS, enhanced_bytes, frame_group, slice_bytes, write_raw
from tests.test_index_window import SIZE, make_job, tables

FILES = {
    "CT_small": ExplicitVRLittleEndian,
    "MR_small": ExplicitVRLittleEndian,
    "MR_small_padded": ExplicitVRLittleEndian,
    "MR_small_implicit": ImplicitVRLittleEndian,
    "MR_small_bigendian": ExplicitVRBigEndian,
    "MR_small_expb": ExplicitVRBigEndian,
    "examples_overlay": ExplicitVRLittleEndian,
    "image_dfl": DeflatedExplicitVRLittleEndian,
    "MR_small_RLE": RLELossless,
    "JPEG-lossy": JPEGExtended12Bit,
    "JPGExtended": JPEGExtended12Bit,
    "MR_small_jpeg_ls_lossless": JPEGLSLossless,
    "JPEGLSNearLossless_08": JPEGLSNearLossless,
    "JPEGLSNearLossless_16": JPEGLSNearLossless,
    "MR_small_jp2klossless": JPEG2000Lossless,
    "J2K_pixelrep_mismatch": JPEG2000Lossless,
    "693_J2KI": JPEG2000,
    "JPEG2000": JPEG2000,
}
"""All files that come with pydicom whose pixels are one grey sample of 8 or 16 bits, but one whose codestream is
damaged on purpose."""

JPEG_EXTENDED_SHA256 = "d30242775a414c01d616447854ebe3f2b20259822894bcd6891f879bcdcbf313"
"""Of the pixels of both files in JPEG Extended, little endian, as libjpeg-turbo decodes them."""

GEOMETRY = {
    "Modality": "CT",
    "PatientID": "p",
    "StudyInstanceUID": "1.2",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "ImagePositionPatient": [0.0, 0.0, 0.0],
    "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    "PixelSpacing": [0.5, 0.5],
    "RescaleSlope": 1,
    "RescaleIntercept": -200,
}


def as_ct(name: str) -> bytes:
    """Return a file that comes with pydicom as a slice of CT, its pixels as they are."""
    dataset = pydicom.dcmread(get_testdata_file(f"{name}.dcm", read=False))
    with disable_value_validation():
        for keyword, value in {**GEOMETRY, "SeriesInstanceUID": name}.items():
            setattr(dataset, keyword, value)
    for keyword in ("NumberOfFrames", "PixelPaddingValue"):
        if keyword in dataset:
            delattr(dataset, keyword)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def expected_pixels(name: str, stored: np.ndarray) -> np.ndarray:
    """Return the stored values (rows, columns) that another decoder finds: pydicom's choice, in this process."""
    if FILES[name] == JPEGExtended12Bit:  # pydicom has none; libjpeg-turbo 3 was asked once
        assert hashlib.sha256(stored.tobytes()).hexdigest() == JPEG_EXTENDED_SHA256
        return stored
    return pydicom.dcmread(get_testdata_file(f"{name}.dcm", read=False)).pixel_array


def check_image(job, row, hu: np.ndarray) -> None:
    """Check a slice's cached image against the windows of its Hounsfield units."""
    written = cv2.imread(row["png"], cv2.IMREAD_UNCHANGED)[:, :, ::-1]
    assert np.array_equal(written, window_image(hu, job.run.settings.view.windows, SIZE)), row["slice_id"]


def run_folder(tmp_path, monkeypatch, files: dict[str, bytes]):
    """Return the job, and SLICES with the images' paths as `png`, of a raw folder of these training slices."""
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "data/small/raw", files, {})
    job = make_job()
    index.main(job)
    window.main(job)
    slices, rejected, images, undecodable = tables(job)
    assert len(rejected) == 0, rejected[["slice_id", "detail"]].to_dict()
    assert len(undecodable) == 0, undecodable[["slice_id", "detail"]].to_dict()
    return job, slices.assign(png=images["path"]).set_index("slice_id", drop=False)


def test_all_grey_files_that_come_with_pydicom(tmp_path, monkeypatch):
    files = {name: as_ct(name) for name in FILES}
    job, slices = run_folder(tmp_path, monkeypatch, files)
    assert slices["transfer_syntax"].to_dict() == FILES
    for name in FILES:
        stored = decode_pixels(files[name])
        expected = expected_pixels(name, stored)
        assert stored.dtype == (np.int16 if expected.dtype.kind == "i" else np.uint16), name
        assert np.array_equal(stored, expected), name
        check_image(job, slices.loc[name], expected.astype(np.int32) - 200)


STORED = (np.add.outer(np.arange(ROWS) * 31, np.arange(COLUMNS) * 17) % 3001 - 1000).astype(np.int16)
GREY = (np.add.outer(np.arange(ROWS) * 3, np.arange(COLUMNS) * 2)).astype(np.uint8)
"""Smooth, so that lossy JPEG is close."""

HT_STORED = (np.add.outer(np.arange(12) * 37, np.arange(10) * 53) % 4096).astype(np.uint16)
HT_CODESTREAM = base64.b64decode(
    "/0//UQApQAAAAAAKAAAADAAAAAAAAAAAAAAACgAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQ"
    "kJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAHEAAf+TwAAmH/0FB3QAAMAAEsAAEwBiAgd0AHj+Agd0AMAAEsAAEoC7AEt0"
    "AHP+MjMAwAATwAAVINv+ASNCdQCkpKTAIQH+tgDAACsgABWAaBRFo+jYL9fgi3cASARBkPQERhCB7LgA/9k="
)
"""HT_STORED in High-Throughput JPEG 2000, reversible, by OpenJPH 0.26.3: no encoder of it is installed here."""


def by_pydicom(stored: np.ndarray, syntax: str, **options) -> bytes:
    """Return the codestream of stored values that pydicom's encoders make."""
    dataset = pydicom.dcmread(BytesIO(slice_bytes(stored)))
    dataset.compress(syntax, generate_instance_uid=False, **options)
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def by_gdcm(stored: np.ndarray, syntax: str, folder: Path, bits: int) -> bytes:
    """Return the codestream of stored values that gdcm makes; only from files it can be had without harm."""
    import gdcm

    native, compressed = folder / "native.dcm", folder / "compressed.dcm"
    native.write_bytes(slice_bytes(stored, BitsStored=bits, SOPClassUID=pydicom.uid.CTImageStorage, SOPInstanceUID="1"))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(native))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(compressed))
    assert writer.Write()
    return get_frame(pydicom.dcmread(compressed).PixelData, 0, number_of_frames=1)


TWELVE = (GREY.astype(np.uint16) * 17) % 4096

SYNTAXES = {
    "JPEG baseline, 8 bit": (JPEGBaseline8Bit, GREY, 2),
    "JPEG extended, 8 bit": (JPEGExtended12Bit, GREY, 2),
    "JPEG extended, 12 bit": (JPEGExtended12Bit, np.sort(TWELVE, axis=0), 2),
    "JPEG lossless, process 14": (JPEGLossless, STORED, 0),
    "JPEG lossless, selection value 1": (JPEGLosslessSV1, STORED, 0),
    "JPEG lossless, 8 bit": (JPEGLosslessSV1, GREY, 0),
    "JPEG-LS lossless": (JPEGLSLossless, STORED, 0),
    "JPEG-LS lossless, 8 bit": (JPEGLSLossless, GREY, 0),
    "JPEG-LS near-lossless": (JPEGLSNearLossless, GREY, 3),
    "JPEG 2000 lossless": (JPEG2000Lossless, STORED, 0),
    "JPEG 2000 lossless, 8 bit": (JPEG2000Lossless, GREY, 0),
    "JPEG 2000 lossy": (JPEG2000, GREY, 6),
    "HTJ2K lossless": (HTJ2KLossless, HT_STORED, 0),
    "HTJ2K lossless, RPCL": (HTJ2KLosslessRPCL, HT_STORED, 0),
    "HTJ2K": (HTJ2K, HT_STORED, 0),
    "RLE": (RLELossless, STORED, 0),
    "RLE, 8 bit": (RLELossless, GREY, 0),
}
"""Transfer syntax, stored values (rows, columns), and by how much a decoded value may differ."""


def codestream_of(name: str, folder: Path) -> bytes:
    syntax, stored, _ = SYNTAXES[name]
    if stored is HT_STORED:
        return HT_CODESTREAM
    if syntax == JPEGLSNearLossless:
        return by_pydicom(stored, syntax, jls_error=3)
    if syntax == JPEG2000:
        return by_pydicom(stored, syntax, j2k_cr=[5])
    if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1):
        return by_gdcm(stored, syntax, folder, bits=12 if "12" in name else 8 * stored.itemsize)
    return by_pydicom(stored, syntax)


def test_the_list_holds_every_syntax_that_is_decoded():
    assert {syntax for syntax, *_ in SYNTAXES.values()} == set(DECODERS)
    assert set(NATIVE_SYNTAXES) <= set(FILES.values())


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_slice_and_a_frame_in_every_compressed_syntax(name, tmp_path, monkeypatch):
    syntax, stored, tolerance = SYNTAXES[name]
    codestream = codestream_of(name, tmp_path)
    bits = {"BitsStored": 12} if "12" in name else {}
    pixels = {"PixelData": encapsulate([codestream]), "syntax": syntax, **bits}
    groups = [frame_group(5.0), frame_group(0.0)]
    twice = {"PixelData": encapsulate([codestream, codestream]), "SeriesInstanceUID": "other"}
    data = slice_bytes(stored, **pixels)
    decoded = decode_pixels(data)
    assert decoded.dtype == (np.int16 if stored.dtype.kind == "i" else np.uint16)
    assert np.abs(decoded.astype(np.int32) - stored).max() <= tolerance

    files = {"one": data, "many": enhanced_bytes(np.stack([stored, stored]), groups, **pixels | twice)}
    monkeypatch.setattr("tests.dicom_files.label_rows", _label_rows_of_frames)
    job, slices = run_folder(tmp_path, monkeypatch, files)
    assert sorted(slices.index) == ["many.1", "many.2", "one"]
    for slice_id in slices.index:
        check_image(job, slices.loc[slice_id], decoded.astype(np.int32) - 1024)


def _label_rows_of_frames(slice_id: str, positive: str | None = None) -> list[str]:
    from pipeline.config import LABELS

    ids = ["many.1", "many.2"] if slice_id == "many" else [slice_id]
    return [f"{name}_{label},0" for name in ids for label in LABELS]
