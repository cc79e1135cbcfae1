"""Joining tables into training rows: no patient leaks, no test slice has a fold, scans stay in order."""

import numpy as np
import pandas as pd
import pytest

from pipeline.config import UserError
from pipeline.core.rows import cached_slices, scan_bounds, training_rows, whole_scans

SLICES = pd.DataFrame(
    {
        "slice_id": ["a", "b", "c", "d", "e"],
        "patient_id": ["p", "p", "q", "p", "r"],
        "split": ["train", "train", "train", "test", "test"],
    }
)
IMAGES = pd.DataFrame({"slice_id": ["e", "d", "c", "a"], "path": ["e.png", "d.png", "c.png", "a.png"]})
FOLDS = pd.DataFrame({"patient_id": ["p", "q"], "fold": [0, 1]})


def test_rows_keep_the_order_of_slices_and_those_without_an_image_are_left_out():
    rows = cached_slices(SLICES, IMAGES, FOLDS)
    assert rows["slice_id"].tolist() == ["a", "c", "d", "e"]
    assert rows["png"].tolist() == ["a.png", "c.png", "d.png", "e.png"]


def test_the_cached_mask_takes_the_place_of_the_source_mask():
    slices = SLICES.assign(mask=["raw/a.png", "raw/b.png", "raw/c.png", None, None])
    images = IMAGES.assign(mask=[None, None, "c.mask.png", None])
    rows = cached_slices(slices, images, FOLDS)
    assert rows["mask"].isna().tolist() == [True, False, True, True]
    assert rows["mask"][1] == "c.mask.png"
    # The source's mask is never taken for a cached one.
    assert "mask" not in cached_slices(slices, IMAGES, FOLDS)


def test_a_test_slice_has_no_fold_even_where_its_patient_has_one():
    rows = cached_slices(SLICES, IMAGES, FOLDS)
    assert rows["fold"].isna().tolist() == [False, False, True, True]


def test_training_and_validation_part_the_training_slices_by_patient():
    rows = cached_slices(SLICES, IMAGES, FOLDS)
    train, validation = training_rows(rows["fold"], 1)
    assert rows["slice_id"][train].tolist() == ["a"]
    assert rows["slice_id"][validation].tolist() == ["c"]
    with pytest.raises(UserError, match=r"fold 3: 2 rows to train on and 0 to validate on; folds are \[0, 1\]"):
        training_rows(rows["fold"], 3)


def test_bounds_of_scans():
    assert scan_bounds(np.array(["s", "s", "t", "u", "u", "u"])).tolist() == [0, 2, 3, 6]
    assert scan_bounds(np.array([])).tolist() == [0]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 11, 20])
def test_frames_are_cut_between_scans_wherever_they_were_cut(rows):
    table = pd.DataFrame({"scan_id": list("aaabccccdee"), "z_mm": np.arange(11.0)})
    parts = list(whole_scans(table.iloc[start : start + rows] for start in range(0, len(table), rows)))
    assert pd.concat(parts)["z_mm"].tolist() == table["z_mm"].tolist()
    assert sum(part["scan_id"].nunique() for part in parts) == table["scan_id"].nunique()
    assert max(map(len, parts)) <= rows + 4
    assert list(whole_scans([])) == []


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("scans", ["aaba", "abbac", "ba"])
def test_scans_that_lie_apart_are_refused(rows, scans):
    table = pd.DataFrame({"scan_id": list(scans)})
    with pytest.raises(ValueError, match="scans are not in order: a behind b"):
        list(whole_scans(table.iloc[start : start + rows] for start in range(0, len(table), rows)))


def test_the_holdout_division_trains_watches_and_predicts_its_three_parts():
    slices = pd.DataFrame({"slice_id": list("abcd"), "patient_id": list("pqrp"), "split": ["train"] * 3 + ["test"]})
    images = pd.DataFrame({"slice_id": list("abcd"), "path": [f"{name}.png" for name in "abcd"]})
    folds = pd.DataFrame({"patient_id": list("pqr"), "fold": [3, 3, 3], "holdout": ["val", "train", "test"]})
    rows = cached_slices(slices, images, folds, "holdout")
    train, validation = training_rows(rows["fold"], 0, "holdout")
    assert rows["slice_id"][train].tolist() == ["b"]
    assert rows["slice_id"][validation].tolist() == ["a"]
    assert rows["slice_id"][rows["fold"] == 0].tolist() == ["c"]  # what is predicted
    with pytest.raises(UserError, match="fold 0: 0 rows to train on and 1 to validate on"):
        training_rows(rows["fold"].where(~train), 0, "holdout")
