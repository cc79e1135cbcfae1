"""Folds: no patient in two, all labels alike in each, and the same whatever the order of rows."""

import logging

import numpy as np
import pandas as pd
import pytest

from pipeline.config import BASE, LABELS, Split, UserError
from pipeline.core.folds import check_disjoint, check_stratified, divide, label_rates, patient_table
from pipeline.paths import record_of
from pipeline.schema import SLICES, ContractError
from pipeline.shell.provenance import read_json
from pipeline.shell.tables import read_table, write_table
from pipeline.split import divide_patients
from tests.stages import job_of, run_stage

FIFTHS = (0.2,) * 5
HOLDOUT = BASE.split.holdout


def _slices(patients: int, scans: int, seed: int, share: float = 0.12, slices: int = 10) -> pd.DataFrame:
    """Return labelled slices: each scan bears each label with a chance of `share`, on a run of its slices."""
    rng = np.random.default_rng(seed)
    patient_of = np.concatenate([np.arange(patients), rng.integers(0, patients, scans - patients)])
    scan = np.repeat(np.arange(scans), rng.integers(slices - 3, slices + 4, scans))
    place = pd.Series(scan).groupby(scan).cumcount().to_numpy()
    labels = np.zeros((len(scan), 6), dtype=np.int8)
    for k in range(5):
        first, length = rng.integers(0, 5, scans)[scan], rng.integers(1, 5, scans)[scan]
        labels[:, k] = (rng.random(scans) < share)[scan] & (place >= first) & (place < first + length)
    labels[:, 5] = labels[:, :5].max(axis=1)
    frame = pd.DataFrame(
        {
            "slice_id": [f"ID_{i:06d}" for i in range(len(scan))],
            "scan_id": [f"S{i:05d}" for i in scan],
            "patient_id": [f"P{i:05d}" for i in patient_of[scan]],
        }
    )
    return frame.assign(**{label: labels[:, k] for k, label in enumerate(LABELS)})


def test_what_a_patient_brings_by_hand():
    slices = pd.DataFrame(
        {
            "patient_id": ["b", "a", "b", "b", "b"],
            "scan_id": ["s1", "s2", "s1", "s3", "s3"],
            **{label: [0, 0, 0, 0, 0] for label in LABELS},
        }
    ).assign(subdural=[1, 0, 1, 0, 1], any=[1, 0, 1, 0, 1])
    table = patient_table(slices)
    assert table.index.tolist() == ["a", "b"]
    columns = ["slices", "scans", "slices_subdural", "scans_subdural", "slices_epidural"]
    assert table[columns].to_numpy().tolist() == [[1, 1, 0, 0, 0], [4, 2, 3, 2, 0]]


def test_large_data_is_alike_in_all_labels_slices_scans_and_patients():
    patients = patient_table(_slices(1500, 1800, seed=0, share=0.03))
    for shares in (FIFTHS, HOLDOUT):
        parts = divide(patients, shares, seed=0)
        check_stratified(patients, parts, shares)
        rates = label_rates(patients, parts)
        whole = rates.loc["all"]
        for part, share in enumerate(shares):
            assert rates.loc[part, "slices"] == pytest.approx(share * whole["slices"], rel=0.01)
            assert rates.loc[part, "scans"] == pytest.approx(share * whole["scans"], rel=0.03)
            assert rates.loc[part, "patients"] == pytest.approx(share * whole["patients"], rel=0.03)
            for label in LABELS:
                # Six slices are about what one positive scan brings.
                assert rates.loc[part, label] == pytest.approx(whole[label], abs=6 / rates.loc[part, "slices"])


@pytest.mark.parametrize("seed", range(12))
def test_small_data_is_stratified_and_each_fold_holds_each_subtype_that_enough_patients_bear(seed):
    # The phantom's size: 60 scans of some 50 patients.
    patients = patient_table(_slices(50, 60, seed))
    parts = divide(patients, FIFTHS, seed=0)
    check_stratified(patients, parts, FIFTHS)
    check_stratified(patients, divide(patients, HOLDOUT, seed=0), HOLDOUT)
    for label in LABELS:
        bearers = (patients[f"slices_{label}"] > 0).to_numpy()
        if bearers.sum() >= 5:
            assert set(parts[bearers]) == {0, 1, 2, 3, 4}, label


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    slices = _slices(80, 100, seed=3)
    first = divide(patient_table(slices), FIFTHS, seed=0)
    shuffled = patient_table(slices.sample(frac=1, random_state=1))
    assert divide(shuffled, FIFTHS, seed=0).tolist() == first.tolist()
    assert divide(shuffled, FIFTHS, seed=1).tolist() != first.tolist()


