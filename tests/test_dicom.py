"""DICOM reading: right pixels, or a reason; never an exception, never a black image."""

import os
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.core.hounsfield import to_hu
from pipeline.schema import REASONS
from pipeline.shell.dicom.file import BROKEN_DICOM
from pipeline.shell.dicom.headers import Header, read_headers
from pipeline.shell.dicom.pixels import decode_pixels
from tests.dicom_files import COLUMNS, ROWS, slice_bytes, truncated

REAL = Path(os.environ.get("REALCT", Path(__file__).resolve().parents[2] / "shared" / "realct")) / "ge-head"
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"no real slices in {REAL}; set REALCT to the folder of ge-head"
)

RNG = np.random.default_rng(0)
SIGNED = RNG.integers(-2000, 3000, (ROWS, COLUMNS)).astype(np.int16)
UNSIGNED = RNG.integers(0, 4096, (ROWS, COLUMNS)).astype(np.uint16)
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def read_header(path: Path) -> Header:
    """Return the one header of a file with one slice."""
    (header,) = read_headers(path)
    return header


def header_of(tmp_path: Path, data: bytes) -> Header:
    path = tmp_path / "slice.dcm"
    path.write_bytes(data)
    header = read_header(path)
    assert header.reason in ("", *REASONS)
    assert bool(header.reason) == bool(header.detail)
    assert header.bytes == len(data)
    return header


