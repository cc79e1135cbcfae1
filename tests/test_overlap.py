"""Dice by hand."""

import numpy as np
import pytest

from pipeline.core.overlap import dice


def mask(*voxels: tuple[int, int, int]) -> np.ndarray:
    result = np.zeros((2, 3, 4), dtype=bool)
    for voxel in voxels:
        result[voxel] = True
    return result


def test_by_hand():
    truth, drawn = mask((0, 0, 0), (0, 0, 1), (1, 2, 3)), mask((0, 0, 1), (1, 2, 3), (1, 2, 2), (1, 1, 1), (0, 2, 0))
    assert dice(truth, drawn) == dice(drawn, truth) == 2 * 2 / (3 + 5)
    assert dice(truth, truth) == 1
    assert dice(truth, ~truth) == 0


def test_one_empty_mask_has_nothing_in_common_and_two_have_nothing_to_say():
    assert dice(mask(), mask((0, 0, 0))) == dice(mask((0, 0, 0)), mask()) == 0
    assert np.isnan(dice(mask(), mask()))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"the true mask has shape \(2, 3, 4\), the drawn one \(2, 3\)"):
        dice(mask(), np.zeros((2, 3)))
