"""Windows and resizing, against float64 arithmetic in the paper's order."""

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.core import windows
from pipeline.core.hounsfield import to_hu
from pipeline.core.windows import WIDEST_EXACT, window_image
from pipeline.shell.dicom.headers import read_headers
from pipeline.shell.dicom.pixels import decode_pixels

WINDOWS = ((40.0, 80.0), (80.0, 200.0), (40.0, 380.0))
REAL = Path(os.environ.get("REALCT", Path(__file__).resolve().parents[2] / "shared" / "realct")) / "ge-head"
RNG = np.random.default_rng(0)


def twin(hu: np.ndarray, windows, size: int) -> np.ndarray:
    """Window in float64, resize by cv2, round half up: what the kernel must give to one grey level."""
    channels = []
    for centre, width in windows:
        low, high = centre - width / 2, centre + width / 2
        windowed = (np.clip(hu.astype(np.float64), low, high) - low) / (high - low) * 255
        channels.append(np.floor(cv2.resize(windowed, (size, size), interpolation=cv2.INTER_LINEAR) + 0.5))
    return np.stack(channels, axis=-1)


def head_like(rows: int, columns: int) -> np.ndarray:
    """Bone, air and brain side by side: the edges are where the order of windowing and resizing counts."""
    levels = np.array([-3024, -1000, 0, 35, 60, 1500])
    return (levels[RNG.integers(0, 6, (rows, columns))] + RNG.integers(-9, 9, (rows, columns))).astype(np.int16)


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        (512, 512, 256),
        (512, 512, 96),
        (404, 404, 112),
        (768, 768, 256),
        (48, 40, 31),
        (37, 37, 64),
        (512, 404, 256),
        (5, 48, 40),
        (1, 1, 3),
        (1, 7, 2),
        (33, 2, 1),
        (40, 40, 40),
    ],
)
def test_exact_to_one_grey_level(rows, columns, size):
    hu = head_like(rows, columns)
    for array in (hu, hu.astype(np.float32) + np.float32(0.3)):
        image = window_image(array, WINDOWS, size)
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
        difference = np.abs(image - twin(array, WINDOWS, size))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02  # ties only


def test_a_window_runs_from_its_lower_to_its_upper_edge():
    hu = np.array([[-2000, 0, 20, 40, 60, 80, 3000]], dtype=np.int16).repeat(7, axis=0)
    brain = window_image(hu, ((40.0, 80.0),), 7)[0, :, 0]
    assert brain.tolist() == [0, 0, 64, 128, 191, 255, 255]  # 63.75, 127.5 and 191.25, rounded half up


def test_channels_are_in_the_order_of_the_windows():
    hu = np.full((8, 8), 130, dtype=np.int16)
    assert window_image(hu, WINDOWS, 4)[0, 0].tolist() == [255, 191, 188]  # 255; 150/200 and 280/380 of 255
    assert window_image(hu, WINDOWS[::-1], 4)[0, 0].tolist() == [188, 191, 255]


def test_windowing_comes_before_resizing():
    # Half air, half bone: windowed first they average to grey; resized first, 250 HU would be white.
    hu = np.array([[-1000, 1500]] * 2, dtype=np.int16)
    assert window_image(hu, ((40.0, 80.0),), 1).item() == 128


def test_rows_stay_rows():
    hu = np.full((48, 40), -1000, dtype=np.int16)
    hu[:24] = 80
    image = window_image(hu, WINDOWS, 10)
    assert (image[:4, :, 0] == 255).all()
    assert (image[6:, :, 0] == 0).all()


def test_flipping_the_slice_flips_the_image():
    hu = head_like(48, 40)
    for axis in (0, 1):
        flipped = window_image(np.flip(hu, axis), WINDOWS, 31).astype(int)
        assert np.abs(np.flip(flipped, axis) - window_image(hu, WINDOWS, 31)).max() <= 1


def test_values_beyond_float32_are_white_or_black():
    hu = np.array([[np.inf, -np.inf], [3e38, -3e38]], dtype=np.float32)
    assert window_image(hu, ((40.0, 80.0),), 2)[:, :, 0].tolist() == [[255, 0], [255, 0]]


@pytest.mark.parametrize(
    ("shape", "windows", "size", "message"),
    [
        ((0, 4), WINDOWS, 4, r"rows x columns, got shape \(0, 4\)"),
        ((2, 4, 4), WINDOWS, 4, r"rows x columns, got shape \(2, 4, 4\)"),
        ((4, 4), ((40.0, 0.0),), 4, "must be above 0"),
        ((4, 4), WINDOWS, 0, "size 0"),
    ],
)
def test_what_cannot_be_windowed_is_named(shape, windows, size, message):
    with pytest.raises(ValueError, match=message):
        window_image(np.zeros(shape, np.int16), windows, size)


def sums_of_four(hu: np.ndarray, asked) -> np.ndarray:
    """The sums of 2 x 2 values (y, x, windows), clipped to each window and counted from its lower edge."""
    lows = np.array([round(centre - width / 2) for centre, width in asked])
    highs = lows + [round(width) for _, width in asked]
    clipped = np.clip(hu.astype(np.int64)[..., np.newaxis], lows, highs) - lows
    return clipped[::2, ::2] + clipped[1::2, ::2] + clipped[::2, 1::2] + clipped[1::2, 1::2]


