"""Our figures of a row of a paper's table: which cases, which predictor, which threshold."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.config import LABELS
from pipeline.core.delong import compare_aucs
from pipeline.core.predictions import Rows
from pipeline.core.row_figures import Drawn, Said, row_figures
from pipeline.published import FigureRow

# Six scans of two slices: which labels the first slice of each shows; the second is clear.
SHOWN = (["intraparenchymal"], ["intraparenchymal"], ["subarachnoid"], [], [], [])
SCORES = np.array([0.9, 0.3, 0.6, 0.4, 0.2, 0.7])
"""Of each scan's first slice; the second's is 0.1."""
BY_RULE = np.array([0.8, 0.7, 0.3, 0.5, 0.1, 0.6])
VOLUMES_ML = {"s0": 30.0, "s1": 1.0, "s2": 6.0}


def said(drawn: bool = True) -> Said:
    truth = np.zeros((12, 6))
    for scan, labels in enumerate(SHOWN):
        for label in (*labels, "any") if labels else ():
            truth[2 * scan, LABELS.index(label)] = 1
    scores = np.full((12, 6), np.nan)
    scores[:, -1] = np.stack([SCORES, np.full(6, 0.1)], axis=1).reshape(-1)
    scan_ids = np.array([f"s{k // 2}" for k in range(12)], dtype=object)
    rows = Rows(np.array([f"slice{k}" for k in range(12)], dtype=object), scan_ids, {"cnn": scores})
    types = {"s0": "IPH", "s1": "IPH", "s2": "SAH"}
    measured = [
        (scan, source, types[scan], 1, volume, volume)
        for scan, volume in VOLUMES_ML.items()
        for source in ("true", "drawn")
    ]
    columns = ["scan_id", "source", "type", "lesion", "volume_ml", "abc2_ml"]
    overlaps = pd.DataFrame([("any", 0.5, 0.25)], columns=["type", "dice", "threshold_dice"])
    tables = Drawn(overlaps, pd.DataFrame(measured, columns=columns))
    of_scans = {"cnn/rule": (np.array([f"s{k}" for k in (5, 4, 3, 2, 1, 0)], dtype=object), BY_RULE[::-1])}
    return Said(rows, truth, of_scans, "cnn", 0, tables if drawn else None)


def test_a_scan_counts_as_its_highest_slice():
    found = row_figures("scan", FigureRow("", {}), said())
    # Called: 0.9 and 0.6 rightly, 0.7 wrongly.
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(2 / 3)
    assert found["roc_auc"] == pytest.approx((3 + 1 + 2) / 9)
    assert row_figures("slice", FigureRow("", {}, subset="any"), said())["specificity"] == pytest.approx(8 / 9)
    assert row_figures("scan", FigureRow("", {}, subset="any"), said())["roc_auc"] == found["roc_auc"]
    assert row_figures("scan", FigureRow("", {}, subset="subdural"), said()) == {}


def test_a_rules_scores_are_put_in_order_and_a_missing_predictor_has_none():
    found = row_figures("scan", FigureRow("", {}, stage="cnn/rule", against="cnn"), said())
    truth = np.array([1, 1, 1, 0, 0, 0])
    assert found["roc_auc"] == pytest.approx((3 + 3 + 1) / 9)
    assert found["p_value"] == pytest.approx(compare_aucs(truth, BY_RULE, SCORES, 0.95).p_value)
    assert row_figures("scan", FigureRow("", {}, stage="sequence"), said()) == {}
    assert row_figures("slice", FigureRow("", {}, stage="cnn/rule"), said()) == {}
    assert "p_value" not in row_figures("scan", FigureRow("", {}, against="sequence"), said())


def test_a_threshold_may_be_chosen_for_a_sensitivity():
    found = row_figures("scan", FigureRow("", {}, sensitivity=1.0), said())  # from 0.3 on
    assert (found["sensitivity"], found["specificity"]) == (1, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("subset", "sensitivity"), [("IPH", 1 / 2), ("SAH", 1), ("large", 1), ("small", 0), ("large SAH", math.nan)]
)
def test_strata_are_set_against_all_scans_without_hemorrhage(subset, sensitivity):
    found = row_figures("scan", FigureRow("", {}, subset=subset), said())
    assert found["sensitivity"] == pytest.approx(sensitivity, nan_ok=True)
    assert found["specificity"] == pytest.approx(2 / 3)


def test_a_balanced_set_has_as_many_of_both_and_sizes_need_masks():
    found = row_figures("scan", FigureRow("", {}, subset="balanced SAH"), said())
    assert found["accuracy"] in (0.5, 1)  # one scan with, one without
    assert row_figures("scan", FigureRow("", {}, subset="balanced large"), said(drawn=False)) == {}
    assert row_figures("scan", FigureRow("", {}, subset="balanced IPH"), said(drawn=False)) != {}


def test_lesions_have_overlaps_and_volumes_and_rules_have_volumes_alone():
    found = row_figures("lesion", FigureRow("", {}), said())
    assert (found["dice"], found["volume_bias_ml"], found["scans"]) == (0.5, 0, 3)
    assert "dice" not in row_figures("lesion", FigureRow("", {}, stage="abc2", subset="IPH"), said())
    assert row_figures("lesion", FigureRow("", {}), said(drawn=False)) == {}
    with pytest.raises(ValueError, match=r"subset 'large' of lesions: choose one of IPH, EDH/SDH, SAH"):
        row_figures("lesion", FigureRow("", {}, subset="large"), said())
