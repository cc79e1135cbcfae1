"""The main path over a folder of bad input: every file in SLICES with right pixels, or in REJECTED with its reason."""

import json
import logging
import os
import socket
import struct
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, RLELossless

from pipeline import index, window
from pipeline.core.windows import window_image
from pipeline.shell.dicom.file import BROKEN_DICOM
from pipeline.shell.dicom.headers import read_headers
from pipeline.shell.dicom.pixels import decode_pixels
from tests.bad_files import (
    CASES,
    EMPTY_ITEM,
    FRAMES,
    GROUPS,
    ITEM,
    META,
    ONE_FRAME_BROKEN,
    SEQUENCE,
    SIGNED,
    compressed,
    deflate_bomb,
    hu_of,
    huge,
)
from tests.dicom_files import enhanced_bytes, slice_bytes, write_labels, write_raw, write_sample
from tests.test_index_window import SIZE, make_job, tables

SECONDS, MEGABYTES = 5.0, 512.0
"""What one file may take."""

FILLER = 64
"""Plain slices beside the bad ones, so that there is work for two processes."""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run `index` and `window` over all cases at once, in two processes; return the job and its tables."""
    folder = tmp_path_factory.mktemp("bad input")
    before = os.getcwd()
    os.chdir(folder)
    try:
        raw = folder / "data/small/raw"
        filler = {f"filler {i:02d}": slice_bytes(SeriesInstanceUID="filler", z_mm=5.0 * i) for i in range(FILLER)}
        files = {stem: with_series(case.data, i) for i, (stem, case) in enumerate(CASES.items())}
        mixed = enhanced_bytes(FRAMES, ONE_FRAME_BROKEN, SeriesInstanceUID="mixed")
        write_raw(raw, filler | files | {"one frame broken": mixed}, {"twice": slice_bytes()})
        train = raw / "stage_2_train"
        (train / "twice.dcm").write_bytes(slice_bytes())
        os.mkfifo(train / "pipe.dcm")
        (train / "link to nothing.dcm").symlink_to("absent")
        with socket.socket(socket.AF_UNIX) as bound:
            os.chdir(train)  # the path of a socket is short
            bound.bind("socket.dcm")
            os.chdir(folder)
        with (train / "2 GiB.dcm").open("wb") as sparse:
            sparse.write(slice_bytes())
            sparse.truncate(1 << 31)
        asked = [*filler, "pipe", "link to nothing", "socket", "2 GiB", "twice", "one frame broken.2"]
        asked += ["one frame broken.1", "one frame broken.4"]
        for stem, case in CASES.items():
            if "\n" not in stem:
                asked += [stem] if len(case.hu) < 2 else [f"{stem}.{k + 1}" for k in range(len(case.hu))]
        write_labels(raw / "stage_2_train.csv", dict.fromkeys(asked))
        write_sample(raw / "stage_2_sample_submission.csv", ["twice"])
        job = make_job(n_jobs=2, max_rejected=1.0)
        index.main(job)
        window.main(job)
        slices, rejected, images, undecodable = tables(job)
        slices = slices.assign(decoded=slices["slice_id"].isin(images["slice_id"]))
        images = images.assign(file=[str(folder / path) for path in images["path"]])
        yield job, slices, pd.concat([rejected, undecodable]), images.set_index("slice_id"), folder
    finally:
        os.chdir(before)


def with_series(data: bytes, number: int) -> bytes:
    """Return a file whose series is its own: they are no scan together."""
    return data.replace(b"ID_series ", b"series %03d" % number).replace(b"ID_series", b"serie %03d" % number)


def test_each_file_is_in_one_place(done):
    _, slices, rejected, images, _ = done
    usable = slices[slices["decoded"]]
    assert set(usable["slice_id"]) == set(images.index)
    assert not set(zip(usable["path"], usable["slice_id"], strict=True)) & set(
        zip(rejected["path"], rejected["slice_id"], strict=True)
    )
    # By path: all cases, the filler, the six files made beside them, and `twice` in the test folder.
    assert len(set(usable["path"]) | set(rejected["path"])) == len(CASES) + FILLER + 7


@pytest.mark.parametrize("stem", CASES)
def test_each_file_has_right_pixels_or_its_reason(done, stem):
    job, slices, rejected, images, _ = done
    case = CASES[stem]
    path = f"data/small/raw/stage_2_train/{stem}.dcm"
    rows = slices[(slices["path"] == path) & slices["decoded"]].sort_values("frame")
    refusals = rejected[rejected["path"] == path]
    if case.reason:
        assert len(rows) == 0
        assert refusals["reason"].tolist() == [case.reason]
        assert case.detail in refusals["detail"].iloc[0]
        return
    assert refusals["detail"].tolist() == []
    assert rows["frame"].tolist() == list(range(1, len(case.hu) + 1))
    assert rows["slice_id"].tolist() == [stem] if len(case.hu) == 1 else [f"{stem}.{k}" for k in rows["frame"]]
    for slice_id, hu in zip(rows["slice_id"], case.hu, strict=True):
        image = images.loc[slice_id]
        assert image["path"].endswith(f"/{slice_id}.png")
        written = cv2.imdecode(np.fromfile(image["file"], np.uint8), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
        assert np.array_equal(written, window_image(hu, job.run.settings.view.windows, SIZE))


def test_what_is_no_file_of_its_own(done):
    _, slices, rejected, _, _ = done
    found = {
        (path.rsplit("/", 1)[1], slice_id): (reason, detail)
        for path, slice_id, reason, detail in rejected[["path", "slice_id", "reason", "detail"]].itertuples(index=False)
    }
    assert found["pipe.dcm", "pipe"] == ("unreadable", "OSError: not a regular file but a pipe")
    assert found["socket.dcm", "socket"] == ("unreadable", "OSError: not a regular file but a socket")
    assert found["2 GiB.dcm", "2 GiB"][1] == "OSError: has 2147483648 bytes, more than 1073741824; it is not read"
    assert found["link to nothing.dcm", "link to nothing"][1].startswith("FileNotFoundError")
    assert found["twice.dcm", "twice"] == ("repeated slice id", "also data/small/raw/stage_2_test/twice.dcm")
    assert found["one frame broken.dcm", "one frame broken.2"] == ("not a CT slice", "a localizer")
    assert found["one frame broken.dcm", "one frame broken.3"][0] == "no label"
    assert found["one frame broken.dcm", "one frame broken.4"] == ("no such frame", "the file has 3 frames")
    assert "one frame broken.1" in set(slices["slice_id"])


def noisy_slice() -> bytes:
    """Return a slice of 2048 x 2048 in JPEG 2000; a quarter is noise, of which all would take the encoder long."""
    noise = np.random.default_rng(0).integers(0, 64, (2048, 2048)).astype(np.int16)
    noise[512:] = 0
    return compressed(noise, JPEG2000Lossless)


REJECTED_BOMBS = {
    "empty items": lambda: META + SEQUENCE + EMPTY_ITEM * (40 << 17),
    "an element without end": lambda: META + struct.pack("<HH2sHL", 9, 0x1001, b"OB", 0, 0xFFFFFFFF) + bytes(80 << 20),
    "a wanted element of 80 MB": lambda: (
        META + struct.pack("<HH2sHL", 0x10, 0x20, b"UN", 0, 80 << 20) + bytes(80 << 20)
    ),
    "functional groups of empty items": lambda: functional_groups(EMPTY_ITEM * (3 << 20)),
    "nested sequences": lambda: META + (SEQUENCE + ITEM) * (2 << 20),
    "100,000 rows": lambda: huge(100_000),
    "JPEG 2000 without end": lambda: CASES["JPEG 2000 without end"].data,
    "fragments without end": lambda: (
        slice_bytes(syntax=RLELossless, PixelData=encapsulate([b"12"]))[:-8] + EMPTY_ITEM * (5 << 20)
    ),
}
READ_BOMBS = {
    "deflated to 255 MB": lambda: deflate_bomb(255),  # a slice, and zeros behind it
    "4096 x 4096 as real numbers": lambda: slice_bytes(np.ones((4096, 4096), np.int16), RescaleSlope=0.5),
    "2048 x 2048 in JPEG 2000": noisy_slice,
}


def functional_groups(content: bytes) -> bytes:
    """Return a slice whose functional groups hold this."""
    data = slice_bytes()
    end = data.index(b"\xe0\x7f\x10\x00OW")
    return data[:end] + struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, len(content)) + content + data[end:]


def test_the_nastiest_files_take_little_time_and_memory(tmp_path, project_root):
    paths = []
    bombs = REJECTED_BOMBS | READ_BOMBS
    for name, content in bombs.items():
        paths.append(tmp_path / f"{name}.dcm")
        paths[-1].write_bytes(content())
    program = [sys.executable, "-m", "tests.measure_file", str(tmp_path / "image.png"), *map(str, paths)]
    result = subprocess.run(program, cwd=project_root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = dict(zip(bombs, map(json.loads, result.stdout.splitlines()), strict=True))
    logging.getLogger(__name__).info("\n%s", pd.DataFrame(found).T.to_string())
    for name, took in found.items():
        assert took["seconds"] <= SECONDS, (name, took)
        assert took["megabytes"] <= MEGABYTES, (name, took)
        assert bool(took["reasons"]) == (name in REJECTED_BOMBS), (name, took)


FUZZED = ("MR_small_RLE", "MR_small_jpeg_ls_lossless", "693_J2KI", "MR_small_jp2klossless", "JPGExtended")


def test_damaged_codestreams_harm_nobody():
    rng = np.random.default_rng(0)
    decoded = 0
    for name in FUZZED:
        dataset = pydicom.dcmread(get_testdata_file(f"{name}.dcm", read=False))
        sound = get_frame(dataset.PixelData, 0, number_of_frames=1)
        for _ in range(60):
            damaged = bytearray(sound)
            for position in rng.integers(0, len(damaged), rng.integers(1, 6)):
                damaged[position] = rng.integers(256)
            cut = rng.integers(1, len(damaged) + 1) if rng.random() < 0.2 else len(damaged)
            dataset.PixelData = encapsulate([bytes(damaged[:cut])])
            out = pydicom.filebase.DicomBytesIO()
            dataset.save_as(out)
            try:
                stored = decode_pixels(out.getvalue())
            except BROKEN_DICOM:
                continue
            assert stored.shape == (dataset.Rows, dataset.Columns)
            assert stored.dtype in (np.int16, np.uint16)
            decoded += 1
    assert 0 < decoded < 60 * len(FUZZED)


def test_damaged_headers_of_enhanced_files_harm_nobody(tmp_path):
    rng = np.random.default_rng(1)
    sound = enhanced_bytes(FRAMES, GROUPS)
    end = sound.index(b"\xe0\x7f\x10\x00")
    path = tmp_path / "damaged.dcm"
    for _ in range(150):
        damaged = bytearray(sound)
        for position in rng.integers(132, end, rng.integers(1, 8)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        for header in read_headers(path):
            assert bool(header.reason) == bool(header.detail)
            "".join((header.patient_id, header.study_id, header.series_id, header.detail)).encode()


def test_the_cases_are_what_they_say():
    assert hu_of(SIGNED).min() < -1500
    assert (CASES["padding unsigned"].hu[0][:5] == -1024).all()
    assert CASES["overlay bits"].data != CASES["unsigned"].data
