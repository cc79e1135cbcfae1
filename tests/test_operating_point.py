"""The highest threshold that reaches a sensitivity: by hand, and by trying all others."""

import numpy as np
import pytest

from pipeline.core.operating_point import threshold_at_sensitivity

TRUTH = np.array([1, 0, 1, 1, 0, 1, 0])
SCORES = np.array([0.9, 0.8, 0.7, 0.7, 0.6, 0.2, 0.1])
"""Positives 0.9, 0.7, 0.7, 0.2."""


@pytest.mark.parametrize(
    ("sensitivity", "threshold"), [(0.01, 0.9), (0.25, 0.9), (0.26, 0.7), (0.75, 0.7), (0.76, 0.2), (1, 0.2)]
)
def test_by_hand(sensitivity, threshold):
    assert threshold_at_sensitivity(TRUTH, SCORES, sensitivity) == threshold


def test_a_share_that_is_no_round_number_in_binary_is_still_reached():
    # 0.07 * 100 is above 7 in binary.
    scores = np.arange(100, 0, -1)
    assert threshold_at_sensitivity(np.ones(100), scores, 0.07) == 94


def test_it_reaches_the_sensitivity_and_no_higher_threshold_does():
    rng = np.random.default_rng(0)
    truth, scores = rng.random(200) < 0.3, rng.random(200).round(2)
    for wanted in (0.1, 0.5, 0.9, 0.95, 1.0):
        found = threshold_at_sensitivity(truth, scores, wanted)
        assert (scores[truth] >= found).mean() >= wanted
        assert all((scores[truth] >= other).mean() < wanted for other in np.unique(scores[scores > found]))


def test_without_positives_there_is_none():
    assert np.isnan(threshold_at_sensitivity([0, 0], [0.3, 0.4], 0.9))
    assert threshold_at_sensitivity([1], [0.3], 0.9) == 0.3


@pytest.mark.parametrize("sensitivity", [0, -0.1, 1.01, np.nan])
def test_what_is_no_share_is_refused(sensitivity):
    with pytest.raises(ValueError, match=f"sensitivity {sensitivity}: give a share above 0, at most 1"):
        threshold_at_sensitivity(TRUTH, SCORES, sensitivity)