@pytest.mark.parametrize("syntax", [*NATIVE, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("stored", [SIGNED, UNSIGNED], ids=["signed", "unsigned"])
def test_uncompressed_pixels_come_back_exactly(tmp_path, syntax, stored):
    data = slice_bytes(stored, syntax=syntax)
    assert header_of(tmp_path, data).reason == ""
    decoded = decode_pixels(data)
    assert decoded.dtype == stored.dtype
    assert decoded.dtype.isnative
    assert np.array_equal(decoded, stored)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=["rle", "jpeg-ls", "jpeg 2000"])
@pytest.mark.parametrize("stored", [SIGNED, UNSIGNED], ids=["signed", "unsigned"])
def test_compressed_pixels_come_back_exactly(tmp_path, syntax, stored):
    path = tmp_path / "slice.dcm"
    path.write_bytes(slice_bytes(stored))
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    assert read_header(path).reason == ""
    assert np.array_equal(decode_pixels(path.read_bytes()), stored)


def test_a_header_is_read_as_it_is(tmp_path):
    stored = RNG.integers(0, 4096, (ROWS, COLUMNS)).astype(np.uint16)
    header = header_of(tmp_path, slice_bytes(stored, z_mm=12.5, BitsStored=12, SliceThickness=4.0))
    assert header.position_mm == (-125.0, -130.5, 12.5)
    assert header.orientation == (1, 0, 0, 0, 1, 0)
    assert (header.rows, header.columns, header.row_mm, header.column_mm) == (ROWS, COLUMNS, 0.45, 0.5)
    assert (header.bits, header.signed, header.slope, header.intercept) == (12, False, 1.0, -1024.0)
    assert (header.patient_id, header.study_id, header.series_id) == ("ID_patient", "ID_study", "ID_series")
    assert header.thickness_mm == 4.0
    assert header.transfer_syntax == ExplicitVRLittleEndian


def test_the_intercept_may_be_written_with_decimals(tmp_path):
    data = slice_bytes().replace(b"-1024 ", b"-1024.")  # a text of the same length
    assert header_of(tmp_path, data).intercept == -1024.0


def test_without_a_patient_the_study_stands_for_one(tmp_path):
    assert header_of(tmp_path, slice_bytes(PatientID=None)).patient_id == "ID_study"


def test_monochrome1_has_the_same_hounsfield_units():
    hu = [
        to_hu(decode_pixels(slice_bytes(SIGNED, PhotometricInterpretation=interpretation)), 1.0, -1024.0, 16, True)
        for interpretation in ("MONOCHROME1", "MONOCHROME2")
    ]
    assert np.array_equal(*hu)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("lost", [1, 1000, ROWS * COLUMNS * 2 - 2])
def test_truncated_pixels_are_found_without_decoding(tmp_path, syntax, lost):
    header = header_of(tmp_path, truncated(slice_bytes(syntax=syntax), lost))
    assert header.reason == "truncated pixel data"
    assert header.detail == f"holds {ROWS * COLUMNS * 2 - lost} of {ROWS * COLUMNS * 2} bytes of pixel data"
    # Its rows of the submission are filled from its neighbours.
    assert header.series_id == "ID_series"
    assert np.isfinite(header.position_mm).all()


def test_pixels_that_end_early_by_their_own_length_are_truncated(tmp_path):
    header = header_of(tmp_path, slice_bytes(PixelData=bytes(100)))
    assert (header.reason, header.detail) == (
        "truncated pixel data",
        f"holds 100 of {ROWS * COLUMNS * 2} bytes of pixel data",
    )


def test_bytes_behind_the_pixels_do_no_harm(tmp_path):
    data = slice_bytes(SIGNED, PixelData=SIGNED.tobytes() + bytes(2))
    assert header_of(tmp_path, data).reason == ""
    assert np.array_equal(decode_pixels(data), SIGNED)


RGB = np.zeros((ROWS, COLUMNS, 3), np.uint8)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"PixelData": None}, "no pixel data", "ends before the pixel data"),
        ({"PixelData": b""}, "no pixel data", "empty"),
        ({"Modality": "MR"}, "not a CT slice", "Modality is MR"),
        ({"Modality": None}, "not a CT slice", "Modality is missing"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "not a CT slice", "a localizer"),
        ({"SeriesInstanceUID": None}, "not a CT slice", "SeriesInstanceUID is missing"),
        ({"SeriesInstanceUID": "../../x"}, "not a CT slice", "cannot name a folder"),
        ({"SeriesInstanceUID": ".."}, "not a CT slice", "cannot name a folder"),
        ({"SeriesInstanceUID": "a\nb"}, "not a CT slice", "cannot name a folder"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "unsupported pixel format", "3 samples a pixel"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported pixel format", "'PALETTE COLOR'"),
        ({"NumberOfFrames": 4}, "unsupported pixel format", "4 frames"),
        ({"Rows": 0}, "unsupported pixel format", "0 rows, 40 columns"),
        ({"Rows": None}, "unsupported pixel format", "-1 rows"),
        ({"Rows": 60000, "Columns": 60000}, "unsupported pixel format", "more than 16777216 pixels"),
        ({"BitsAllocated": 1, "BitsStored": 1}, "unsupported pixel format", "1 bits allocated"),
        ({"BitsAllocated": 32}, "unsupported pixel format", "32 bits allocated"),
        ({"BitsStored": 12, "HighBit": 15}, "unsupported pixel format", "the high bit"),
        ({"ImagePositionPatient": None}, "unusable geometry", "ImagePositionPatient"),
        ({"ImagePositionPatient": [1.0, 2.0]}, "unusable geometry", "ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "unusable geometry", "ImageOrientationPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "unusable geometry", "right angles"),
        ({"ImageOrientationPatient": [0] * 6}, "unusable geometry", "unit vectors"),
        ({"PixelSpacing": None}, "unusable geometry", "PixelSpacing"),
        ({"PixelSpacing": [0, 0.5]}, "unusable geometry", "PixelSpacing"),
        ({"RescaleSlope": None}, "unusable rescale", "missing, -1024"),
        ({"RescaleSlope": 0}, "unusable rescale", "0, -1024"),
        ({"RescaleSlope": "NaN"}, "unusable rescale", "slope and intercept"),
        ({"RescaleIntercept": None}, "unusable rescale", "1.0, missing"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_used_has_its_reason(tmp_path, changes, reason, detail):
    header = header_of(tmp_path, slice_bytes(**changes))
    assert header.reason == reason
    assert detail in header.detail


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "the file is empty"),
        (b"ID,Label\n" * 200, "InvalidDicomError"),
        (slice_bytes()[:90], "InvalidDicomError"),
    ],
    ids=["empty", "text", "preamble"],
)
def test_what_is_no_dicom_is_unreadable(tmp_path, data, detail):
    header = header_of(tmp_path, data)
    assert header.reason == "unreadable"
    assert detail in header.detail


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path):
    assert read_header(tmp_path / "absent.dcm").reason == "unreadable"
    assert read_header(tmp_path).reason == "unreadable"


@pytest.mark.parametrize(
    ("changes", "padding"),
    [
        ({}, (None, None)),
        ({"PixelPaddingRangeLimit": -100}, (None, None)),  # of nothing
        ({"PixelPaddingValue": -2000}, (-2000, -2000)),
        ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990}, (-2000, -1990)),
        ({"PixelPaddingValue": -1990, "PixelPaddingRangeLimit": -2000}, (-2000, -1990)),
    ],
)
@pytest.mark.parametrize("syntax", NATIVE)
def test_padding_is_read_in_every_form(tmp_path, syntax, changes, padding):
    header = header_of(tmp_path, slice_bytes(SIGNED, syntax=syntax, **changes))
    assert (header.padding_low, header.padding_high) == padding
    unsigned = {keyword: value + (1 << 16) for keyword, value in changes.items()}
    header = header_of(tmp_path, slice_bytes(UNSIGNED, syntax=syntax, **unsigned))
    assert (header.padding_low, header.padding_high) == tuple(p and p + (1 << 16) for p in padding)


