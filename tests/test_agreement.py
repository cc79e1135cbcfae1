"""Kappa of two-by-two tables by hand, correlation, and limits of agreement."""

import numpy as np
import pytest

from pipeline.core.agreement import bland_altman, cohen_kappa, pearson_r


def table(both: int, first_alone: int, second_alone: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two readers' calls, (cases,) each, that make a two-by-two table."""
    first = np.repeat([1, 1, 0, 0], [both, first_alone, second_alone, neither])
    return first, np.repeat([1, 0, 1, 0], [both, first_alone, second_alone, neither])


@pytest.mark.parametrize(
    ("cells", "kappa"),
    [
        ((20, 5, 10, 15), 0.4),  # agree on 35 of 50; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
        ((4, 0, 0, 3), 1.0),
        ((0, 2, 2, 0), -1.0),
        ((1, 1, 1, 1), 0.0),
        ((0, 0, 2, 5), 0.0),  # the first never says yes: agreement is what chance gives
    ],
)
def test_kappa_by_hand(cells, kappa):
    first, second = table(*cells)
    assert cohen_kappa(first, second) == pytest.approx(kappa)
    assert cohen_kappa(second, first) == pytest.approx(kappa)
    assert cohen_kappa(1 - first, 1 - second) == pytest.approx(kappa)


@pytest.mark.parametrize("calls", [[], [0], [1, 1, 1]])
def test_kappa_of_readers_who_only_ever_say_one_thing_is_nan(calls, recwarn):
    assert np.isnan(cohen_kappa(calls, calls))
    assert not recwarn.list


def test_pearson_by_hand():
    assert pearson_r([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert pearson_r([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert pearson_r([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)


@pytest.mark.parametrize(("measured", "reference"), [([], []), ([1], [2]), ([1, 1], [1, 2]), ([1, 2], [3, 3])])
def test_a_series_that_never_changes_has_no_correlation(measured, reference, recwarn):
    assert np.isnan(pearson_r(measured, reference))
    assert not recwarn.list


def test_limits_of_agreement_by_hand():
    # Differences 1, 2, 3: mean 2, standard deviation 1.
    found = bland_altman([11, 22, 33], [10, 20, 30])
    assert (found.bias, found.low, found.high) == pytest.approx((2, 2 - 1.959964, 2 + 1.959964))
    turned = bland_altman([10, 20, 30], [11, 22, 33])
    assert (turned.bias, turned.low, turned.high) == pytest.approx((-2, -found.high, -found.low))


def test_the_limits_hold_95_of_100_differences():
    rng = np.random.default_rng(0)
    measured, reference = rng.normal(3, 2, 4000), rng.normal(0, 1, 4000)
    found = bland_altman(measured, reference)
    inside = (measured - reference > found.low) & (measured - reference < found.high)
    assert inside.mean() == pytest.approx(0.95, abs=0.01)


def test_one_case_has_a_bias_and_no_limits(recwarn):
    found = bland_altman([3.0], [1.0])
    assert found.bias == 2
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(bland_altman([], []).bias)
    assert not recwarn.list
