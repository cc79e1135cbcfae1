"""Multi-frame CT: each frame a slice with its own place and rescale, and a name that the CSVs can ask for."""

import logging
import time
from io import BytesIO

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

import pipeline.shell.dicom.pixels as pixels_module
from pipeline import index, window
from pipeline.config import UserError
from pipeline.core.windows import window_image
from pipeline.shell.dicom.headers import read_headers
from pipeline.shell.dicom.pixels import decode_pixels
from pipeline.status import raw_notes
from tests.dicom_files import (
    AXIAL,
    COLUMNS,
    ROWS,
    enhanced_bytes,
    frame_group,
    items,
    shared_groups,
    slice_bytes,
    truncated,
    write_labels,
    write_raw,
    write_sample,
)
from tests.test_index_window import SIZE, all_files, make_job, new_images, tables

STORED = np.random.default_rng(0).integers(900, 1200, (3, ROWS, COLUMNS)).astype(np.int16)
GROUPS = [frame_group(5.0 * k) for k in range(3)]


def headers_of(tmp_path, data: bytes):
    path = tmp_path / "file.dcm"
    path.write_bytes(data)
    return read_headers(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_each_frame_has_its_place(tmp_path, syntax):
    data = enhanced_bytes(STORED, GROUPS, syntax=syntax)
    headers = headers_of(tmp_path, data)
    assert [header.reason for header in headers] == [""] * 3
    assert [(header.frame, header.frames) for header in headers] == [(1, 3), (2, 3), (3, 3)]
    assert [header.position_mm for header in headers] == [(-125.0, -130.5, 5.0 * k) for k in range(3)]
    for header in headers:
        assert header.orientation == tuple(AXIAL)
        assert (header.row_mm, header.column_mm, header.thickness_mm) == (0.45, 0.5, 5.0)
        assert (header.slope, header.intercept) == (1.0, -1024.0)
    for k in range(3):
        assert np.array_equal(decode_pixels(data, k + 1), STORED[k])


def test_a_frame_s_own_groups_stand_over_the_shared_ones_and_these_over_the_data_set(tmp_path):
    own = items(RescaleIntercept=-1000, RescaleSlope=2, RescaleType="HU")
    groups = [GROUPS[0], frame_group(5.0, PixelValueTransformationSequence=own), GROUPS[2]]
    shared = shared_groups(PixelMeasuresSequence=items(SliceThickness=2.5))
    data = enhanced_bytes(STORED, groups, shared, RescaleIntercept=7, RescaleSlope=7, PixelSpacing=[0.7, 0.8])
    headers = headers_of(tmp_path, data)
    assert [(header.slope, header.intercept) for header in headers] == [(1, -1024), (2, -1000), (1, -1024)]
    assert {(header.row_mm, header.column_mm, header.thickness_mm) for header in headers} == {(0.7, 0.8, 2.5)}


def with_undefined_lengths(data: bytes) -> bytes:
    dataset = pydicom.dcmread(DicomBytesIO(data))
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        dataset[keyword].is_undefined_length = True
        for item in dataset[keyword].value:
            item.is_undefined_length_sequence_item = True
            for element in item:
                element.is_undefined_length = True
    out = DicomBytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_sequences_may_have_undefined_lengths_and_be_longer_than_the_first_read(tmp_path):
    stored = np.zeros((900, 3, 2), np.int16)
    stored[:, 1, 0] = np.arange(900)
    data = enhanced_bytes(stored, [frame_group(0.5 * k) for k in range(900)])
    for form in (data, with_undefined_lengths(data)):
        assert form.index(b"\xe0\x7f\x10\x00") > 1 << 15
        headers = headers_of(tmp_path, form)
        assert [header.reason for header in headers] == [""] * 900
        assert [header.position_mm[2] for header in headers] == [0.5 * k for k in range(900)]
        assert decode_pixels(form, 778)[1, 0] == 777


def test_one_enhanced_frame_is_one_slice(tmp_path):
    (header,) = headers_of(tmp_path, enhanced_bytes(STORED[:1], GROUPS[1:2]))
    assert (header.reason, header.frame, header.frames, header.position_mm[2]) == ("", 1, 1, 5.0)
    (header,) = headers_of(tmp_path, enhanced_bytes(STORED[:1], [], ImagePositionPatient=[1.0, 2.0, 3.0]))
    assert (header.reason, header.position_mm) == ("", (1.0, 2.0, 3.0))


def test_a_frame_that_cannot_be_used_is_rejected_alone(tmp_path):
    localizer = items(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])
    no_slope = items(RescaleIntercept=0)
    groups = [
        frame_group(0.0),
        frame_group(5.0, CTImageFrameTypeSequence=localizer),
        frame_group(10.0, PixelValueTransformationSequence=no_slope),
        items(PlanePositionSequence=items(ImagePositionPatient=[1.0, 2.0]))[0],
        frame_group(20.0),
    ]
    shared = shared_groups(PixelValueTransformationSequence=items(RescaleIntercept=-1024))
    groups[0].PixelValueTransformationSequence = items(RescaleSlope=1)
    groups[4].PixelValueTransformationSequence = items(RescaleSlope=1)
    stored = np.concatenate([STORED, STORED[:2]])
    headers = headers_of(tmp_path, enhanced_bytes(stored, groups, shared))
    assert [(header.frame, header.reason) for header in headers] == [
        (1, ""),
        (2, "not a CT slice"),
        (3, "unusable rescale"),
        (4, "unusable geometry"),
        (5, ""),
    ]


