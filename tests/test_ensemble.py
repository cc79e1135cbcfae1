"""The mean over folds, and probabilities of slices that could not be read."""

import numpy as np
import pytest

from pipeline.core.ensemble import fill_from_neighbours, mean_over_folds

Z_MM = np.array([10.0, 0.0, 5.0])
PROBABILITIES = np.array([[0.9, 0.1, 0, 0, 0, 0.9], [0.1, 0.3, 0, 0, 0, 0.3], [0.5, 0.2, 0, 0, 0, 0.5]])
"""Three slices in no order of z."""


def test_the_mean_joins_slices_by_name_not_by_place():
    first, second = np.full((3, 6), [[0.1], [0.2], [0.3]]), np.full((3, 6), [[0.9], [0.5], [0.7]])
    mean = mean_over_folds([np.array(["a", "b", "c"]), np.array(["c", "a", "b"])], [first, second])
    assert mean == pytest.approx(np.full((3, 6), [[0.3], [0.45], [0.6]]))


def test_one_fold_is_its_own_mean():
    assert (mean_over_folds([np.array(["a", "b", "c"])], [PROBABILITIES]) == PROBABILITIES).all()


@pytest.mark.parametrize(
    ("ids", "text"),
    [(["a", "b", "d"], "has other slices than prediction 0, such as c, d"), (["a", "b", "b"], "1 repeats slice b")],
)
def test_folds_that_speak_of_other_slices_are_refused(ids, text):
    with pytest.raises(ValueError, match=text):
        mean_over_folds([np.array(["a", "b", "c"]), np.array(ids)], [PROBABILITIES, PROBABILITIES])


def test_between_two_neighbours_linear_in_z_and_beyond_the_ends_the_last_one():
    filled = fill_from_neighbours(Z_MM, PROBABILITIES, np.array([7.5, 1.0, -3.0, 99.0, 5.0]))
    assert filled[:, 0] == pytest.approx([0.7, 0.18, 0.1, 0.9, 0.5])
    assert filled[:, 1] == pytest.approx([0.15, 0.28, 0.3, 0.1, 0.2])
    assert filled.shape == (5, 6)


def test_the_nearest_neighbours_alone_count_and_their_order_does_not():
    at = np.array([2.0])
    far = fill_from_neighbours(np.append(Z_MM, 40.0), np.vstack([PROBABILITIES, np.ones(6)]), at)
    shuffled = fill_from_neighbours(Z_MM[[2, 0, 1]], PROBABILITIES[[2, 0, 1]], at)
    assert (far == fill_from_neighbours(Z_MM, PROBABILITIES, at)).all()
    assert (shuffled == far).all()


def test_two_slices_in_one_place_count_by_their_mean():
    filled = fill_from_neighbours(np.array([5.0, 5.0]), PROBABILITIES[:2], np.array([5.0, 6.0]))
    assert filled[:, 0] == pytest.approx([0.5, 0.5])


def test_a_scan_without_readable_slices_has_nothing_to_fill_from():
    with pytest.raises(ValueError, match="no readable slice to fill from"):
        fill_from_neighbours(np.array([]), np.zeros((0, 6)), np.array([5.0]))
