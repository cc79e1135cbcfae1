"""Figures of Chang et al. 2018 as they follow from one another."""

import pytest

from pipeline.recipes.chang2018 import CASES, FIGURES, TABLE_2

ROUNDED = 0.0011
"""Two figures of three decimals, each half a thousandth off."""


@pytest.mark.parametrize("row", TABLE_2, ids=lambda row: row[0])
@pytest.mark.parametrize("cohort", [2, 3])
def test_predictive_values_of_table_2_are_those_of_equal_numbers(row, cohort):
    figures = dict(zip(CASES, row[cohort], strict=True))
    if figures["sensitivity"] is None:
        assert row[0] == "EDH/SDH, punctate"  # the test cohort had none (Table 1)
        return
    hits, rejections = figures["sensitivity"], figures["specificity"]
    ppv = hits / (hits + 1 - rejections)
    if (row[0], cohort) == ("SAH, small", 3):
        assert (figures["ppv"], round(ppv, 3)) == (0.971, 0.969)  # as printed, and as it should be
    else:
        assert figures["ppv"] == pytest.approx(ppv, abs=ROUNDED)
    assert figures["npv"] == pytest.approx(rejections / (rejections + 1 - hits), abs=ROUNDED)
    # What the table's note says of accuracy.
    assert figures["accuracy"] > (hits + rejections) / 2 - ROUNDED


def test_all_figures_are_shares_of_known_columns():
    for table in FIGURES:
        for row in table.rows:
            assert set(row.figures) <= set(table.figures)
            assert all(0 < value <= 1 for name, value in row.figures.items() if name != "volume_bias_percent")
    detection = [{row.subset: row.figures["sensitivity"] for row in table.rows} for table in FIGURES[:2]]
    counts = (
        {"IPH": 353 / 358, "EDH/SDH": 311 / 319, "SAH": 211 / 224},
        {"IPH": 1, "EDH/SDH": 36 / 38, "SAH": 19 / 21},
    )
    for found, expected in zip(detection, counts, strict=True):
        for subset, share in expected.items():
            assert found[subset] == pytest.approx(share, abs=0.0011)
