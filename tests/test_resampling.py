"""Resampling in the plane: millimetres stay millimetres, the centre stays the centre, image and mask keep together."""

import cv2
import numpy as np
import pytest

from pipeline.core.resampling import HU_OFFSET, hu_of_stored, resample_hu, resample_mask, stored_hu

RNG = np.random.default_rng(0)
AIR = -1024


def centres_mm(count: int, spacing_mm: float) -> np.ndarray:
    """Return how far pixel centres are from the middle of a slice of so many."""
    return (np.arange(count) - (count - 1) / 2) * spacing_mm


def disc(rows: int, columns: int, row_mm: float, column_mm: float, radius_mm: float) -> np.ndarray:
    """Return a slice (rows, columns) that is 100 HU within a radius of its centre, 0 elsewhere."""
    y, x = centres_mm(rows, row_mm)[:, np.newaxis], centres_mm(columns, column_mm)
    return np.where(y**2 + x**2 <= radius_mm**2, 100, 0).astype(np.int16)


SPACINGS = [(90, 70, 0.45, 0.5), (64, 100, 1.3, 0.4), (41, 60, 0.9, 0.9), (200, 180, 0.21, 0.31)]


@pytest.mark.parametrize(("rows", "columns", "row_mm", "column_mm"), SPACINGS)
@pytest.mark.parametrize("pixel_mm", [0.25, 0.5, 1.0])
def test_a_disc_keeps_its_area_and_its_centre(rows, columns, row_mm, column_mm, pixel_mm):
    radius_mm, size = 12.0, 121
    hu = disc(rows, columns, row_mm, column_mm, radius_mm)
    image = resample_hu(hu, row_mm, column_mm, pixel_mm, size)
    mask = resample_mask((hu > 50).astype(np.uint8), row_mm, column_mm, pixel_mm, size)
    coarsest_mm = max(row_mm, column_mm, pixel_mm)
    # Where all pixels lie halfway between two, the nearest one is half a pixel off.
    for inside, most_off in ((image > 50, 0.1), (mask == 1, 0.5)):
        y, x = np.nonzero(inside)
        # A pixel's uncertainty along the circle, of which errors at its two sides cancel for the most part.
        assert inside.sum() * pixel_mm**2 == pytest.approx(np.pi * radius_mm**2, rel=0.35 * coarsest_mm / radius_mm)
        assert np.abs([y.mean() - (size - 1) / 2, x.mean() - (size - 1) / 2]).max() * pixel_mm <= most_off * coarsest_mm
        # As wide as high, whatever the slice's pixels were.
        assert abs(np.ptp(y) - np.ptp(x)) * pixel_mm <= 2 * coarsest_mm


@pytest.mark.parametrize(("rows", "columns", "row_mm", "column_mm"), SPACINGS)
@pytest.mark.parametrize("pixel_mm", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [30, 81])
def test_the_mask_of_a_thresholded_image_is_the_thresholded_image(rows, columns, row_mm, column_mm, pixel_mm, size):
    """But where interpolation mixes the two sides of an edge: nowhere else may they differ."""
    hu = disc(rows, columns, row_mm, column_mm, 9.0)
    image = resample_hu(hu, row_mm, column_mm, pixel_mm, size)
    mask = resample_mask((hu > 50).astype(np.uint8), row_mm, column_mm, pixel_mm, size)
    is_pure = (image <= 0) | (image == 100)
    assert is_pure.mean() > 0.7
    np.testing.assert_array_equal((image > 50)[is_pure], mask[is_pure] == 1)


@pytest.mark.parametrize(("rows", "columns", "row_mm", "column_mm"), SPACINGS)
def test_air_and_no_mask_lie_outside_the_slice(rows, columns, row_mm, column_mm):
    hu, mask = np.full((rows, columns), 35, np.int16), np.full((rows, columns), 9, np.uint8)
    size, pixel_mm = 150, 1.0
    is_row, is_column = (
        np.abs(centres_mm(size, pixel_mm)) <= count * spacing_mm / 2
        for count, spacing_mm in ((rows, row_mm), (columns, column_mm))
    )
    inside = np.ix_(is_row, is_column)
    expected, expected_mask = np.full((size, size), AIR, np.int16), np.zeros((size, size), np.uint8)
    expected[inside], expected_mask[inside] = 35, 9
    image = resample_hu(hu, row_mm, column_mm, pixel_mm, size)
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image, expected)  # the border is not mixed with air
    np.testing.assert_array_equal(resample_mask(mask, row_mm, column_mm, pixel_mm, size), expected_mask)


