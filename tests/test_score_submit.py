"""Scoring and handing in, from small tables written by hand: rows, constants, costs, refusals, and equal bytes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config import LABELS, P_LABELS, UserError, settings_digest
from pipeline.core.predictions import prevalences
from pipeline.job import Job
from pipeline.leaderboard import COLUMNS
from pipeline.paths import record_of
from pipeline.schema import FOLDS, PREDICTIONS, REJECTED, SLICES, ContractError
from pipeline.score import patients_of_test
from pipeline.shell.provenance import read_json, write_json
from pipeline.shell.tables import read_table, write_table
from pipeline.submit import arrange, check_submission
from tests.stages import job_of, run_stage

ARGUMENTS = ("--dataset", "small", "--recipe", "tiny", "--folds", "0 1")
PATIENTS, SLICES_EACH, TEST_SLICES = 12, 7, 5
"""Patient i is in fold i mod 3 and bears any and subdural on the first i mod 4 of its slices."""

COMMIT = "0123456789ab"


def _labels(patient: int) -> np.ndarray:
    labels = np.zeros((SLICES_EACH, 6), dtype=np.int8)
    labels[: patient % 4, 4:] = 1
    return labels


def _train_slices() -> pd.DataFrame:
    parts = []
    for patient in range(PATIENTS):
        ids = [f"ID_{patient:02d}{k}" for k in range(SLICES_EACH)]
        part = pd.DataFrame({"slice_id": ids, "scan_id": f"S{patient}", "patient_id": f"P{patient:02d}"})
        parts.append(part.assign(**dict(zip(LABELS, _labels(patient).T, strict=True)), split="train"))
    return pd.concat(parts, ignore_index=True)


def _test_slices() -> pd.DataFrame:
    ids = [f"T_{k}" for k in range(TEST_SLICES)]
    part = pd.DataFrame({"slice_id": ids, "scan_id": "TS", "patient_id": "TP", "split": "test"})
    return part.assign(**dict.fromkeys(LABELS))


def _predicted(rows: pd.DataFrame, stage: str, fold: int) -> pd.DataFrame:
    """Return probabilities that differ by stage, fold, slice and label, so that none can stand for another."""
    rng = np.random.default_rng([len(stage), fold, len(rows)])
    table = rows[["slice_id", "scan_id", "split"]].assign(stage=stage, fold=fold)
    return table.assign(**{name: rng.random(len(rows)) for name in P_LABELS})


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    """A data set of 12 train patients and one test scan of 5 slices and a rejected one, predicted by folds 0 and 1."""
    monkeypatch.chdir(tmp_path)
    job = job_of("score", *ARGUMENTS)
    paths = job.paths
    train, test = _train_slices(), _test_slices()
    slices = pd.concat([train, test], ignore_index=True).astype(dict.fromkeys(LABELS, "Int8"))
    slices["orientation"] = [[1.0, 0, 0, 0, 1, 0]] * len(slices)
    for column in SLICES.columns:
        if column.name not in slices:
            slices[column.name] = {"string": "x", "bool": False}.get(str(column.type), 0)
    write_table(paths.slices, SLICES, slices, {})
    rejected = {"path": "x/T_9.dcm", "slice_id": "T_9", "split": "test", "reason": "unreadable", "detail": ""}
    rejected = pd.DataFrame([{**rejected, "scan_id": None, "patient_id": None, "z_mm": None}])
    write_table(paths.rejected, REJECTED, rejected, {})
    write_table(paths.images_rejected, REJECTED, rejected.head(0), {})
    names = [f"P{i:02d}" for i in range(PATIENTS)]
    folds = pd.DataFrame({"patient_id": names, "fold": [i % 3 for i in range(PATIENTS)], "holdout": "train"})
    write_table(paths.folds, FOLDS, folds, {})
    rejected_row = pd.DataFrame([{"slice_id": "T_9", "scan_id": "", "split": "test"}])
    for fold in (0, 1):
        own = train[train["patient_id"].str[1:].astype(int) % 3 == fold]
        rows = pd.concat([own, test, rejected_row], ignore_index=True)
        table = pd.concat([_predicted(rows, stage, fold) for stage in ("cnn", "sequence")])
        write_table(paths.predictions(fold), PREDICTIONS, table, {"commit": COMMIT})
        write_json(record_of(paths.predictions(fold)), {"finished": f"2026-01-0{fold + 1}T00:00:00+00:00"})
        write_json(record_of(paths.cnn(fold)), {"parameters": 1000, "seconds": 10.5})
        write_json(record_of(paths.embeddings(fold)), {"seconds": 2.25})
        write_json(record_of(paths.reduced(fold)), {"seconds": 1.0})
        write_json(record_of(paths.sequence(fold)), {"parameters": 50, "seconds": 4.0})
    _write_sample(paths.sample_submission, ["T_3", "T_9", "T_0", "T_1", "T_4", "T_2"])
    return job


def _write_sample(path: Path, slice_ids: list[str], value: float = 0.5) -> None:
    """Write the long form with labels in an order of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{slice_id}_{label},{value:g}" for slice_id in slice_ids for label in reversed(LABELS)]
    path.write_text("\n".join(["ID,Label", *lines]) + "\n")


