"""The linear SVM on stacked vectors: padding by hand, a separable case, order of scans by hemorrhage."""

import numpy as np
import pytest

from pipeline.core.metrics import roc_and_pr_auc
from pipeline.core.stacked_svm import stack_padded, svm_scan_scores


def test_zeros_stand_at_both_ends():
    scans = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.arange(10.0).reshape(5, 2), np.ones((4, 2))]
    stacked = stack_padded(scans, 5)
    # Three slices are missing: one before, two behind; then none; then one behind.
    assert stacked.tolist() == [
        [0, 0, 1, 2, 3, 4, 0, 0, 0, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
    ]
    with pytest.raises(ValueError, match="a scan of 5 slices does not fit into 4: give the longest scan's"):
        stack_padded(scans, 4)


def test_two_scans_give_the_line_that_can_be_drawn_by_hand():
    # One slice, one feature: -1 is negative, 3 is positive; the widest margin is at 1, and the score is (x - 1) / 2.
    train = [np.array([[-1.0]]), np.array([[3.0]])]
    scores = svm_scan_scores(train, np.array([False, True]), [np.array([[x]]) for x in (-1.0, 1.0, 3.0, 5.0)])
    np.testing.assert_allclose(scores, [-1, 0, 1, 2], atol=1e-6)


def test_scans_of_every_length_are_ordered_by_what_their_vectors_say():
    rng = np.random.default_rng(4)

    def scans(count):
        is_positive = rng.random(count) < 0.5
        vectors = [rng.normal(0, 1, (rng.integers(20, 28), 6)).astype(np.float16) for _ in range(count)]
        for scan, positive in zip(vectors, is_positive, strict=True):
            scan[8:14, 2] += 2 * positive
        return vectors, is_positive

    train, known = scans(80)
    other, truth = scans(50)
    other.append(np.zeros((31, 6)))  # longer than any before
    scores = svm_scan_scores(train, known, other)
    assert scores.shape == (51,)
    assert roc_and_pr_auc(truth, scores[:50])[0] > 0.9


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="2 of 2 scans are positive: an SVM needs both classes"):
        svm_scan_scores([np.ones((2, 3))] * 2, np.array([1, 1]), [np.ones((2, 3))])