@pytest.mark.parametrize(("stored_type", "value", "low"), [(np.uint8, 255, 255), (np.int8, -1, -1), (np.uint8, 7, 7)])
def test_padding_of_8_bits(tmp_path, stored_type, value, low):
    data = slice_bytes(np.zeros((ROWS, COLUMNS), stored_type), PixelPaddingValue=value)
    assert header_of(tmp_path, data).padding_low == low


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    assert read_header(tmp_path / "pipe.dcm").detail == "OSError: not a regular file but a pipe"
    assert read_header(Path("/dev/zero")).detail == "OSError: not a regular file but a device"


def test_a_long_header_is_read(tmp_path):
    data = slice_bytes(SIGNED, EncapsulatedDocument=bytes(1 << 20), TextValue="x" * 70_000)
    assert header_of(tmp_path, data).reason == ""
    assert np.array_equal(decode_pixels(data), SIGNED)
    cut = data[: 1 << 20]
    assert header_of(tmp_path, cut).reason == "no pixel data"


def test_a_huge_slice_is_never_allocated(tmp_path):
    path = tmp_path / "slice.dcm"
    path.write_bytes(slice_bytes(Rows=65535, Columns=65535))
    assert read_header(path).reason == "unsupported pixel format"
    with pytest.raises(BROKEN_DICOM):
        decode_pixels(path.read_bytes())


@pytest.mark.parametrize("seed", range(6))
def test_no_damage_raises(tmp_path, seed):
    rng = np.random.default_rng(seed)
    compressed = get_testdata_file("693_J2KI.dcm", read=False)
    sound = [slice_bytes(syntax=s) for s in (*NATIVE, DeflatedExplicitVRLittleEndian)]
    sound.append(Path(compressed).read_bytes()[:20000])
    for original in sound:
        for _ in range(12):
            data = bytearray(original)
            for _ in range(rng.integers(1, 12)):
                # The header, where damage leads furthest.
                data[rng.integers(128, min(900, len(data)))] = rng.integers(256)
            data = bytes(data[: rng.integers(100, len(data) + 1)])
            header_of(tmp_path, data)
            try:
                decode_pixels(data)
            except BROKEN_DICOM:
                continue


def test_a_compressed_slice_cut_short_is_found_by_decoding(tmp_path):
    data = slice_bytes(
        syntax=RLELossless, PixelData=encapsulate([struct.pack("<16L", 2, 64, 5000, *[0] * 13) + b"\x00\x01"])
    )
    assert header_of(tmp_path, data).reason == ""
    with pytest.raises(BROKEN_DICOM):
        decode_pixels(data)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CT_small.dcm", ""),
        ("693_J2KI.dcm", ""),
        ("J2K_pixelrep_mismatch.dcm", ""),
        ("MR_small.dcm", "not a CT slice"),
        ("MR_truncated.dcm", "not a CT slice"),
        ("SC_rgb_rle_2frame.dcm", "not a CT slice"),
        ("no_meta.dcm", "unreadable"),
        ("rtplan_truncated.dcm", "not a CT slice"),
        ("badVR.dcm", "not a CT slice"),
    ],
)
def test_files_that_come_with_pydicom(name, reason):
    path = Path(get_testdata_file(name, read=False))
    header = read_header(path)
    assert header.reason == reason
    if not reason:
        expected = pydicom.dcmread(path)
        stored = decode_pixels(path.read_bytes())
        assert np.array_equal(stored, expected.pixel_array)
        assert stored.shape == (header.rows, header.columns)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small",
        "MR_small_RLE",
        "MR_small_bigendian",
        "MR_small_implicit",
        "MR_small_jp2klossless",
        "MR_small_jpeg_ls_lossless",
    ],
)
def test_one_image_in_every_syntax(name):
    expected = pydicom.dcmread(get_testdata_file("MR_small.dcm", read=False)).pixel_array
    assert np.array_equal(decode_pixels(Path(get_testdata_file(f"{name}.dcm", read=False)).read_bytes()), expected)


@needs_real
def test_real_slices_are_read_as_pydicom_reads_them():
    for path in sorted(REAL.glob("*.dcm"))[::9]:
        header = read_header(path)
        assert (header.reason, header.bits, header.signed, header.intercept) == ("", 16, True, 0.0)
        assert np.array_equal(decode_pixels(path.read_bytes()), pydicom.dcmread(path).pixel_array)