def _row(score: dict, stage: str) -> dict:
    return next(row for row in score["rows"] if row["stage"] == stage)


def _loss(truth: np.ndarray, said: np.ndarray) -> float:
    """Return the weighted log loss the plain way."""
    losses = -(truth * np.log(said) + (1 - truth) * np.log(1 - said))
    return float((losses * np.array([1, 1, 1, 1, 1, 2]) / 7).sum(axis=1).mean())


def test_a_folds_rows_carry_exactly_the_leaderboards_columns(job):
    run_stage("score", *ARGUMENTS, "--fold", "1")
    score = read_json(job.paths.score(1))
    assert (score["dataset"], score["run"], score["fold"]) == ("small", "tiny", "1")
    assert [row["stage"] for row in score["rows"]] == ["cnn", "sequence", "constant-0.5", "constant-prevalence"]
    assert all(tuple(row) != () and set(row) == set(COLUMNS) for row in score["rows"])
    assert {(row["slices"], row["scans"]) for row in score["rows"]} == {(28, 4)}
    assert not job.paths.score("oof").exists()


def test_a_folds_figures_by_hand(job):
    run_stage("score", *ARGUMENTS, "--fold", "1")
    score = read_json(job.paths.score(1))
    table = read_table(job.paths.predictions(1)).query("stage == 'cnn' and split == 'train'")
    truth = np.concatenate([_labels(patient) for patient in (1, 4, 7, 10)])
    row = _row(score, "cnn")
    assert row["weighted_log_loss"] == pytest.approx(_loss(truth, table[list(P_LABELS)].to_numpy()), abs=1e-9)
    assert row["weighted_log_loss_low"] < row["weighted_log_loss"] < row["weighted_log_loss_high"]
    assert _row(score, "constant-0.5")["weighted_log_loss"] == pytest.approx(0.693147, abs=1e-6)
    # No epidural slice at all: its areas cannot be said, its log loss can.
    assert row["roc_auc_epidural"] is None
    assert row["pr_auc_epidural"] is None
    assert row["log_loss_epidural"] > 0
    assert 0 < row["roc_auc_any"] < 1
    assert (row["commit"], row["time"]) == (COMMIT, "2026-01-02T00:00:00+00:00")
    assert row["settings_digest"] == settings_digest(job.run.settings)


def test_the_constant_is_the_prevalence_of_the_other_folds_and_never_sees_its_own(job):
    truth = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    rates = prevalences(truth, np.array([0, 0, 1, 2]), [0, 1])
    assert rates[0].tolist() == [0, 0.5]
    assert rates[1].tolist() == pytest.approx([2 / 3, 1 / 3])
    run_stage("score", *ARGUMENTS, "--fold", "1")
    others = np.concatenate([_labels(patient) for patient in range(PATIENTS) if patient % 3 != 1])
    own = np.concatenate([_labels(patient) for patient in range(PATIENTS) if patient % 3 == 1])
    said = np.clip(np.broadcast_to(others.mean(axis=0), own.shape), 1e-15, 1 - 1e-15)
    row = _row(read_json(job.paths.score(1)), "constant-prevalence")
    assert row["weighted_log_loss"] == pytest.approx(_loss(own, said), abs=1e-9)


