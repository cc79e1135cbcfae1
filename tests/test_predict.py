"""Rejected test slices: which get rows, and from what."""

import numpy as np
import pandas as pd
import pytest

from pipeline.config import P_LABELS
from pipeline.predict import filled_rows, rejected_test_slices

PREVALENCE = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])


def readable(rows):
    """Return test rows of (scan, patient, z, probability of every label)."""
    frame = pd.DataFrame(rows, columns=["scan_id", "patient_id", "z_mm", "p"])
    return frame.assign(**{name: frame["p"] for name in P_LABELS})


def rejected(*rows):
    frame = pd.DataFrame(rows, columns=["slice_id", "scan_id", "patient_id", "z_mm"])
    return frame.assign(split="test", reason="truncated pixel data")


SCAN = [("s", "a", 0.0, 0.1), ("s", "a", 5.0, 0.2), ("s", "a", 15.0, 0.6), ("t", "b", 10.0, 0.9)]


@pytest.mark.parametrize(
    ("lost", "expected", "source"),
    [
        (("x", "s", "a", 10.0), 0.4, "neighbours"),  # half way between 0.2 and 0.6
        (("x", "s", "a", 7.0), 0.28, "neighbours"),  # a fifth of the way
        (("x", "s", "a", 30.0), 0.6, "neighbours"),  # above the last slice: the last slice's
        (("x", "s", "a", np.nan), None, "prevalence"),
        (("x", None, "a", 10.0), None, "prevalence"),
        (("x", "u", "a", 10.0), None, "prevalence"),
    ],
)
def test_a_rejected_slice_takes_what_lies_between_its_neighbours_or_the_prevalence(lost, expected, source):
    filled, counts = filled_rows(rejected(lost), readable(SCAN), PREVALENCE)
    values = filled.loc[0, list(P_LABELS)].to_numpy(float)
    np.testing.assert_allclose(values, PREVALENCE if expected is None else np.full(6, expected), atol=1e-12)
    assert counts == {"neighbours": 0, "prevalence": 0, source: 1}


def test_both_acquisitions_of_a_series_are_neighbours_but_not_another_patients_uid():
    scans = [("1.9", "a", 0.0, 0.1), ("1.9.2", "a", 4.0, 0.3), ("1.9.3", "b", 3.0, 0.9), ("1.9", "a", 6.0, 0.5)]
    filled, _ = filled_rows(rejected(("x", "1.9", "a", 3.0)), readable(scans), PREVALENCE)
    assert filled.loc[0, "p_any"] == pytest.approx(0.1 + 0.75 * 0.2)


def test_only_slices_that_are_asked_for_and_have_no_rows_yet_are_filled():
    rows = [
        ("lost", "test", "unreadable"),
        ("train", "train", "unreadable"),
        (None, "test", "unreadable"),
        ("unasked", "test", "not in the sample submission"),
        ("repeated", "test", "repeated slice id"),
        ("known", "test", "unreadable"),
    ]
    index = pd.DataFrame(rows, columns=["slice_id", "split", "reason"])
    window = pd.DataFrame({"slice_id": ["undecodable"], "split": ["test"], "reason": ["undecodable pixel data"]})
    assert rejected_test_slices(index, window, known={"known"})["slice_id"].tolist() == ["lost", "undecodable"]
