"""The generated index: its totals are RSNA's, its scans are possible, and its predictors are as good as they claim."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.full_size_data import (
    RSNA_TEST,
    RSNA_TRAIN,
    SEPARATION,
    SHARED_PATIENTS,
    hex_ids,
    long_form,
    make_slices,
    predictions,
    prevalence_loss,
    scaled,
    whole_numbers,
)
from pipeline.config import LABELS, METRIC_WEIGHTS, P_LABELS
from pipeline.core.metrics import roc_and_pr_auc

TRAIN, TEST = scaled(RSNA_TRAIN, 0.05), scaled(RSNA_TEST, 0.05)


@pytest.fixture(scope="module")
def slices() -> pd.DataFrame:
    """A twentieth of RSNA: 37,640 + 6,062 slices."""
    return make_slices(TRAIN, TEST, seed=3)


@pytest.fixture(scope="module")
def fold_of(slices) -> pd.Series:
    patients = slices.loc[slices["split"] == "train", "patient_id"].unique()
    return pd.Series(np.arange(len(patients)) % 5, index=patients)


def test_rsnas_totals_are_the_published_ones():
    assert (RSNA_TRAIN.slices, RSNA_TRAIN.scans, RSNA_TRAIN.patients) == (752_803, 21_744, 18_938)
    assert (RSNA_TEST.slices, RSNA_TEST.scans) == (121_232, 3_528)
    assert dict(zip(LABELS, RSNA_TRAIN.positive, strict=True)) == {
        "epidural": 3_145, "intraparenchymal": 36_118, "intraventricular": 26_205,
        "subarachnoid": 35_675, "subdural": 47_166, "any": 107_933,
    }  # fmt: skip
    rates = [np.array(part.positive) / part.slices for part in (RSNA_TRAIN, RSNA_TEST)]
    assert rates[0] == pytest.approx(rates[1], rel=2e-3)


@pytest.mark.parametrize(("split", "part"), [("train", TRAIN), ("test", TEST)])
def test_totals_are_exact(slices, split, part):
    own = slices[slices["split"] == split]
    assert (len(own), own["scan_id"].nunique(), own["patient_id"].nunique()) == (part.slices, part.scans, part.patients)
    assert own["study_id"].nunique() == part.scans
    positive = own[list(LABELS)].sum().to_numpy()
    assert positive[1:].tolist() == list(part.positive[1:])
    assert positive[0] == pytest.approx(part.positive[0], abs=40)  # epidural: few slices, in whole runs


def test_ids_are_unique_and_rsnas(slices):
    assert slices["slice_id"].is_unique
    assert slices["slice_id"].str.fullmatch(r"ID_[0-9a-f]{9}").all()
    assert slices["patient_id"].str.fullmatch(r"ID_[0-9a-f]{8}").all()
    assert slices["scan_id"].str.fullmatch(r"ID_[0-9a-f]{10}").all()
    assert len(hex_ids(np.random.default_rng(0), 200, 2)) == len(set(hex_ids(np.random.default_rng(0), 200, 2))) == 200


def test_scans_are_possible(slices):
    lengths = slices.groupby("scan_id").size()
    assert lengths.between(20, 60).all()
    assert lengths.std() == pytest.approx(6, abs=0.7)
    assert slices[["scan_id", "position"]].equals(slices[["scan_id", "position"]].sort_values(["scan_id", "position"]))
    assert (slices.groupby("scan_id")["position"].max() == lengths - 1).all()
    assert (slices.groupby("scan_id")[["patient_id", "study_id", "split"]].nunique() == 1).all(axis=None)


def test_positives_lie_together_in_two_scans_of_five(slices):
    scans = slices.groupby("scan_id")
    assert scans["any"].max().mean() == pytest.approx(0.4, abs=0.002)
    for label in LABELS:
        positive = slices[slices[label] == 1].groupby("scan_id")["position"].agg(["min", "max", "count"])
        assert (positive["max"] - positive["min"] + 1 == positive["count"]).all()
    assert slices["any"].equals(slices[list(LABELS[:5])].max(axis=1).rename("any"))
    subtypes = slices.loc[slices["any"] == 1, list(LABELS[:5])].sum(axis=1)
    assert subtypes.mean() == pytest.approx(1.374, abs=0.01)


def test_some_patients_have_several_scans_and_some_are_in_both_parts(slices):
    scans_of = slices[slices["split"] == "train"].groupby("patient_id")["scan_id"].nunique()
    assert 0.08 < (scans_of > 1).mean() < 0.16
    assert scans_of.max() >= 3
    patients = [set(slices.loc[slices["split"] == split, "patient_id"]) for split in ("train", "test")]
    assert len(patients[0] & patients[1]) == round(SHARED_PATIENTS * TEST.patients)


def test_equal_seeds_give_equal_data_and_other_seeds_other_data(slices, fold_of):
    pd.testing.assert_frame_equal(slices, make_slices(TRAIN, TEST, seed=3))
    assert not slices["any"].equals(make_slices(TRAIN, TEST, seed=4)["any"])
    first, second = (dict(predictions(slices, fold_of, seed=5))[2] for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_folds_predict_their_own_patients_and_all_test_slices(slices, fold_of):
    tables = dict(predictions(slices, fold_of, seed=0))
    assert list(tables) == [0, 1, 2, 3, 4]
    split, patient = slices.set_index("slice_id")["split"], slices.set_index("slice_id")["patient_id"]
    out_of_fold = []
    for fold, table in tables.items():
        assert (table["fold"] == fold).all()
        for stage in SEPARATION:
            own = table[table["stage"] == stage]
            assert set(own.loc[own["split"] == "test", "slice_id"]) == set(split.index[split == "test"])
            trained = own.loc[own["split"] == "train", "slice_id"]
            assert (patient[trained].map(fold_of) == fold).all()
        out_of_fold += trained.tolist()
    assert sorted(out_of_fold) == sorted(split.index[split == "train"])


def test_predictors_are_calibrated_and_as_good_as_their_separation_says(slices, fold_of):
    whole = pd.concat(table for _, table in predictions(slices, fold_of, seed=0)).query("split == 'train'")
    truth = slices.set_index("slice_id")
    for stage, roc in {"cnn": 0.967, "sequence": 0.988}.items():  # Phi(separation / sqrt 2)
        table = whole[whole["stage"] == stage]
        labels = truth.loc[table["slice_id"], list(LABELS)].to_numpy()
        values = table[list(P_LABELS)].to_numpy()
        assert 0 < values.min() < values.max() < 1
        assert values.mean(axis=0) == pytest.approx(labels.mean(axis=0), rel=0.15)
        assert roc_and_pr_auc(labels[:, -1], values[:, -1])[0] == pytest.approx(roc, abs=0.003)


def test_whole_numbers_stay_near_and_add_up():
    wanted = np.array([1.2, 2.6, 9.0, -3.0, 4.4])
    assert whole_numbers(wanted, 15, 0, 6).tolist() == [1, 3, 6, 0, 5]
    assert whole_numbers(wanted, 30, 0, 6).tolist() == [6] * 5
    with pytest.raises(ValueError, match="5 numbers from 0 to 30 in all cannot add up to 31"):
        whole_numbers(wanted, 31, 0, 6)


def test_the_long_form_has_six_rows_a_slice_and_repeats_some():
    values = np.arange(12).reshape(2, 6)
    table = long_form(np.array(["b", "a"], dtype=object), values, repeated=1).to_pydict()
    assert table["ID"] == [f"{slice_id}_{label}" for slice_id in "bab" for label in LABELS]
    assert table["Label"] == [*range(12), *range(6)]


def test_the_prevalences_loss_by_hand():
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, 1]]) * np.ones((2, 4, 1), dtype=int)
    expected = (0.562335 * 1 + 0.693147 * 2) / 3
    assert prevalence_loss(labels.reshape(8, 2), np.array([1.0, 2.0])) == pytest.approx(expected, abs=1e-6)
    rates = np.array(RSNA_TRAIN.positive) / RSNA_TRAIN.slices
    entropies = -(rates * np.log(rates) + (1 - rates) * np.log(1 - rates))
    assert np.average(entropies, weights=METRIC_WEIGHTS) == pytest.approx(0.2311, abs=1e-4)