def test_out_of_fold_is_all_folds_each_by_the_one_that_did_not_see_it(job):
    for fold in (0, 1):
        run_stage("score", *ARGUMENTS, "--fold", str(fold))
    run_stage("score", *ARGUMENTS)
    whole = read_json(job.paths.score("oof"))
    parts = [read_json(job.paths.score(fold)) for fold in (0, 1)]
    for stage in ("cnn", "sequence", "constant-prevalence"):
        rows = [_row(part, stage) for part in parts]
        mean = sum(row["weighted_log_loss"] * row["slices"] for row in rows) / sum(row["slices"] for row in rows)
        assert _row(whole, stage)["weighted_log_loss"] == pytest.approx(mean, abs=1e-8)
    assert (_row(whole, "cnn")["slices"], _row(whole, "cnn")["scans"]) == (56, 8)
    assert _row(whole, "cnn")["time"] == "2026-01-02T00:00:00+00:00"
    assert not job.paths.score("test").exists()


def test_test_is_the_mean_over_folds_against_truth_csv(job):
    ids = ["T_9", "T_4", "T_2", "T_1", "T_0", "T_3"]
    _write_sample(job.paths.truth, ids, value=1)
    run_stage("score", *ARGUMENTS)
    score = read_json(job.paths.score("test"))
    tables = [read_table(job.paths.predictions(k)).query("stage == 'cnn' and split == 'test'") for k in (0, 1)]
    mean = np.mean([table[list(P_LABELS)].to_numpy() for table in tables], axis=0)
    row = _row(score, "cnn")
    assert row["weighted_log_loss"] == pytest.approx(_loss(np.ones((6, 6)), mean), abs=1e-9)
    # The rejected slice is scored, but nobody knows its scan; all labels are positive, so no area can be said.
    assert (row["slices"], row["scans"], row["roc_auc_any"], row["scan_roc_auc_any"]) == (6, 1, None, None)
    job.paths.truth.unlink()
    run_stage("score", *ARGUMENTS)
    assert not job.paths.score("test").exists()


def test_truth_that_lacks_a_predicted_slice_is_named(job):
    _write_sample(job.paths.truth, ["T_0", "T_1", "T_2", "T_3", "T_4"], value=0)
    with pytest.raises(UserError, match=r"truth.csv: 1 predicted slices are not in it, such as T_9"):
        run_stage("score", *ARGUMENTS)


def test_a_rejected_slices_patient_is_looked_up_and_else_its_own():
    found = patients_of_test(
        np.array(["a", "b", "c"], dtype=object), pd.Series({"a": "P1", "z": "P9"}), pd.Series({"b": "P2", "a": "wrong"})
    )
    assert found.tolist() == ["P1", "P2", "slice c"]


def test_costs_are_one_model_and_the_seconds_of_all_folds(job):
    run_stage("score", *ARGUMENTS)
    score = read_json(job.paths.score("oof"))
    cost = {row["stage"]: (row["parameters"], row["seconds"]) for row in score["rows"]}
    assert cost["cnn"] == (1000, 2 * (10.5 + 2.25))
    assert cost["sequence"] == (1050, 2 * (10.5 + 2.25 + 1 + 4))
    assert cost["constant-0.5"] == cost["constant-prevalence"] == (0, 0)
    record_of(job.paths.cnn(1)).unlink()
    record_of(job.paths.cnn(0)).unlink()
    run_stage("score", *ARGUMENTS)
    assert _row(read_json(job.paths.score("oof")), "sequence")["seconds"] is None
    assert _row(read_json(job.paths.score("oof")), "sequence")["parameters"] is None


def test_paired_differences_are_differences_of_the_rows(job):
    run_stage("score", *ARGUMENTS)
    score = read_json(job.paths.score("oof"))
    assert [(p["stage"], p["minus"]) for p in score["paired"]] == [("cnn", "constant-prevalence"), ("sequence", "cnn")]
    for pair in score["paired"]:
        expected = _row(score, pair["stage"])["weighted_log_loss"] - _row(score, pair["minus"])["weighted_log_loss"]
        assert pair["difference"] == pytest.approx(expected, abs=2e-9)
        assert pair["low"] < pair["difference"] < pair["high"]


