"""Pixels taken from where the header said they begin: those that a parser finds, or none."""

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
    RLELossless,
)

from pipeline import index, window
from pipeline.core.windows import window_image
from pipeline.learn.slice_data import read_png
from pipeline.shell.dicom.headers import read_headers
from pipeline.shell.dicom.pixels import PixelFile, decode_pixels, stored_at
from tests.dicom_files import COLUMNS, ROWS, enhanced_bytes, frame_group, slice_bytes
from tests.test_dicom import REAL, SIGNED, UNSIGNED, needs_real
from tests.test_index_window import SIZE, head, in_scan, make_job, project, raw_file, run_both, tables

__all__ = ["project"]  # a fixture
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def offset_of(tmp_path: Path, data: bytes) -> int | None:
    path = tmp_path / "slice.dcm"
    path.write_bytes(data)
    (header,) = read_headers(path)
    assert header.reason == ""
    return header.pixel_offset


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("stored", [SIGNED, UNSIGNED], ids=["signed", "unsigned"])
def test_plain_pixels_are_a_view_of_the_file(tmp_path, syntax, stored):
    data = slice_bytes(stored, syntax=syntax)
    offset = offset_of(tmp_path, data)
    assert offset == len(data) - stored.nbytes
    found = stored_at(data, offset, ROWS, COLUMNS, stored is SIGNED)
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)
    assert not found.flags.owndata


@pytest.mark.parametrize("vr", [b"OB", b"UN"])
def test_other_names_of_the_same_bytes(tmp_path, vr):
    data = slice_bytes(SIGNED).replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0" + vr)
    np.testing.assert_array_equal(stored_at(data, offset_of(tmp_path, data), ROWS, COLUMNS, True), SIGNED)


def test_bytes_behind_the_pixels_do_no_harm(tmp_path):
    data = slice_bytes(SIGNED, PixelData=SIGNED.tobytes() + bytes(2)) + b"\xfc\xff\xfc\xffOB\0\0\2\0\0\0\0\0"
    np.testing.assert_array_equal(stored_at(data, offset_of(tmp_path, data), ROWS, COLUMNS, True), SIGNED)


@pytest.mark.parametrize(
    "data",
    [
        slice_bytes(SIGNED, syntax=ExplicitVRBigEndian),
        slice_bytes(SIGNED, syntax=DeflatedExplicitVRLittleEndian),
        slice_bytes(SIGNED.astype(np.int8)),
        slice_bytes(SIGNED, syntax=RLELossless, PixelData=encapsulate([b"\x02" + bytes(70)])),
    ],
    ids=["big endian", "deflated", "8 bits", "compressed"],
)
def test_of_other_files_no_place_is_told(tmp_path, data):
    assert offset_of(tmp_path, data) is None


def test_of_several_frames_no_place_is_told(tmp_path):
    path = tmp_path / "frames.dcm"
    path.write_bytes(enhanced_bytes(np.stack([SIGNED, SIGNED]), [frame_group(0.0), frame_group(5.0)]))
    assert [header.pixel_offset for header in read_headers(path)] == [None, None]


@pytest.mark.parametrize("syntax", PLAIN)
def test_what_the_file_does_not_say_any_more_is_not_taken(tmp_path, syntax):
    data = slice_bytes(SIGNED, syntax=syntax)
    offset = offset_of(tmp_path, data)
    asked = (ROWS, COLUMNS, True)
    assert stored_at(data, offset, *asked) is not None
    for place in (0, 3, 12, offset - 1, offset + 1, offset - 2, offset + 2, len(data), len(data) + 9):
        assert stored_at(data, place, *asked) is None
    for wrong in ((COLUMNS, ROWS, True), (ROWS - 1, COLUMNS, True), (ROWS, COLUMNS // 2, True), (ROWS, COLUMNS, False)):
        assert stored_at(data, offset, *wrong) is None
    assert stored_at(data[:-1], offset, *asked) is None
    assert stored_at(b"", offset, *asked) is None
    for length in (0xFFFFFFFF, SIGNED.nbytes - 2, 0):
        assert stored_at(data[: offset - 4] + struct.pack("<L", length) + data[offset:], offset, *asked) is None
    of_8_bits = slice_bytes(np.zeros((ROWS, 2 * COLUMNS), np.int8), syntax=syntax)
    assert stored_at(of_8_bits, len(of_8_bits) - SIGNED.nbytes, ROWS, 2 * COLUMNS, True) is None


@pytest.mark.parametrize("seed", range(50))
def test_no_damage_raises(tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(slice_bytes(SIGNED, syntax=PLAIN[seed % 2]))
    offset = offset_of(tmp_path, bytes(data))
    for place in rng.integers(0, offset, 20):
        data[place] = rng.integers(0, 256)
    found = stored_at(bytes(data[: rng.integers(offset, len(data) + 1)]), offset, ROWS, COLUMNS, True)
    assert found is None or found.shape == (ROWS, COLUMNS)


def test_a_file_that_comes_with_pydicom_agrees_with_the_parser():
    path = get_testdata_file("CT_small.dcm", read=False)
    data, (header,) = Path(path).read_bytes(), read_headers(path)
    found = stored_at(data, header.pixel_offset, header.rows, header.columns, header.signed)
    np.testing.assert_array_equal(found, pydicom.dcmread(path).pixel_array)


@needs_real
def test_real_slices_agree_with_the_parser():
    for path in sorted(REAL.glob("*.dcm")):
        data, (header,) = path.read_bytes(), read_headers(path)
        found = stored_at(data, header.pixel_offset, header.rows, header.columns, header.signed)
        np.testing.assert_array_equal(found, decode_pixels(data))


def test_plain_slices_are_not_parsed_again(project, monkeypatch):
    run_both()
    expected = {path.name: path.read_bytes() for path in make_job().paths.png.rglob("*.png")}

    def parse(*_):
        raise AssertionError("parsed")

    monkeypatch.setattr("pipeline.shell.slice_images.PixelFile", parse)
    window.main(make_job(force=True))
    assert {path.name: path.read_bytes() for path in make_job().paths.png.rglob("*.png")} == expected


def test_what_changed_since_it_was_indexed_is_parsed(project, monkeypatch):
    pixels = head(150)
    moved, turned = raw_file(project, "stage_2_test/T_3.dcm"), raw_file(project, "stage_2_test/T_2.dcm")
    moved.write_bytes(in_scan(2, 15.0, PixelData=pixels.tobytes() + bytes(10)))
    job = make_job()
    index.main(job)
    sizes = [file.stat().st_size for file in (moved, turned)]
    moved.write_bytes(in_scan(2, 15.0, StudyID="1"))  # an element of ten bytes more: the pixels begin further on
    turned.write_bytes(in_scan(2, 10.0, Rows=COLUMNS, Columns=ROWS))
    assert [file.stat().st_size for file in (moved, turned)] == sizes
    parsed = []
    monkeypatch.setattr(
        "pipeline.shell.slice_images.PixelFile", lambda *given: parsed.append(given) or PixelFile(*given)
    )
    window.main(job)
    assert len(parsed) == 2
    _, _, images, rejected = tables(job)
    assert rejected["slice_id"].tolist() == ["T_2"]
    assert rejected["detail"][0] == f"ValueError: ({COLUMNS}, {ROWS}) pixels, expected {ROWS} x {COLUMNS}"
    expected = window_image(pixels - np.int16(1024), job.run.settings.view.windows, SIZE)
    np.testing.assert_array_equal(read_png(Path(images.set_index("slice_id")["path"]["T_3"])), expected)