def test_frames_behind_the_end_of_the_file_are_truncated(tmp_path):
    headers = headers_of(tmp_path, truncated(enhanced_bytes(STORED, GROUPS), ROWS * COLUMNS * 2 + 10))
    assert [header.reason for header in headers] == ["", "truncated pixel data", "truncated pixel data"]
    frame = ROWS * COLUMNS * 2
    assert headers[2].detail == f"holds {2 * frame - 10} of {3 * frame} bytes of pixel data"


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"NumberOfFrames": 4}, "unusable geometry", "4 frames, but functional groups of 3"),
        ({"PerFrameFunctionalGroupsSequence": None}, "unusable geometry", "3 frames, but functional groups of 0"),
        (
            {"PerFrameFunctionalGroupsSequence": None, "SharedFunctionalGroupsSequence": None},
            "unsupported pixel format",
            "3 frames, and no functional groups",
        ),
        ({"Modality": "MR"}, "not a CT slice", "Modality is MR"),
        ({"NumberOfFrames": -2}, "unsupported pixel format", "-2 frames"),
    ],
)
def test_a_file_none_of_whose_frames_can_be_used_is_rejected_once(tmp_path, changes, reason, detail):
    (header,) = headers_of(tmp_path, enhanced_bytes(STORED, GROUPS, **changes))
    assert (header.reason, header.frame) == (reason, 0)
    assert detail in header.detail


def rle(stored: np.ndarray) -> bytes:
    """Return the codestream of one frame, run lengths by pydicom."""
    dataset = pydicom.dcmread(DicomBytesIO(slice_bytes(stored)))
    dataset.compress(RLELossless, generate_instance_uid=False)
    return pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize("table", ["basic offsets", "no offsets", "extended offsets"])
def test_compressed_frames(table):
    codestreams = [rle(frame) for frame in STORED]
    changes = {"PixelData": encapsulate(codestreams, has_bot=table == "basic offsets")}
    if table == "extended offsets":
        names = ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        changes = dict(zip(names, encapsulate_extended(codestreams), strict=True))
    data = enhanced_bytes(STORED, GROUPS, syntax=RLELossless, **changes)
    for k in (0, 1, 2, 1):
        assert np.array_equal(decode_pixels(data, k + 1), STORED[k])
    with pytest.raises(EOFError, match="ends before frame 4"):
        decode_pixels(data, 4)


def test_a_file_that_is_too_large_to_hold_is_read_frame_by_frame(project, monkeypatch):
    train = project / "data/small/raw/stage_2_train"
    labels = {f"{stem}.{k}": None for stem in ("many", "packed") for k in (1, 2, 3)}
    packed = enhanced_bytes(
        STORED, GROUPS, syntax=RLELossless, PixelData=encapsulate([rle(f) for f in STORED]), SeriesInstanceUID="packed"
    )
    (train / "packed.dcm").write_bytes(packed)
    (train / "many.dcm").write_bytes(enhanced_bytes(STORED, GROUPS))
    write_labels(project / "data/small/raw/stage_2_train.csv", labels | {"one": None})
    job = make_job()
    index.main(job)
    window.main(job)
    at_once, table = all_files(job.paths.png), job.paths.images.read_bytes()
    monkeypatch.setattr("pipeline.shell.slice_images.WHOLE_BYTES", 1000)
    job = make_job(force=True)
    assert new_images(job) == 7
    assert all_files(job.paths.png) == at_once
    assert job.paths.images.read_bytes() == table