def test_scoring_twice_changes_no_byte(job):
    run_stage("score", *ARGUMENTS)
    first = job.paths.score("oof").read_bytes()
    run_stage("score", *ARGUMENTS)
    assert job.paths.score("oof").read_bytes() == first
    json.loads(first, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_order_of_rows_in_a_table_does_not_matter(job):
    run_stage("score", *ARGUMENTS)
    rows = read_json(job.paths.score("oof"))["rows"]
    for fold in (0, 1):
        table = read_table(job.paths.predictions(fold)).sample(frac=1, random_state=fold)
        write_table(job.paths.predictions(fold), PREDICTIONS, table, {"commit": COMMIT})
    run_stage("score", *ARGUMENTS)
    assert read_json(job.paths.score("oof"))["rows"] == rows


def _rewrite(job: Job, fold: int, change) -> None:
    table = change(read_table(job.paths.predictions(fold)))
    write_table(job.paths.predictions(fold), PREDICTIONS, table, {"commit": COMMIT})


def test_a_leak_between_folds_is_refused(job):
    _rewrite(job, 1, lambda table: table.assign(slice_id=table["slice_id"].replace("ID_010", "ID_000")))
    with pytest.raises(ValueError, match="2 slices are out of fold twice|1 slices are out of fold twice"):
        run_stage("score", *ARGUMENTS)


def test_stages_that_predict_other_slices_are_refused(job):
    _rewrite(job, 0, lambda table: table[(table["stage"] == "cnn") | (table["slice_id"] != "ID_000")])
    with pytest.raises(ValueError, match="stage sequence predicts other slices than stage cnn"):
        run_stage("score", *ARGUMENTS)


def test_missing_predictions_name_the_stage_that_makes_them(job):
    job.paths.predictions(1).unlink()
    for stage in ("score", "submit"):
        with pytest.raises(UserError, match=r"fold-1.parquet is missing: make it with `make predict`"):
            run_stage(stage, *ARGUMENTS)


def test_the_submission_is_the_last_stages_mean_in_the_samples_order(job, caplog):
    with caplog.at_level("INFO"):
        run_stage("submit", *ARGUMENTS)
    text = job.paths.submission.read_text()
    handed_in, sample = pd.read_csv(job.paths.submission), pd.read_csv(job.paths.sample_submission)
    assert text.startswith("ID,Label\nT_3_any,")
    assert handed_in["ID"].tolist() == sample["ID"].tolist()
    values = handed_in.set_index("ID")["Label"]
    tables = [read_table(job.paths.predictions(k)).query("stage == 'sequence' and split == 'test'") for k in (0, 1)]
    for slice_id in ("T_9", "T_0", "T_3"):
        for label in LABELS:
            folds = [table.set_index("slice_id").loc[slice_id, f"p_{label}"] for table in tables]
            assert values[f"{slice_id}_{label}"] == pytest.approx(np.mean(folds), rel=1e-8)
    assert "36 rows, mean of folds 0, 1" in caplog.text
    record = read_json(record_of(job.paths.submission))
    assert (record["rows"], record["settings"]["folds"]) == (36, [0, 1])


def test_the_sample_may_be_written_as_windows_and_excel_write(job):
    run_stage("submit", *ARGUMENTS)
    plain, sample = job.paths.submission.read_bytes(), job.paths.sample_submission
    lines = [line.split(",") for line in sample.read_text().splitlines()]
    # A BOM, CRLF, quotes, spaces, a blank line, the columns swapped, and one more that is no matter.
    text = "\r\n".join(f'"{label} ",x,"{row_id}"' for row_id, label in lines) + "\r\n\r\n"
    sample.write_bytes(b"\xef\xbb\xbf" + text.encode())
    run_stage("submit", *ARGUMENTS)
    assert job.paths.submission.read_bytes() == plain


def test_exactly_the_folds_asked_for_are_averaged(job):
    run_stage("submit", *ARGUMENTS[:-1], "1")
    table = read_table(job.paths.predictions(1)).query("stage == 'sequence' and slice_id == 'T_2'")
    values = pd.read_csv(job.paths.submission, index_col="ID")["Label"]
    assert values["T_2_subdural"] == pytest.approx(table["p_subdural"].item(), rel=1e-8)


def test_a_recipe_without_a_sequence_model_hands_in_its_cnn(job):
    arguments = (*ARGUMENTS, "--set", "sequence.kind=none")
    cnn_only = job_of("submit", *arguments)
    for fold in (0, 1):
        table = read_table(job.paths.predictions(fold)).query("stage == 'cnn'")
        write_table(cnn_only.paths.predictions(fold), PREDICTIONS, table, {"commit": COMMIT})
    run_stage("submit", *arguments)
    run_stage("score", *arguments)
    said = np.mean(
        [read_table(cnn_only.paths.predictions(k)).set_index("slice_id").loc["T_2", "p_any"] for k in (0, 1)]
    )
    assert pd.read_csv(cnn_only.paths.submission, index_col="ID")["Label"]["T_2_any"] == pytest.approx(said, rel=1e-8)
    score = read_json(cnn_only.paths.score("oof"))
    assert [row["stage"] for row in score["rows"]] == ["cnn", "constant-0.5", "constant-prevalence"]
    assert len(score["paired"]) == 1


def test_probabilities_are_clipped_as_set_and_keep_nine_digits(job):
    extreme = {name: [1.0, 0.0, 1 / 3][k % 3] for k, name in enumerate(P_LABELS)}
    for fold in (0, 1):
        _rewrite(job, fold, lambda table: table.assign(**extreme))
    run_stage("submit", *ARGUMENTS)
    assert sorted({line.split(",")[1] for line in job.paths.submission.read_text().splitlines()[1:]}) == [
        "0.333333333",
        "0.999999",
        "1e-06",
    ]
    clipped = arrange(np.array(["a"]), np.array([[1.0, 0, 0, 0, 0, 0.5]]), pd.Series(["a_epidural", "a_any"]), 0.01)
    assert clipped["Label"].tolist() == [0.99, 0.5]


def test_a_slice_without_prediction_is_named_and_the_previous_csv_stays(job):
    run_stage("submit", *ARGUMENTS)
    before = job.paths.submission.read_bytes()
    for fold in (0, 1):
        _rewrite(job, fold, lambda table: table[table["slice_id"] != "T_1"])
    with pytest.raises(ContractError, match="6 rows without a finite value: T_1_any, T_1_subdural.* and 1 more"):
        run_stage("submit", *ARGUMENTS)
    assert job.paths.submission.read_bytes() == before
    assert not list(job.paths.submission.parent.glob("*.partial"))


def test_labels_that_a_system_does_not_give_are_named(job):
    _rewrite(job, 1, lambda table: table.assign(p_epidural=np.nan, p_subdural=np.nan))
    with pytest.raises(UserError, match="no probabilities of epidural, subdural"):
        run_stage("submit", *ARGUMENTS)


def test_folds_with_other_test_slices_are_refused(job):
    _rewrite(job, 1, lambda table: table[table["slice_id"] != "T_1"])
    with pytest.raises(ValueError, match="prediction 1 has other slices than prediction 0, such as T_1"):
        run_stage("submit", *ARGUMENTS)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("ID,Label\nT_0_any,0.5\nT_0_any,0.5\n", "csv, lines 2 and 3: IDs are repeated: T_0_any; correct the file"),
        ("id;label\nT_0_any;0.5\n", "csv, line 1: 'id;label' is separated by ';'"),
        ("", "csv: the file is empty"),
        (None, "is missing: it says which slices to predict"),
    ],
)
def test_a_sample_submission_that_cannot_be_used(job, content, text):
    job.paths.sample_submission.unlink()
    if content is not None:
        job.paths.sample_submission.write_text(content)
    with pytest.raises(UserError, match=text):
        run_stage("submit", *ARGUMENTS)


SAMPLE_IDS = pd.Series(["a_any", "b_any", "c_any"])


@pytest.mark.parametrize(
    ("ids", "values", "text"),
    [
        (["a_any", "b_any", "b_any"], [0.5, 0.5, 0.5], "repeats b_any"),
        (["b_any", "a_any", "c_any"], [0.5, 0.5, 0.5], "3 rows in another order than the sample's 3"),
        (["a_any", "b_any"], [0.5, 0.5], "2 rows in another order than the sample's 3"),
        (["a_any", "b_any", "c_any"], [0.5, np.nan, np.inf], "2 rows without a finite value: b_any, c_any"),
        (["a_any", "b_any", "c_any"], [0.5, 1.01, -0.1], r"2 values outside \[0, 1\]: b_any, c_any"),
    ],
)
def test_each_rule_of_a_submission_is_checked(ids, values, text):
    check_submission(pd.DataFrame({"ID": SAMPLE_IDS, "Label": [0.0, 0.5, 1.0]}), SAMPLE_IDS)
    with pytest.raises(ContractError, match=text):
        check_submission(pd.DataFrame({"ID": ids, "Label": values}), SAMPLE_IDS)