def test_a_field_that_is_coarser_than_the_slice_is_all_air():
    assert (resample_hu(np.full((4, 6), 35, np.int16), 0.5, 0.5, 50.0, 2) == AIR).all()
    assert not resample_mask(np.full((4, 6), 1, np.uint8), 0.5, 0.5, 50.0, 2).any()


def test_grewals_field_of_view():
    """512 x 512 at 0.5 mm: 256 mm, of which 1 mm pixels show the middle 250; each is the mean of 2 x 2."""
    hu = RNG.integers(-1024, 3000, (512, 512)).astype(np.int16)
    image = resample_hu(hu, 0.5, 0.5, 1.0, 250)
    of_four = hu.astype(np.int64).reshape(256, 2, 256, 2).sum(axis=(1, 3))[3:-3, 3:-3]
    np.testing.assert_array_equal(image, np.floor(of_four / 4 + 0.5))


def test_halving_by_hand():
    hu = np.array([[0, 1, 10, 20], [1, 1, 30, 41], [-1, -1, 5, 5], [-1, -2, 5, 5]], np.int16)
    # Sums of four are 3, 101, -5 and 20: 0.75, 25.25, -1.25 and 5.
    expected = [[1, 25], [-1, 5]]
    assert resample_hu(hu, 0.5, 0.5, 1.0, 2).tolist() == expected
    assert resample_hu(hu, 7.0, 3.0, 0.0, 2).tolist() == expected
    # Ties go up, also below 0: 0.5 to 1, -0.5 to 0.
    assert resample_hu(np.array([[0, 1, -1, 0]] * 4, np.int16), 0.5, 0.5, 1.0, 2)[0].tolist() == [1, 0]
    # Of four equally near pixels the one further down and right.
    assert resample_mask(np.arange(16, dtype=np.uint8).reshape(4, 4), 0.5, 0.5, 1.0, 2).tolist() == [[5, 7], [13, 15]]


def test_doubling_by_hand():
    # Centres at -0.25, 0.25, 0.75, 1.25 of the slice's pixels; those beyond the last centres repeat it.
    assert resample_hu(np.array([[0, 100]], np.int16), 1.0, 1.0, 0.5, 4)[1].tolist() == [0, 25, 75, 100]
    assert resample_hu(np.array([[0, 100]], np.int16), 1.0, 1.0, 0.5, 4)[0].tolist() == [AIR] * 4
    assert resample_mask(np.array([[1, 2]], np.uint8), 1.0, 1.0, 0.5, 4).tolist() == [
        [0, 0, 0, 0],
        [1, 1, 2, 2],
        [1, 1, 2, 2],
        [0, 0, 0, 0],
    ]


def test_rows_and_columns_have_spacings_of_their_own():
    """One step down is 2 mm, one to the right 0.5 mm: at 1 mm a row of the slice becomes two, two columns one."""
    hu = np.array([[0, 40, 80, 120]], np.int16).repeat(2, axis=0) + np.array([[0], [1000]], np.int16)
    image = resample_hu(hu, 2.0, 0.5, 1.0, 4)
    assert image[:, 0].tolist() == [AIR] * 4
    assert image[:, 1].tolist() == [20, 270, 770, 1020]
    assert image[:, 2].tolist() == [100, 350, 850, 1100]


@pytest.mark.parametrize("size", [1, 7, 40])
def test_what_has_the_size_already_stays_as_it_is(size):
    hu = RNG.integers(-32768, 32768, (size, size)).astype(np.int16)
    mask = RNG.integers(0, 64, (size, size), dtype=np.uint8)
    for pixel_mm in (0.0, 0.488281):
        np.testing.assert_array_equal(resample_hu(hu, 0.488281, 0.488281, pixel_mm, size), hu)
        np.testing.assert_array_equal(resample_mask(mask, 0.488281, 0.488281, pixel_mm, size), mask)