def test_a_compressed_file_has_one_time_for_all_its_frames(monkeypatch):
    monkeypatch.setattr(pixels_module, "FILE_SECONDS", 0.5)
    endless = [b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64)] * 3
    data = enhanced_bytes(STORED, GROUPS, syntax=JPEG2000Lossless, PixelData=encapsulate(endless))
    pixels = pixels_module.PixelFile(BytesIO(data), len(data))
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="decoding took more than 0.5 s"):
        pixels.frame(1)
    for number in (2, 3):
        with pytest.raises(TimeoutError):
            pixels.frame(number)
    assert time.monotonic() - began < 2


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A multi-frame training file, its frames against their order, whose third frame is a localizer."""
    monkeypatch.chdir(tmp_path)
    localizer = items(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])
    groups = [frame_group(5.0), frame_group(0.0), frame_group(9.0, CTImageFrameTypeSequence=localizer)]
    raw = tmp_path / "data/small/raw"
    write_raw(raw, {"many": enhanced_bytes(STORED, groups), "one": slice_bytes(SeriesInstanceUID="other")}, {})
    write_labels(raw / "stage_2_train.csv", {"many.1": "subdural", "many.2": None, "many.3": None, "one": None})
    return tmp_path


def test_frames_become_slices_with_images(project):
    job = make_job(max_rejected=1.0)
    index.main(job)
    window.main(job)
    slices, rejected, images, _ = tables(job)
    assert slices["slice_id"].tolist() == ["many.2", "many.1", "one"]
    assert slices["frame"].tolist() == [2, 1, 1]
    assert slices["position"].tolist() == [0, 1, 0]
    assert slices["path"].nunique() == 2
    assert slices["subdural"].tolist() == [0, 1, 0]
    assert rejected[["slice_id", "reason", "scan_id"]].to_numpy().tolist() == [
        ["many.3", "not a CT slice", "ID_series"]
    ]
    assert rejected["z_mm"].tolist() == [9.0]
    assert images["path"].str.rpartition("/")[2].tolist() == ["many.2.png", "many.1.png", "one.png"]
    assert images["digest"].nunique() == 2  # of the file: its frames change together
    for path, frame in zip(images["path"], (1, 0), strict=False):
        expected = window_image(STORED[frame] - np.int16(1024), job.run.settings.view.windows, SIZE)
        assert np.array_equal(cv2.imread(path, cv2.IMREAD_UNCHANGED)[:, :, ::-1], expected)
    assert new_images(job) == 0
    (project / images["path"][0]).unlink()
    assert new_images(job) == 1
    assert raw_notes(job.paths) == []


def test_labels_and_frames_that_do_not_meet(project):
    raw = project / "data/small/raw"
    write_labels(raw / "stage_2_train.csv", {"many": None, "many.1": None, "many.4": None, "one.1": None, "one": None})
    job = make_job(max_rejected=1.0)
    index.main(job)
    slices, rejected, *_ = tables(job)
    assert slices["slice_id"].tolist() == ["many.1", "one"]
    found = rejected.set_index("slice_id")
    assert found["reason"].to_dict() == {
        "many": "no such frame",
        "many.2": "no label",
        "many.3": "no label",
        "many.4": "no such frame",
        "one.1": "no such frame",
    }
    assert found["detail"]["many.4"] == "the file has 3 frames"
    assert found["detail"]["one.1"] == "the file has one frame, one"
    assert found["patient_id"]["many.4"] == "ID_patient"
    assert found["z_mm"].drop(["many.2", "many.3"]).isna().all()


def test_an_unreadable_test_file_owes_every_slice_asked_of_it(project):
    raw = project / "data/small/raw"
    (raw / "stage_2_test" / "t.dcm").write_bytes(b"broken")
    write_sample(raw / "stage_2_sample_submission.csv", ["t.1", "t.2"])
    job = make_job(max_rejected=1.0)
    index.main(job)
    rejected = tables(job)[1].set_index("slice_id")
    assert rejected.loc[["t.1", "t.2"], "reason"].tolist() == ["unreadable"] * 2


def test_an_id_that_is_a_file_s_stem_is_that_file_s(project):
    """Files named by UIDs often look like each other's frames."""
    raw = project / "data/small/raw"
    (raw / "stage_2_train" / "many.1.dcm").write_bytes(slice_bytes(z_mm=50.0, SeriesInstanceUID="third"))
    job = make_job(max_rejected=1.0)
    index.main(job)
    slices, rejected, *_ = tables(job)
    row = slices.set_index("slice_id").loc["many.1"]
    assert row["path"].endswith("/many.1.dcm")
    assert rejected[["path", "slice_id", "reason"]].to_numpy().tolist() == [
        ["data/small/raw/stage_2_train/many.dcm", "many.1", "no label"],
        ["data/small/raw/stage_2_train/many.dcm", "many.3", "not a CT slice"],
    ]


def test_what_no_file_can_hold_stops_before_any_header_is_read(project, monkeypatch, caplog):
    raw = project / "data/small/raw"
    monkeypatch.setattr(index, "parallel_map", None)
    (raw / "stage_2_test" / "t.dcm").write_bytes(b"broken")
    write_sample(raw / "stage_2_sample_submission.csv", ["t.1", "t.01", "t.0", "t.x", "u.1"])
    with pytest.raises(UserError, match=r"4 slices have no file in stage_2_test/: t.01, t.0, t.x, u.1"):
        index.main(make_job())
    (raw / "stage_2_test" / "t.dcm").unlink()
    (raw / "stage_2_sample_submission.csv").unlink()
    write_labels(raw / "stage_2_train.csv", {"many.1": None, "gone.1": None})
    with caplog.at_level(logging.WARNING), pytest.raises(TypeError):
        index.main(make_job())
    assert "1 labelled slices have no file: gone.1" in caplog.text