def exact_halves(hu: np.ndarray, asked) -> tuple[np.ndarray, np.ndarray]:
    """The image of half the size in whole numbers, the mean of 2 x 2 values rounded half up; and which are ties."""
    widths = np.array([round(width) for _, width in asked])
    numerators, denominators = 2 * 255 * sums_of_four(hu, asked) + 4 * widths, 2 * 4 * widths
    return numerators // denominators, numerators % denominators == 0


def all_sums(width: int, low: int) -> np.ndarray:
    """HU of which each square of 2 x 2 has another sum, from four times `low` to four times `low + width`."""
    sums = np.arange(4 * width + 1)
    half = int(np.ceil(np.sqrt(len(sums))))
    sums = np.concatenate([sums, np.zeros(half * half - len(sums), np.int64)]).reshape(half, half)
    parts = [(sums + k) // 4 + low for k in range(4)]  # four whole numbers, as alike as can be
    hu = np.empty((2 * half, 2 * half), np.int16)
    hu[::2, ::2], hu[::2, 1::2], hu[1::2, ::2], hu[1::2, 1::2] = parts
    return hu


def general(monkeypatch, hu: np.ndarray, asked, size: int) -> np.ndarray:
    """The image as the kernel for all sizes makes it."""
    scales = windows._scales
    with monkeypatch.context() as patched:
        patched.setattr(windows, "_scales", lambda of: scales(of)._replace(whole_edges=None))
        return window_image(hu, asked, size)


def assert_halved(monkeypatch, hu: np.ndarray, asked) -> None:
    """Exact by itself, and the general kernel's image but for ties."""
    size = hu.shape[0] // 2
    image, (exact, is_tie) = window_image(hu, asked, size), exact_halves(hu, asked)
    np.testing.assert_array_equal(image, exact)
    difference = image.astype(int) - general(monkeypatch, hu, asked, size)
    assert 0 <= difference.min() <= difference.max() <= 1
    assert not (difference.astype(bool) & ~is_tie).any()


@pytest.mark.parametrize("size", [1, 2, 17, 31, 64, 96, 256])
def test_halving_is_exact(monkeypatch, size):
    random = RNG.integers(-32768, 32767, (2 * size, 2 * size), endpoint=True).astype(np.int16)
    brain = RNG.integers(-160, 240, (2 * size, 2 * size)).astype(np.int16)
    extremes = RNG.choice(np.array([-32768, -150, -20, 0, 80, 180, 230, 32767], np.int16), (2 * size, 2 * size))
    for hu in (random, brain, extremes, head_like(2 * size, 2 * size)):
        assert_halved(monkeypatch, hu, WINDOWS)
        assert_halved(monkeypatch, hu, WINDOWS[:1])


@pytest.mark.parametrize("width", [1, 2, 3, 51, 80, 101, 255, 380, 1021, 2000, WIDEST_EXACT - 1, WIDEST_EXACT])
@pytest.mark.parametrize("low", [-32768, -1350, 0, 30000])
def test_halving_is_exact_for_every_sum(monkeypatch, width, low):
    hu = all_sums(width, low)
    assert_halved(monkeypatch, hu, ((low + width / 2, float(width)),))
    assert_halved(monkeypatch, hu, ((low + width / 2, float(width)), *WINDOWS[1:]))


def test_the_half_step_is_more_than_float32_rounds_away():
    # Fractions of grey levels, at every whole width: the sum times the gain, plus a half and half a step.
    for width in range(1, WIDEST_EXACT + 1):
        gain = np.float32(255 / width) / 4
        up = np.float32(0.5) + np.float32(0.125) / np.float32(width)
        error = 4 * width * abs(Fraction(float(gain)) - Fraction(255, 4 * width))  # of the gain, at the greatest sum
        error += abs(Fraction(float(up)) - Fraction(1, 2) - Fraction(1, 8 * width))
        error += 2 * Fraction(256, 2**24)  # of the product and of the sum, half a unit in the last place each
        assert error < Fraction(1, 8 * width)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real slices in {REAL}; set REALCT to the folder of ge-head")
def test_halving_real_slices_is_exact(monkeypatch):
    for path in sorted(REAL.glob("*.dcm"))[::5]:
        header = read_headers(path)[0]
        stored = decode_pixels(path.read_bytes())
        hu = to_hu(stored, header.slope, header.intercept, header.bits, header.signed)
        assert hu.shape == (512, 512)
        assert_halved(monkeypatch, hu, WINDOWS)


def test_what_is_not_whole_is_left_to_the_general_kernel(monkeypatch):
    hu = head_like(34, 34)
    for array, asked in (
        (hu.astype(np.float32), WINDOWS),
        (hu, ((40.0, 81.0), *WINDOWS[1:])),  # from -0.5
        (hu, ((40.25, 80.0),)),
        (hu, ((40.5, 80.5),)),
        (hu, ((0.0, WIDEST_EXACT + 2.0),)),
        (hu, ((32768.0, 80.0),)),
        (hu, ((-32768.0, 80.0),)),
        (hu, ((40.0, float("inf")),)),
        (hu[:, :33], WINDOWS),
        (hu[:, ::-1][:32], WINDOWS),
    ):
        size = 17
        with monkeypatch.context() as patched:
            patched.setattr(windows, "_window_and_halve", None)
            image = window_image(array, asked, size)
        np.testing.assert_array_equal(image, general(monkeypatch, array, asked, size))


def test_halving_a_view_that_is_not_contiguous():
    hu = head_like(40, 80)
    np.testing.assert_array_equal(window_image(hu[::-1, ::2], WINDOWS, 20), exact_halves(hu[::-1, ::2], WINDOWS)[0])