@pytest.mark.parametrize("shape", [(512, 512), (48, 40), (37, 64), (5, 48), (1, 7), (33, 2)])
@pytest.mark.parametrize("size", [1, 31, 96])
def test_resizing_is_cv2s(shape, size):
    hu = RNG.integers(-1024, 3000, shape).astype(np.int16)
    image = resample_hu(hu, 0.45, 0.5, 0.0, size)
    by_cv2 = cv2.resize(hu.astype(np.float64), (size, size), interpolation=cv2.INTER_LINEAR)
    assert np.abs(image - by_cv2).max() <= 0.5 + 1e-3  # its weights are float32
    mask = RNG.integers(0, 64, shape, dtype=np.uint8)
    # In whole numbers the centre of pixel i is (2 i + 1) count / (2 size) pixels from the slice's border.
    y, x = ((2 * np.arange(size) + 1) * count // (2 * size) for count in shape)
    resized = resample_mask(mask, 0.45, 0.5, 0.0, size)
    np.testing.assert_array_equal(resized, mask[np.ix_(y, x)])
    nearest = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    is_tie = [(2 * np.arange(size) + 1) * count % (2 * size) == 0 for count in shape]
    agrees = (resized == nearest) | is_tie[0][:, np.newaxis] | is_tie[1]
    assert agrees.all()


def test_resampling_to_a_spacing_is_cv2s_resizing_of_the_slice():
    """Two routes: 60 x 40 mm at 1 mm, by spacing, and by resizing to 60 x 40 pixels and padding by hand."""
    hu = RNG.integers(-1024, 3000, (120, 100)).astype(np.int16)
    image = resample_hu(hu, 0.5, 0.4, 1.0, 64)
    by_cv2 = cv2.resize(hu.astype(np.float64), (40, 60), interpolation=cv2.INTER_LINEAR)
    assert np.abs(image[2:62, 12:52] - by_cv2).max() <= 0.5 + 1e-3
    outside = np.ones((64, 64), bool)
    outside[2:62, 12:52] = False
    assert (image[outside] == AIR).all()


@pytest.mark.parametrize("size", [30, 31])
@pytest.mark.parametrize("pixel_mm", [0.0, 0.7, 1.5])
def test_flipping_the_slice_flips_the_image(size, pixel_mm):
    hu = 2 * RNG.integers(-500, 1500, (48, 40)).astype(np.int16)
    for axis in (0, 1):
        image, of_flipped = (resample_hu(h, 0.45, 0.5, pixel_mm, size) for h in (hu, np.flip(hu, axis)))
        assert np.abs(np.flip(of_flipped, axis).astype(int) - image).max() <= 1  # ties


def test_values_beyond_int16_are_its_limits():
    hu = np.array([[np.inf, -np.inf], [3e38, -3e38]], np.float32)
    assert resample_hu(hu, 1.0, 1.0, 0.0, 2).tolist() == [[32767, -32768], [32767, -32768]]
    halves = np.array([[0.5, -0.5, 1.4, -1.6]], np.float32).repeat(4, axis=0)
    assert resample_hu(halves, 1.0, 1.0, 0.0, 4)[0].tolist() == [1, 0, 1, -2]


def test_slices_that_are_not_contiguous():
    hu = RNG.integers(-1024, 3000, (48, 80)).astype(np.int16)[::-1, ::2]
    np.testing.assert_array_equal(resample_hu(hu, 0.5, 0.5, 1.0, 20), resample_hu(hu.copy(), 0.5, 0.5, 1.0, 20))


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "pixel_mm", "size", "message"),
    [
        ((0, 4), (0.5, 0.5), 1.0, 4, r"rows x columns, got shape \(0, 4\)"),
        ((2, 4, 4), (0.5, 0.5), 1.0, 4, r"rows x columns, got shape \(2, 4, 4\)"),
        ((4, 4), (0.5, 0.5), 1.0, 0, "size 0 must be above 0 px"),
        ((4, 4), (0.5, 0.5), -1.0, 4, "pixel_mm -1 not below 0 mm"),
        ((4, 4), (0.5, 0.5), float("nan"), 4, "pixel_mm nan not below 0 mm"),
        ((4, 4), (0.0, 0.5), 1.0, 4, "rows 0 mm and columns 0.5 mm apart must be above 0"),
        ((4, 4), (0.5, float("nan")), 1.0, 4, "rows 0.5 mm and columns nan mm apart must be above 0"),
    ],
)
def test_what_cannot_be_resampled_is_named(shape, spacing_mm, pixel_mm, size, message):
    for resample, dtype in ((resample_hu, np.int16), (resample_mask, np.uint8)):
        with pytest.raises(ValueError, match=message):
            resample(np.zeros(shape, dtype), *spacing_mm, pixel_mm, size)


def test_hu_as_a_16_bit_image_holds_them():
    hu = np.arange(-32768, 32768).astype(np.int16).reshape(128, 512)
    stored = stored_hu(hu)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, hu.astype(np.int64) + HU_OFFSET)
    np.testing.assert_array_equal(hu_of_stored(stored), hu)
