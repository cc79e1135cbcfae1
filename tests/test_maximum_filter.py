"""The maximum filter: by hand, by brute force, and what it is there for: a bright voxel stays."""

import itertools

import numpy as np
import pytest

from pipeline.core.maximum_filter import maximum_filter


def brute_force(volume: np.ndarray, kernel: tuple[int, int, int]) -> np.ndarray:
    found = np.empty([-(-size // of) for size, of in zip(volume.shape, kernel, strict=True)], dtype=volume.dtype)
    for place in itertools.product(*map(range, found.shape)):
        block = tuple(slice(p * of, (p + 1) * of) for p, of in zip(place, kernel, strict=True))
        found[place] = volume[block].max()
    return found


def test_two_slices_by_hand():
    volume = np.array([[[1, 2, 3], [4, 5, 6]], [[9, 1, 1], [1, 1, -7]]], dtype=np.int16)
    # The third column is left over: a block of one column.
    assert maximum_filter(volume, (2, 2, 2)).tolist() == [[[9, 6]]]
    assert maximum_filter(volume, (1, 2, 2)).tolist() == [[[5, 6]], [[9, 1]]]
    assert maximum_filter(volume, (2, 1, 1)).tolist() == [[[9, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("kernel", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (3, 1, 2), (7, 4, 5)])
@pytest.mark.parametrize("shape", [(5, 8, 6), (4, 7, 9), (1, 3, 2)])
def test_it_equals_the_maximum_over_blocks(shape, kernel):
    volume = np.random.default_rng(1).integers(-1024, 3000, shape, dtype=np.int16)
    before = volume.copy()
    found = maximum_filter(volume, kernel)
    np.testing.assert_array_equal(found, brute_force(volume, kernel))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(volume, before)


@pytest.mark.parametrize("place", [(0, 0, 0), (6, 10, 8), (3, 5, 8)])
def test_a_single_bright_voxel_of_a_negative_volume_stays_at_its_place(place):
    volume = np.full((7, 11, 9), -1000, dtype=np.int16)
    volume[place] = -5
    found = maximum_filter(volume, (2, 2, 2))
    assert found.shape == (4, 6, 5)
    assert np.argwhere(found == -5).tolist() == [[p // 2 for p in place]]
    assert (found == -1000).sum() == found.size - 1


@pytest.mark.parametrize("kernel", [(2, 2), (0, 2, 2)])
def test_a_kernel_needs_one_size_an_axis(kernel):
    with pytest.raises(ValueError, match=r"a kernel of \(.*\) for a volume of \(2, 4, 6\): give one size of 1 or more"):
        maximum_filter(np.zeros((2, 4, 6)), kernel)
