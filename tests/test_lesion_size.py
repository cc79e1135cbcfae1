"""Volumes and ABC/2 of boxes, ellipsoids and single pixels, in voxels of three different sides."""

import numpy as np
import pytest

from pipeline.core.lesion_size import abc2_ml, diameters_mm, volume_ml

ROW_MM, COLUMN_MM = 0.5, 0.4
EVEN_MM = 5.0 * np.arange(9)
"""Places of nine slices."""


def box(slices: slice, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((9, 30, 50), dtype=bool)
    mask[slices, rows, columns] = True
    return mask


def ellipsoid(semi_mm: tuple[float, float, float], angle_deg: float = 0.0, spacing_mm: float = 1.0):
    """Return the mask of an ellipsoid (semi-axes along z, then two in plane, turned) and the slices' places."""
    z = np.arange(-40, 40.5, spacing_mm)
    y, x = (np.arange(n) * step for n, step in ((160, ROW_MM), (200, COLUMN_MM)))
    y, x = y - y.mean(), x - x.mean()
    turn = np.radians(angle_deg)
    u = np.cos(turn) * y[:, None] + np.sin(turn) * x
    v = -np.sin(turn) * y[:, None] + np.cos(turn) * x
    in_plane = (u / semi_mm[1]) ** 2 + (v / semi_mm[2]) ** 2
    return (z[:, None, None] / semi_mm[0]) ** 2 + in_plane <= 1, z


def test_a_cube_of_10_mm_is_1_ml_at_any_spacing():
    mask = box(slice(3, 5), slice(2, 22), slice(10, 35))  # 2 x 5 mm, 20 x 0.5 mm, 25 x 0.4 mm
    assert volume_ml(mask, ROW_MM, COLUMN_MM, EVEN_MM) == pytest.approx(1)
    uneven = np.r_[0, 5, 10, 15, 20, 24, 25, 26, 27]  # slices 3 and 4 stand for 5 and 4.5 mm
    assert volume_ml(mask, ROW_MM, COLUMN_MM, uneven) == pytest.approx(0.95)


def test_abc2_is_half_the_product_in_ml():
    assert abc2_ml(50.0, 40.0, 30.0) == 30.0


def test_a_box_has_its_diagonal_for_a():
    # 8 rows of 0.5 mm and 20 columns of 0.4 mm are 4 x 8 mm. The line at a right angle to the diagonal is longest
    # through a corner, where it meets the far long side: 4 mm / cos(the diagonal's angle to the long side).
    mask = box(slice(2, 6), slice(0, 8), slice(0, 20))
    a, b, c = diameters_mm(mask, ROW_MM, COLUMN_MM, EVEN_MM)
    diagonal = np.hypot(4, 8)
    assert (a, b, c) == pytest.approx((diagonal, 4 * diagonal / 8, 20))


@pytest.mark.parametrize("angle_deg", [0, 30, 90, 140])
def test_abc2_of_an_ellipsoid_is_its_volume_with_pi_taken_as_3_and_a_coarse_c(angle_deg):
    mask, z_mm = ellipsoid((15, 12, 20), angle_deg)
    a, b, c = diameters_mm(mask, ROW_MM, COLUMN_MM, z_mm)
    assert (a, b) == pytest.approx((40, 24), abs=1.0)
    # Slices whose area is above 75 % of the largest lie within semi * sqrt(0.25), from 25 % within semi * sqrt(0.75).
    assert c == pytest.approx(15 * (np.sqrt(0.25) + np.sqrt(0.75)), abs=1.0)
    assert volume_ml(mask, ROW_MM, COLUMN_MM, z_mm) == pytest.approx(4 / 3 * np.pi * 15 * 12 * 20 / 1000, rel=0.01)


def test_turning_and_mirroring_change_nothing():
    mask, z_mm = ellipsoid((10, 8, 14), 25)
    found = diameters_mm(mask, ROW_MM, COLUMN_MM, z_mm)
    assert diameters_mm(mask[:, ::-1, ::-1], ROW_MM, COLUMN_MM, z_mm) == pytest.approx(found)
    assert diameters_mm(mask.swapaxes(1, 2), COLUMN_MM, ROW_MM, z_mm) == pytest.approx(found)
    assert diameters_mm(mask[::-1], ROW_MM, COLUMN_MM, -z_mm[::-1]) == pytest.approx(found)
    shifted = np.roll(mask, (3, 5), axis=(1, 2))
    assert diameters_mm(shifted, ROW_MM, COLUMN_MM, z_mm + 100) == pytest.approx(found)


@pytest.mark.parametrize(
    ("pixels", "weight"), [(100, 1), (76, 1), (75, 0.5), (50, 0.5), (25, 0.5), (24, 0), (1, 0), (0, 0)]
)
def test_a_slice_counts_whole_half_or_not_at_all(pixels, weight):
    mask = np.zeros((9, 30, 50), dtype=bool)
    mask[4, :10, :10] = True
    mask[5, :10, :10] = np.arange(100).reshape(10, 10) < pixels
    assert diameters_mm(mask, ROW_MM, COLUMN_MM, EVEN_MM)[2] == 5 * (1 + weight)


def test_a_and_b_are_those_of_the_slice_of_the_largest_area_though_another_is_longer():
    mask = box(slice(4, 5), slice(0, 8), slice(0, 20)) | box(slice(5, 6), slice(0, 1), slice(0, 50))
    alone = box(slice(4, 5), slice(0, 8), slice(0, 20))
    found = diameters_mm(mask, ROW_MM, COLUMN_MM, EVEN_MM)
    assert found[:2] == diameters_mm(alone, ROW_MM, COLUMN_MM, EVEN_MM)[:2]
    assert found[2] == 7.5  # 50 of 160 pixels: half a slice


def test_c_takes_each_slice_with_its_own_spacing():
    z_mm = np.array([0, 1, 2, 4, 8, 16, 17, 18, 19.0])
    mask = box(slice(3, 6), slice(0, 8), slice(0, 20))
    assert diameters_mm(mask, ROW_MM, COLUMN_MM, z_mm)[2] == pytest.approx((2 + 4) / 2 + (4 + 8) / 2 + (8 + 1) / 2)


def test_a_pixel_is_as_long_as_its_diagonal():
    mask = box(slice(4, 5), slice(7, 8), slice(9, 10))
    a, b, c = diameters_mm(mask, ROW_MM, COLUMN_MM, EVEN_MM)
    assert (a, c) == pytest.approx((np.hypot(0.5, 0.4), 5))
    assert 0 < b < a


def test_no_lesion_is_0_ml_and_a_scan_of_one_slice_has_no_depth():
    empty = box(slice(0), slice(0), slice(0))
    assert volume_ml(empty, ROW_MM, COLUMN_MM, EVEN_MM) == 0
    assert abc2_ml(*diameters_mm(empty, ROW_MM, COLUMN_MM, EVEN_MM)) == 0
    one = box(slice(0, 1), slice(0, 8), slice(0, 20))[:1]
    assert np.isnan(volume_ml(one, ROW_MM, COLUMN_MM, EVEN_MM[:1]))
    assert diameters_mm(one, ROW_MM, COLUMN_MM, EVEN_MM[:1])[0] == pytest.approx(np.hypot(4, 8))
    assert np.isnan(abc2_ml(*diameters_mm(one, ROW_MM, COLUMN_MM, EVEN_MM[:1])))