def test_five_bearers_of_a_rare_label_go_to_five_folds():
    slices = _slices(40, 40, seed=4)
    bearers = [f"P{i:05d}" for i in (2, 11, 17, 23, 38)]
    slices["epidural"] = slices["patient_id"].isin(bearers).astype(np.int8)
    patients = patient_table(slices)
    parts = pd.Series(divide(patients, FIFTHS, seed=0), index=patients.index)
    assert sorted(parts[bearers]) == [0, 1, 2, 3, 4]


def test_a_split_that_is_not_stratified_is_refused_with_label_part_and_rates():
    patients = patient_table(_slices(200, 240, seed=5))
    parts = divide(patients, FIFTHS, seed=0)
    parts[patients["slices_subdural"].to_numpy().argsort()[-30:]] = 3
    with pytest.raises(
        ValueError,
        match=r"part \d holds \d+ of \d+ slices of [a-z]+, wanted .* ± .*: a rate of 0\.\d+, where .* 0\.\d+",
    ):
        check_stratified(patients, parts, FIFTHS)


def test_a_patient_in_two_folds_is_named():
    check_disjoint(np.array(["a", "a", "b"]), np.array([1, 1, 0]))
    with pytest.raises(ValueError, match="patient a is in parts 0, 1"):
        check_disjoint(np.array(["a", "b", "a"]), np.array([1, 0, 0]))


@pytest.mark.parametrize(
    ("split", "text"),
    [
        (Split(folds=5), "split.folds=5: the train part has 4 patients"),
        (Split(folds=1), "split.folds=1"),
        (Split(folds=2, holdout=(0.5, 0.5)), "three positive shares that add up to 1"),
        (Split(folds=2, holdout=(0.9, 0.2, -0.1)), "three positive shares"),
    ],
)
def test_settings_that_cannot_be_met_are_the_users_mistake(split, text):
    with pytest.raises(UserError, match=text):
        divide_patients(patient_table(_slices(4, 4, seed=0)), split)


def test_a_fault_of_the_division_is_ours(monkeypatch):
    monkeypatch.setattr("pipeline.split.divide", lambda patients, shares, seed: np.zeros(len(patients), dtype=int))
    with pytest.raises(ContractError, match=r"FOLDS.fold: part 0 holds \d+ of \d+ slices"):
        divide_patients(patient_table(_slices(50, 60, seed=0)), Split())


def test_the_stage_writes_train_patients_alone_and_logs_the_rates(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    slices = _slices(30, 40, seed=6).assign(split="train")
    test = _slices(3, 3, seed=7).assign(split="test", **dict.fromkeys(LABELS))
    # P00000 has slices in both parts, the other two of the test part have none in train.
    test["slice_id"] = "T" + test["slice_id"]
    test["patient_id"] = test["patient_id"].replace({"P00001": "Q1", "P00002": "Q2"})
    table = pd.concat([slices, test], ignore_index=True).astype(dict.fromkeys(LABELS, "Int8"))
    table["orientation"] = [[1.0, 0, 0, 0, 1, 0]] * len(table)
    for column in SLICES.columns:
        if column.name not in table:
            table[column.name] = {"string": "x", "bool": False}.get(str(column.type), 0)
    job = job_of("split", "--recipe", "tiny")
    write_table(job.paths.slices, SLICES, table, {})
    with caplog.at_level(logging.INFO):
        run_stage("split", "--recipe", "tiny")
    folds = read_table(job.paths.folds)
    assert folds["patient_id"].tolist() == sorted(slices["patient_id"].unique())
    assert set(folds["fold"]) == {0, 1, 2, 3, 4}
    assert folds["holdout"].value_counts().to_dict() == {"train": 20, "val": 4, "test": 6}
    assert all(label in caplog.text for label in LABELS)
    rates = read_json(record_of(job.paths.folds))["rates"]
    assert set(rates["fold"]) == {"0", "1", "2", "3", "4", "all"}
    assert rates["holdout"]["all"]["any"] == pytest.approx(slices["any"].mean())
