"""Counts of calls by hand, Wilson's interval by its own formula, and figures that cannot be said."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from pipeline.core.confusion import Confusion, count, proportion

GREWAL = Confusion(true_positives=39, false_positives=9, false_negatives=5, true_negatives=24)
"""RADnet on its 77 scans, 44 of them positive (Grewal et al. 2018, Table 2)."""


def test_the_four_counts_each_in_its_place():
    found = count([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
    assert found == Confusion(true_positives=3, false_positives=2, false_negatives=1, true_negatives=4)


def test_figures_by_hand():
    found = Confusion(true_positives=3, false_positives=2, false_negatives=1, true_negatives=4)
    assert found.accuracy(0.95).estimate == 0.7
    assert found.sensitivity(0.95).estimate == 0.75
    assert found.specificity(0.95).estimate == pytest.approx(2 / 3)
    assert found.ppv(0.95).estimate == 0.6
    assert found.npv(0.95).estimate == 0.8
    assert found.f1() == pytest.approx(2 / 3)


def test_a_published_table_comes_out_to_its_last_digit():
    published = (0.8182, 0.8864, 0.8125, 0.8478)
    found = GREWAL.accuracy(0.95), GREWAL.sensitivity(0.95), GREWAL.ppv(0.95)
    assert tuple(round(figure.estimate, 4) for figure in found) == published[:3]
    assert round(GREWAL.f1(), 4) == published[3]


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, calls = rng.random(53) < 0.4, rng.random(53) < 0.5
    found = count(truth, calls)
    assert found.sensitivity(0.95).estimate == pytest.approx(recall_score(truth, calls))
    assert found.specificity(0.95).estimate == pytest.approx(recall_score(~truth, ~calls))
    assert found.ppv(0.95).estimate == pytest.approx(precision_score(truth, calls))
    assert found.npv(0.95).estimate == pytest.approx(precision_score(~truth, ~calls))
    assert found.f1() == pytest.approx(f1_score(truth, calls))


@pytest.mark.parametrize(("hits", "cases"), [(0, 7), (7, 7), (39, 44), (1, 1)])
def test_wilsons_limits_solve_his_equation(hits, cases):
    # The limits are the p for which |hits/n - p| is z standard errors of p itself.
    z = 1.959964
    found = proportion(hits, cases, 0.95)
    for p in (found.low, found.high):
        assert (hits / cases - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / cases, abs=1e-7)
    assert found.low <= found.estimate <= found.high
    assert found.low < found.high


def test_a_known_interval_and_a_narrower_one():
    # 81 of 263 is Newcombe's 1998 example: 0.2553 to 0.3662.
    found = proportion(81, 263, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    narrow = proportion(81, 263, 0.5)
    assert found.low < narrow.low < narrow.high < found.high


@pytest.mark.parametrize(
    ("truth", "calls", "undefined"),
    [
        ([1, 1], [1, 0], {"specificity"}),
        ([0, 0], [1, 0], {"sensitivity"}),
        ([0, 1], [0, 0], {"ppv"}),
        ([0, 1], [1, 1], {"npv"}),
        ([0], [0], {"sensitivity", "ppv"}),
        ([], [], {"accuracy", "sensitivity", "specificity", "ppv", "npv"}),
    ],
)
def test_a_share_of_nothing_is_nan(truth, calls, undefined):
    found = count(truth, calls)
    for name in ("accuracy", "sensitivity", "specificity", "ppv", "npv"):
        figure = getattr(found, name)(0.95)
        assert [np.isnan(value) for value in (figure.estimate, figure.low, figure.high)] == [name in undefined] * 3


def test_f1_is_nan_where_nothing_is_positive_and_0_where_all_is_missed():
    assert np.isnan(count([0, 0], [0, 0]).f1())
    assert count([1, 0], [0, 0]).f1() == count([0, 0], [1, 0]).f1() == 0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"truth has shape \(2,\), calls \(3,\)"):
        count([0, 1], [0, 1, 1])
