"""Overlaps and volumes of drawings, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.core.drawing_figures import ABC2, ALL, overlap_figures, scan_volumes_ml, volume_figures

OVERLAPS = pd.DataFrame(
    [("a", "IPH", 0.9, np.nan), ("a", "any", 0.8, 0.5), ("b", "any", 0.2, 0.1), ("b", "SAH", 0.0, np.nan)],
    columns=["slice_id", "type", "dice", "threshold_dice"],
)


def measured(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["scan_id", "source", "type", "lesion", "volume_ml", "abc2_ml"])


MEASURED = measured(
    ("s1", "true", "IPH", 1, 10.0, 13.0),
    ("s1", "true", "IPH", 2, 2.0, 2.0),
    ("s1", "drawn", "IPH", 1, 9.0, 8.0),
    ("s2", "true", "IPH", 1, 4.0, 4.0),
    ("s2", "true", "SAH", 1, 1.0, 1.5),
    ("s2", "drawn", "IPH", 1, 6.0, 5.0),
    ("s3", "true", "IPH", 1, 2.0, 3.0),  # nothing drawn
    ("s4", "drawn", "IPH", 1, 50.0, 60.0),  # nothing there
)


def test_dice_is_a_mean_over_slices_that_show_the_type():
    assert overlap_figures(OVERLAPS, ALL) == pytest.approx({"slices": 2, "dice": 0.5, "threshold_dice": 0.3})
    own = overlap_figures(OVERLAPS, "IPH")
    assert (own["slices"], own["dice"]) == (1, 0.9)
    assert math.isnan(own["threshold_dice"])
    none = overlap_figures(OVERLAPS, "EDH/SDH")
    assert none["slices"] == 0
    assert math.isnan(none["dice"])


def test_volumes_of_a_scan_are_the_sums_of_its_lesions():
    found = scan_volumes_ml(MEASURED, np.array(["s3", "s1", "s9", "s2"]), "true", "volume_ml")
    assert found["IPH"].tolist() == [2, 12, 0, 4]
    assert found["SAH"].tolist() == [0, 0, 0, 1]
    assert found[ALL].tolist() == [2, 12, 0, 5]


def test_a_lesion_without_a_volume_leaves_its_scan_without_one():
    one_slice = measured(("s1", "true", "IPH", 1, 1.0, 1.0), ("s1", "true", "IPH", 2, np.nan, np.nan))
    found = scan_volumes_ml(one_slice, np.array(["s1", "s2"]), "true", "volume_ml")
    assert found["IPH"].tolist()[1] == found[ALL].tolist()[1] == 0
    assert math.isnan(found["IPH"][0])
    assert math.isnan(found[ALL][0])
    assert volume_figures(one_slice, "IPH")["scans"] == 0


def test_volumes_agree_as_one_can_count():
    # True 12, 4, 2; drawn 9, 6, 0: differences -3, 2, -2. The scan without any IPH does not count.
    found = volume_figures(MEASURED, "IPH")
    assert found["scans"] == 3
    assert found["volume_bias_ml"] == pytest.approx(-1)
    assert found["volume_bias_percent"] == pytest.approx(-100 * 3 / 18)
    assert found["volume_r"] == pytest.approx(np.corrcoef([12, 4, 2], [9, 6, 0])[0, 1])
    assert found["volume_high_ml"] - found["volume_low_ml"] == pytest.approx(2 * 1.959964 * np.std([-3, 2, -2], ddof=1))


def test_abc2_is_judged_on_true_lesions():
    found = volume_figures(MEASURED, "IPH", ABC2)  # 15, 4, 3 beside 12, 4, 2
    assert found["volume_bias_ml"] == pytest.approx(4 / 3)
    assert found["volume_bias_percent"] == pytest.approx(100 * 4 / 18)


def test_a_type_that_nobody_has_has_no_figures():
    found = volume_figures(MEASURED, "EDH/SDH")
    assert found["scans"] == 0
    assert all(math.isnan(found[name]) for name in ("volume_r", "volume_bias_ml", "volume_bias_percent"))
