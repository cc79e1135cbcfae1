"""Windows and resizing, against float64 arithmetic in the paper's order."""

import cv2
import numpy as np
import pytest

from pipeline.core.windows import window_image

WINDOWS = ((40.0, 80.0), (80.0, 200.0), (40.0, 380.0))
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
