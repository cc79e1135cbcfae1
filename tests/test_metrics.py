"""The log loss by hand, its refusals, and AUCs against scikit-learn's own."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from pipeline.core.metrics import (
    auc_per_label,
    log_loss_per_label,
    roc_and_pr_auc,
    scan_roc_auc,
    scan_scores,
    slice_losses,
    weighted_log_loss,
)

NOTHING = np.zeros((1, 6))
HALF = np.full((7, 6), 0.5)
"""Seven slices and six labels: a shape whose axes cannot be mistaken for one another."""


def _drawn(slices: int = 37, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.random((slices, 6)) < 0.4).astype(np.int8), rng.random((slices, 6))


def test_one_half_everywhere_costs_ln_2_whatever_the_truth():
    truth, _ = _drawn(7)
    assert weighted_log_loss(truth, HALF) == pytest.approx(0.693147, abs=1e-6)
    assert log_loss_per_label(truth, HALF) == pytest.approx(np.full(6, np.log(2)))


@pytest.mark.parametrize(("label", "weight"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 2)])
def test_any_weighs_two_sevenths_and_the_others_one_seventh(label, weight):
    said = NOTHING.copy()
    said[0, label] = 0.75
    assert weighted_log_loss(NOTHING, said) == pytest.approx(weight * np.log(4) / 7)


def test_perfect_costs_nothing_and_confidently_wrong_34_539():
    assert weighted_log_loss(NOTHING, NOTHING) == pytest.approx(0, abs=2e-15)
    assert weighted_log_loss(NOTHING + 1, NOTHING) == pytest.approx(34.5388, abs=1e-4)
    # 1 - (1 - 1e-15) is 9.992e-16 in float64: the clip is a hair finer on this side, as on Kaggle.
    assert weighted_log_loss(NOTHING, NOTHING + 1) == pytest.approx(34.5396, abs=1e-4)


def test_float32_probabilities_of_one_are_clipped_in_float64():
    assert np.isfinite(weighted_log_loss(NOTHING, np.ones((1, 6), dtype=np.float32)))


def test_the_order_of_slices_does_not_matter_and_the_order_of_labels_does():
    truth, said = _drawn()
    shuffled = np.random.default_rng(1).permutation(len(truth))
    assert weighted_log_loss(truth[shuffled], said[shuffled]) == pytest.approx(weighted_log_loss(truth, said))
    assert weighted_log_loss(truth, said[:, ::-1]) != pytest.approx(weighted_log_loss(truth, said), rel=1e-3)


def test_per_label_per_slice_and_whole_agree_with_scikit_learn():
    truth, said = _drawn()
    per_label = log_loss_per_label(truth, said)
    assert per_label == pytest.approx([log_loss(truth[:, k], said[:, k], labels=[0, 1]) for k in range(6)])
    assert weighted_log_loss(truth, said) == pytest.approx(np.average(per_label, weights=[1, 1, 1, 1, 1, 2]))
    assert slice_losses(truth, said).shape == (37,)
    assert slice_losses(truth, said)[3] == pytest.approx(weighted_log_loss(truth[3:4], said[3:4]))


@pytest.mark.parametrize(
    ("truth", "said", "text"),
    [
        (NOTHING, np.full((1, 6), np.nan), r"probabilities must be finite, found nan"),
        (NOTHING, np.full((1, 6), np.inf), r"probabilities must be finite, found inf"),
        (NOTHING, np.full((1, 6), 1.5), r"must lie in \[0, 1\], found 1.5 to 1.5"),
        (NOTHING, np.full((1, 6), -0.25), r"must lie in \[0, 1\], found -0.25"),
        (NOTHING + 2, NOTHING, r"labels must be 0 or 1, found 2"),
        (NOTHING * np.nan, NOTHING, r"labels must be 0 or 1, found nan"),
        (NOTHING[:, :5], NOTHING[:, :5], r"truth has shape \(1, 5\), expected \(slices, 6\)"),
        (NOTHING, np.zeros((2, 6)), r"probabilities have shape \(2, 6\), truth has \(1, 6\)"),
        (np.zeros((0, 6)), np.zeros((0, 6)), r"no slices to score"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(truth, said, text):
    with pytest.raises(ValueError, match=text):
        weighted_log_loss(truth, said)


@pytest.mark.parametrize("decimals", [1, 12])
def test_aucs_equal_scikit_learns_with_and_without_ties(decimals):
    truth, said = _drawn(211)
    said = said.round(decimals)
    roc, pr = auc_per_label(truth, said)
    assert roc == pytest.approx([roc_auc_score(truth[:, k], said[:, k]) for k in range(6)])
    assert pr == pytest.approx([average_precision_score(truth[:, k], said[:, k]) for k in range(6)])


def test_aucs_by_hand():
    # Of the 2 x 2 pairs of a positive and a negative, three are in order; precision at the hits is 1 and 2/3.
    assert roc_and_pr_auc([1, 0, 1, 0], [0.9, 0.7, 0.5, 0.1]) == pytest.approx((0.75, 5 / 6))
    assert roc_and_pr_auc([1, 0, 0, 0], [0.3, 0.3, 0.3, 0.3]) == pytest.approx((0.5, 0.25))


def test_auc_is_nan_where_one_class_is_absent():
    truth, said = _drawn()
    truth[:, 0], truth[:, 4] = 0, 1
    roc, pr = auc_per_label(truth, said)
    assert np.isnan(roc).tolist() == np.isnan(pr).tolist() == [True, False, False, False, True, False]


def test_a_scans_score_is_its_highest_slice_whatever_the_order():
    scans = np.array(["b", "a", "b", "a", "c"])
    names, scores = scan_scores(scans, [0.2, 0.1, 0.9, 0.4, 0.3])
    assert names.tolist() == ["a", "b", "c"]
    assert scores.tolist() == [0.4, 0.9, 0.3]
    # Scan b alone is positive, on one slice, and scores highest on another one.
    assert scan_roc_auc(scans, [1, 0, 0, 0, 0], [0.2, 0.1, 0.9, 0.4, 0.3]) == 1.0
    assert np.isnan(scan_roc_auc(scans, [0, 0, 0, 0, 0], [0.2, 0.1, 0.9, 0.4, 0.3]))
