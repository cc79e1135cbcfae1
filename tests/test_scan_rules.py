"""From slices to scans: percentiles and runs by hand, whatever the order of rows."""

import numpy as np
import pytest

from pipeline.core.metrics import scan_scores
from pipeline.core.scan_rules import consecutive_scores, percentile_scores

SCANS = np.array(["b", "a", "b", "a", "b", "a", "b", "c"])
POSITIONS = np.array([3, 0, 0, 1, 2, 2, 1, 0])
VALUES = np.array([0.9, 0.7, 0.8, 0.1, 0.2, 0.6, 0.3, 0.5])
"""From the lowest slice up: a 0.7 0.1 0.6; b 0.8 0.3 0.2 0.9; c 0.5."""


@pytest.mark.parametrize(
    ("run", "scores"), [(1, [0.7, 0.9, 0.5]), (2, [0.1, 0.3, 0.0]), (3, [0.1, 0.2, 0.0]), (4, [0.0, 0.2, 0.0])]
)
def test_a_runs_score_is_the_highest_threshold_that_so_many_neighbours_reach(run, scores):
    names, found = consecutive_scores(SCANS, POSITIONS, VALUES, run)
    assert names.tolist() == ["a", "b", "c"]
    assert found.tolist() == scores


@pytest.mark.parametrize("run", [1, 2, 3, 5])
def test_the_score_reaches_a_threshold_exactly_where_a_run_of_calls_does(run):
    rng = np.random.default_rng(2)
    scans, values = np.repeat(np.arange(40), rng.integers(1, 12, 40)), None
    positions, values = np.arange(len(scans)), rng.random(len(scans)).round(1)
    shuffled = rng.permutation(len(scans))
    names, scores = consecutive_scores(scans[shuffled], positions[shuffled], values[shuffled], run)
    for threshold in (0.2, 0.5, 0.8):
        for name, score in zip(names, scores, strict=True):
            calls = "".join("+" if value >= threshold else "-" for value in values[scans == name])
            assert (score >= threshold) == ("+" * run in calls)


def test_a_run_of_one_is_the_maximum_and_longer_runs_never_score_higher():
    rng = np.random.default_rng(0)
    scans, values = rng.integers(0, 30, 300), rng.random(300)
    positions = rng.permutation(300)
    previous = scan_scores(scans, values)[1]
    assert consecutive_scores(scans, positions, values, 1)[1].tolist() == previous.tolist()
    for run in (2, 3, 4):
        scores = consecutive_scores(scans, positions, values, run)[1]
        assert (scores <= previous).all()
        previous = scores


def test_no_slices_and_fewer_slices_than_the_run():
    nothing = np.array([])
    assert [len(part) for part in consecutive_scores(nothing, nothing, nothing, 3)] == [0, 0]
    assert consecutive_scores(["a"], [0], [0.9], 3)[1].tolist() == [0]
    with pytest.raises(ValueError, match="a run of 0 slices: give at least 1"):
        consecutive_scores(["a"], [0], [0.9], 0)


def test_percentiles_by_hand():
    names, found = percentile_scores(SCANS, VALUES, 50)
    assert names.tolist() == ["a", "b", "c"]
    assert found == pytest.approx([0.6, 0.55, 0.5])
    assert percentile_scores(SCANS, VALUES, 95)[1] == pytest.approx([0.6 + 0.9 * 0.1, 0.8 + 0.85 * 0.1, 0.5])
    assert percentile_scores(SCANS, VALUES, 100)[1].tolist() == scan_scores(SCANS, VALUES)[1].tolist()
