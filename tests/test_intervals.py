"""Intervals by resampling patients: two routes that agree, and laws."""

import numpy as np
import pytest

from pipeline.core.intervals import bootstrap_means, draw_weights, intervals, patient_sums

PATIENTS = np.array(["p3", "p1", "p1", "p2", "p3", "p1", "p4"])
LOSSES = np.array([[1.0, 0.5], [2.0, 1.0], [4.0, 1.5], [0.0, 0.25], [3.0, 2.5], [6.0, 3.5], [0.5, 0.75]])
"""Seven slices of four patients (3, 1, 2 and 1 slices), two predictors."""


def _many(slices: int = 2000, patients: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    own = rng.integers(0, patients, slices)
    return own, (rng.exponential(size=patients)[own] + rng.random(slices))[:, None]


def test_sums_by_hand():
    sums, counts = patient_sums(PATIENTS, LOSSES)
    assert counts.tolist() == [3, 1, 2, 1]
    assert sums.tolist() == [[12.0, 6.0], [0.0, 0.25], [4.0, 3.0], [0.5, 0.75]]


def test_weights_of_patients_equal_resampled_rows_under_the_same_draws():
    names = np.unique(PATIENTS)
    rng = np.random.default_rng(11)
    expected = []
    for _ in range(60):
        drawn = names[rng.integers(0, len(names), len(names))]
        rows = np.concatenate([np.flatnonzero(name == PATIENTS) for name in drawn])
        expected.append(LOSSES[rows].mean(axis=0))
    # 60 resamples: more than one chunk.
    assert bootstrap_means(*patient_sums(PATIENTS, LOSSES), resamples=60, seed=11) == pytest.approx(np.array(expected))


def test_the_estimate_is_the_mean_over_slices_and_lies_between_its_limits():
    own, paired = intervals(PATIENTS, LOSSES, [(0, 1)], resamples=400, level=0.95, seed=0)
    assert [i.estimate for i in own] == pytest.approx(LOSSES.mean(axis=0))
    assert paired[0].estimate == pytest.approx(LOSSES[:, 0].mean() - LOSSES[:, 1].mean())
    assert all(i.low < i.estimate < i.high for i in (*own, *paired))


def test_the_order_of_slices_does_not_matter_and_the_seed_does():
    patients, losses = _many()
    shuffled = np.random.default_rng(1).permutation(len(patients))
    first, again, other = (
        intervals(p, x, [], resamples=200, level=0.95, seed=seed)[0][0]
        for p, x, seed in ((patients, losses, 3), (patients[shuffled], losses[shuffled], 3), (patients, losses, 4))
    )
    assert (again.low, again.high) == pytest.approx((first.low, first.high), abs=1e-12)
    assert other.low != first.low


def test_every_slice_twice_changes_nothing_for_the_patient_is_the_unit():
    patients, losses = _many()
    once = intervals(patients, losses, [], resamples=200, level=0.95, seed=0)[0][0]
    twice = intervals(np.tile(patients, 2), np.tile(losses, (2, 1)), [], resamples=200, level=0.95, seed=0)[0][0]
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_slices_of_one_patient_that_go_together_widen_the_interval():
    patients, losses = _many()
    by_patient = intervals(patients, losses, [], resamples=400, level=0.95, seed=0)[0][0]
    by_slice = intervals(np.arange(len(patients)), losses, [], resamples=400, level=0.95, seed=0)[0][0]
    assert by_patient.high - by_patient.low > 1.5 * (by_slice.high - by_slice.low)


def test_the_interval_is_as_wide_as_the_standard_error_says():
    losses = np.random.default_rng(2).normal(size=(3000, 1))
    limits = intervals(np.arange(3000), losses, [], resamples=2000, level=0.95, seed=0)[0][0]
    assert (limits.high - limits.low) / 2 == pytest.approx(1.96 / np.sqrt(3000), rel=0.1)
    narrow = intervals(np.arange(3000), losses, [], resamples=2000, level=0.5, seed=0)[0][0]
    assert (narrow.high - narrow.low) / 2 == pytest.approx(0.674 / np.sqrt(3000), rel=0.15)


def test_a_difference_is_paired():
    patients, losses = _many()
    both = np.hstack([losses + 0.1, losses])
    _, paired = intervals(patients, both, [(0, 1), (1, 0)], resamples=100, level=0.95, seed=0)
    # One is worse by the same amount on each slice: nothing is left to chance.
    assert (paired[0].low, paired[0].high) == pytest.approx((0.1, 0.1))
    assert (paired[1].low, paired[1].high) == pytest.approx((-0.1, -0.1))


def test_weights_count_patients():
    weights = draw_weights(np.random.default_rng(0), 41)
    assert weights.shape == (41,)
    assert weights.sum() == 41


@pytest.mark.parametrize(("patients", "resamples"), [(0, 10), (3, 0)])
def test_nothing_to_resample_is_refused(patients, resamples):
    with pytest.raises(ValueError, match=f"cannot resample {patients} patients {resamples} times"):
        bootstrap_means(np.zeros((patients, 1)), np.ones(patients), resamples, seed=0)
