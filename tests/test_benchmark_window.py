"""The benchmark of the stage `window`: its baselines agree with the stage, and its rows say what they compare."""

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
    monkeypatch.setattr(window, "machine_note", lambda: "a note")
    monkeypatch.setattr(window, "cores", lambda: 2)
    for name, value in (("SLICES", 3), ("ROUNDS", 1), ("SCALING_ROUNDS", 1), ("FILES_A_CORE", 70)):
        monkeypatch.setattr(window, name, value)
    rows = window.rows()
    assert {row.name: row.target for row in rows} == {
        "window arithmetic, one core": Target("times", 20),
        "DICOM to PNG, one core": Target("times", 4),
        "DICOM to PNG beside reading, encoding and writing alone": Target("share", 1.5),
        "index, all cores": Target("times", 1.8),
        "window, all cores": Target("times", 1.8),
    }
    assert [row.unit for row in rows] == 3 * ["ms a slice"] + 2 * ["slices/s"]
    assert all(row.value > 0 and row.baseline > 0 for row in rows)
    assert rows[1].baseline == pytest.approx(rows[1].value * rows[1].ratio())
    assert all(row.note for row in rows)


def test_cores_are_measured_by_plain_processes(monkeypatch):
    monkeypatch.setattr(cores, "cores", lambda: 2)
    monkeypatch.setattr(cores, "busy_seconds", {1: 1.0, 2: 1.25}.get)
    assert cores.machine_note().endswith("do 1.60 times as much on 2 cores as on one")


def test_a_busy_process_says_how_long_it_took():
    assert 0 < cores.busy_seconds(1) < 60


def test_the_share_of_the_process_that_gathers(monkeypatch):
    clocks = {"process_time": iter((1.0, 2.0)), "perf_counter": iter((10.0, 12.0))}
    for name, times in clocks.items():
        monkeypatch.setattr(cores.time, name, lambda times=times: next(times))
    monkeypatch.setattr(cores, "cores", lambda: 2)
    # One second of the two that each of two cores had.
    assert cores.gathering_note(lambda: None) == "handing out and gathering takes 25% of their time"
