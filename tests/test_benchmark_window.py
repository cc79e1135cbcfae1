"""The benchmark of the stage `window`: its baselines agree with the stage, and its rows say what they compare."""

from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import cores, window
from benchmarks.baselines import straightforward_png, straightforward_window
from benchmarks.comparison import Target
from pipeline.core.windows import window_image
from pipeline.shell.dicom.headers import read_headers
from tests.dicom_files import slice_bytes
from tests.test_windows import WINDOWS, head_like

SIDE = 128
RNG = np.random.default_rng(0)


@pytest.fixture
def headers(tmp_path):
    """Three small square slices in files of their own."""
    found = {}
    for number in range(3):
        path = tmp_path / f"ID_{number}.dcm"
        stored = (1024 + RNG.integers(-160, 240, (SIDE, SIDE))).astype(np.int16)
        path.write_bytes(slice_bytes(stored, z_mm=5.0 * number))
        found[path] = read_headers(path)[0]
    return found


def test_the_straightforward_window_is_the_same_but_for_ties():
    hu = head_like(SIDE, SIDE)
    window.check_images([window_image(hu, WINDOWS, SIDE // 2)], [straightforward_window(hu, WINDOWS, SIDE // 2)])


def test_the_straightforward_png_holds_the_windows_of_the_slice(headers, tmp_path):
    path = next(iter(headers))
    straightforward_png(str(path), str(tmp_path / "x.png"), WINDOWS, 31)
    hu = np.frombuffer(path.read_bytes()[-2 * SIDE * SIDE :], "<i2").reshape(SIDE, SIDE) - 1024.0
    found = cv2.imread(str(tmp_path / "x.png"))[:, :, ::-1]  # cv2 gives blue first
    np.testing.assert_array_equal(found, straightforward_window(hu, WINDOWS, 31))
    with pytest.raises(OSError, match=r"x.png: cv2 could not write it"):
        straightforward_png(str(path), str(tmp_path / "absent" / "x.png"), WINDOWS, 31)


def test_images_that_differ_are_seen():
    image = np.full((64, 64, 3), 100, np.uint8)
    tie, far = image.copy(), image.copy()
    tie[0, 0, 0] = 101
    far[0, 0, 0] = 102
    window.check_images([image], [tie])
    for wrong in (far, image + 1, 0 * image):
        with pytest.raises(ValueError, match="images differ by up to"):
            window.check_images([image, image], [image, wrong])


def test_rows_of_small_slices(headers, monkeypatch):
    monkeypatch.setattr(window, "make_slices", lambda _: headers)
    monkeypatch.setattr(window, "processes_apart", lambda function, parts: nullcontext(lambda: float(len(parts))))
    monkeypatch.setattr(window, "cores", lambda: 2)
    for name, value in (("SLICES", 3), ("ROUNDS", 1), ("SCALING_ROUNDS", 1), ("FILES_A_CORE", 70)):
        monkeypatch.setattr(window, name, value)
    rows = window.rows()
    assert {row.name: row.target for row in rows} == {
        "window arithmetic, one core": Target("times", 20),
        "DICOM to PNG, one core": Target("times", 4),
        "DICOM to PNG beside reading, encoding and writing alone": Target("share", 1.5),
        "index, all cores": Target("times", 1.8),
        "index, all cores, beside processes on their own": Target("share", 1.1),
        "window, all cores": Target("times", 1.8),
        "window, all cores, beside processes on their own": Target("share", 1.1),
    }
    assert [row.unit for row in rows] == 3 * ["ms a slice"] + 2 * ["slices/s", "ms a slice"]
    assert [row.baseline for row in rows[4::2]] == 2 * [pytest.approx(2000 / 140)]
    assert all(row.value > 0 and row.baseline > 0 for row in rows)
    assert rows[1].baseline == pytest.approx(rows[1].value * rows[1].ratio())
    assert all(row.note for row in rows)


def touch(path):
    Path(path).touch()


def test_plain_processes_work_through_parts_of_their_own(tmp_path):
    parts = [[str(tmp_path / name) for name in part] for part in ("ab", "cde")]
    with cores.processes_apart(touch, parts) as work_once:
        for _ in range(2):
            assert 0 < work_once() < 60
            assert sorted(path.name for path in tmp_path.iterdir()) == list("abcde")
            for path in tmp_path.iterdir():
                path.unlink()
