"""DeLong's variance: by hand, by its own definition over all pairs, and by a bootstrap; the paired test likewise."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pipeline.core.delong import compare_aucs, roc_auc_interval


def drawn(positives: int, negatives: int, seed: int, decimals: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, and two predictors' scores that lean on the same noise, (cases,) each, shuffled."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.r_[np.ones(positives), np.zeros(negatives)])
    common = rng.normal(size=len(truth))
    first, second = (truth * lift + common + rng.normal(size=len(truth)) for lift in (1.6, 1.0))
    return truth, first.round(decimals), second.round(decimals)


def by_definition(truth: np.ndarray, predictors: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return areas (predictors,) and their covariance, by DeLong's equations 5 to 7, over all pairs of cases."""
    of_positives, of_negatives = [], []
    for scores in predictors:
        x, y = scores[truth == 1][:, None], scores[truth == 0][None, :]
        kernel = (x > y) + 0.5 * (x == y)
        of_positives.append(kernel.mean(axis=1))
        of_negatives.append(kernel.mean(axis=0))
    covariance = np.cov(of_positives) / len(x) + np.cov(of_negatives) / y.size
    return np.mean(of_positives, axis=1), np.atleast_2d(covariance)


@pytest.mark.parametrize("decimals", [12, 0], ids=["without ties", "with ties"])
@pytest.mark.parametrize(("positives", "negatives"), [(23, 31), (2, 40), (40, 2)])
def test_midranks_and_all_pairs_agree(positives, negatives, decimals):
    truth, first, second = drawn(positives, negatives, 3, decimals)
    areas, covariance = by_definition(truth, [first, second])
    z = norm.ppf(0.975)
    for scores, area, variance in zip((first, second), areas, np.diag(covariance), strict=True):
        found = roc_auc_interval(truth, scores, 0.95)
        assert found.estimate == pytest.approx(area) == pytest.approx(roc_auc_score(truth, scores))
        assert found.low == pytest.approx(max(area - z * np.sqrt(variance), 0))
        assert found.high == pytest.approx(min(area + z * np.sqrt(variance), 1))
    paired = compare_aucs(truth, first, second, 0.95)
    deviation = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert paired.difference.estimate == pytest.approx(areas[0] - areas[1])
    assert paired.difference.high - paired.difference.low == pytest.approx(2 * z * deviation)
    assert paired.p_value == pytest.approx(2 * norm.sf(abs(areas[0] - areas[1]) / deviation))


def test_by_hand():
    # Positives 3 and 1, negatives 2 and 0: wins of the positives 2 and 1 of 2, of the negatives 1 and 2 of 2. The two
    # sample variances are 1/8 each, so the area 3/4 has a variance of 1/16 + 1/16 and a deviation of 0.35355.
    found = roc_auc_interval([1, 0, 1, 0], [3.0, 2.0, 1.0, 0.0], level=0.6826895)  # one deviation
    assert found.estimate == 0.75
    assert found.low == pytest.approx(0.75 - np.sqrt(1 / 8), abs=1e-6)
    assert found.high == 1.0


def test_the_deviation_is_the_bootstraps():
    truth, first, second = drawn(150, 250, 1)
    rng = np.random.default_rng(0)
    own, differences = [], []
    for _ in range(500):
        rows = np.r_[rng.choice(np.flatnonzero(truth == 1), 150), rng.choice(np.flatnonzero(truth == 0), 250)]
        areas = [roc_auc_score(truth[rows], scores[rows]) for scores in (first, second)]
        own.append(areas[0])
        differences.append(areas[0] - areas[1])
    z = norm.ppf(0.975)
    found = roc_auc_interval(truth, first, 0.95)
    assert (found.high - found.low) / 2 / z == pytest.approx(np.std(own), rel=0.12)
    difference = compare_aucs(truth, first, second, 0.95).difference
    assert (difference.high - difference.low) / 2 / z == pytest.approx(np.std(differences), rel=0.12)


def test_the_interval_covers_the_true_area_as_often_as_it_says():
    # Normal scores one deviation and a half apart have an area of Phi(1.5 / sqrt(2)).
    rng = np.random.default_rng(4)
    truth = np.r_[np.ones(60), np.zeros(80)]
    limits = [roc_auc_interval(truth, rng.normal(size=140) + 1.5 * truth, 0.9) for _ in range(400)]
    covered = np.mean([found.low <= norm.cdf(1.5 / np.sqrt(2)) <= found.high for found in limits])
    assert covered == pytest.approx(0.9, abs=0.045)  # three deviations of 400 draws


def test_a_binary_call_has_the_mean_of_sensitivity_and_specificity():
    truth, calls = np.array([1, 1, 1, 1, 0, 0, 0]), np.array([1, 1, 1, 0, 1, 0, 0])
    assert roc_auc_interval(truth, calls, 0.95).estimate == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_laws():
    truth, first, second = drawn(17, 29, 6, 1)
    found = roc_auc_interval(truth, first, 0.95)
    assert roc_auc_interval(truth, np.exp(first), 0.95) == found  # the order alone counts
    turned = roc_auc_interval(1 - truth, first, 0.95)
    assert (turned.estimate, turned.low) == pytest.approx((1 - found.estimate, 1 - found.high))
    there, back = compare_aucs(truth, first, second, 0.95), compare_aucs(truth, second, first, 0.95)
    assert there.difference.estimate == pytest.approx(-back.difference.estimate)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert there.p_value == pytest.approx(back.p_value)


def test_limits_keep_to_areas_that_there_are():
    found = roc_auc_interval([0, 1, 0, 1], [3.0, 2.0, 1.0, 0.0], 0.95)
    assert (found.estimate, found.low) == (0.25, 0)
    assert roc_auc_interval([1, 0, 1, 0], [3.0, 2.0, 1.0, 0.0], 0.95).high == 1


def test_classes_fully_apart_leave_no_variance():
    found = roc_auc_interval([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 0.95)
    assert (found.estimate, found.low, found.high) == (1, 1, 1)
    assert roc_auc_interval([0, 0, 1, 1], [0.5] * 4, 0.95).estimate == 0.5


def test_equal_orders_cannot_be_told_apart():
    truth, first, _ = drawn(9, 14, 2)
    found = compare_aucs(truth, first, 3 * first + 1, 0.95)
    assert (found.difference.estimate, found.difference.low, found.difference.high) == (0, 0, 0)
    assert np.isnan(found.p_value)


@pytest.mark.parametrize("truth", [[1, 1, 1], [0, 0, 0], []])
def test_one_class_alone_has_no_area(truth):
    scores = np.arange(len(truth))
    found = roc_auc_interval(truth, scores, 0.95)
    assert np.isnan([found.estimate, found.low, found.high]).all()
    assert np.isnan(compare_aucs(truth, scores, scores, 0.95).difference.estimate)


@pytest.mark.parametrize("truth", [[1, 0, 0], [0, 1, 1]])
def test_a_class_of_one_case_has_an_area_and_no_limits(truth):
    found = roc_auc_interval(truth, [0.3, 0.2, 0.1], 0.95)
    assert found.estimate == truth[0]
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(compare_aucs(truth, [0.3, 0.2, 0.1], [0.1, 0.2, 0.3], 0.95).p_value)


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(ValueError, match="scores must be finite, found nan"):
        roc_auc_interval([0, 1], [0.5, np.nan], 0.95)
    with pytest.raises(ValueError, match=r"truth has shape \(2,\), scores \(3,\)"):
        roc_auc_interval([0, 1], [0.1, 0.2, 0.3], 0.95)
