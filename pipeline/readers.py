"""Stage `readers`: human readers and the run's models on the same scans, beside the reader study of the paper."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import LABELS, UserError
from pipeline.core.predictions import Rows, look_up, out_of_fold_rows, rows_of_test
from pipeline.core.reader_study import common_scans, kappas, reader_rows, scan_maxima
from pipeline.core.reader_table import figures_text, kappa_text
from pipeline.core.rows import label_matrix, patient_folds
from pipeline.datasets.csv_text import some
from pipeline.datasets.reader_csv import read_readings
from pipeline.datasets.rsna import read_labels
from pipeline.job import Job
from pipeline.paths import require
from pipeline.shell.tables import read_table

THRESHOLD = 0.5
"""A scan whose score reaches it is called positive; Burduja et al. 2020 do not say theirs."""

PER_LABEL = ("accuracy", "roc_auc", "sensitivity", "specificity")
"""The figures of Burduja et al. 2020, Table 5."""

ANY_ALONE = ("accuracy", "recall", "precision", "f1")
"""The figures of Grewal et al. 2018, Table 2."""

ScanTables = tuple[pd.DataFrame, dict[str, pd.DataFrame]]
"""Scans' truth, and by model what it says of them: (scans, labels), indexed by scan_id."""


def main(job: Job) -> None:
    """Print the tables of readers and models, and of readers among one another, on the scans that all readers read."""
    path = job.require_readers()
    readings = read_readings(path)
    columns = ["slice_id", "scan_id", "patient_id", "split", *LABELS]
    slices = read_table(require(job.paths.slices, "index"), columns)
    predictions = {fold: read_table(require(job.paths.predictions(fold), "predict")) for fold in job.folds}
    truth, models = scan_tables(job, path, readings, slices, predictions)
    scans = common_scans(readings)
    if not scans:
        readers = some(readings["reader"].unique())
        raise UserError(f"{path}: no scan was read by all of the readers {readers}; leave some of them out")
    calls = {
        reader: own.set_index("scan_id").loc[scans, list(LABELS)].to_numpy(np.float64)
        for reader, own in readings.groupby("reader", sort=False)
    }
    known = truth.loc[scans].to_numpy()
    scores = {name: own.loc[scans].to_numpy() for name, own in models.items()}
    training = slices.loc[slices["split"] == "train", "scan_id"]
    sys.stdout.write(_opening(job, readings, known, int(pd.Index(scans).isin(training).sum())))
    level = job.run.settings.predict.level
    for title, labels, figures in (("Each label", LABELS, PER_LABEL), ("Any hemorrhage", LABELS[-1:], ANY_ALONE)):
        published = job.reader_table if job.reader_table and job.reader_table.figures == figures else None
        source = f", beside {published.title}: {published.scans}.\n{published.note}" if published else ":"
        rows = reader_rows(known, calls, scores, labels, THRESHOLD, level)
        sys.stdout.write(f"\n{title}{source}\n{figures_text(rows, figures, published)}")
    if len(calls) > 1:
        sys.stdout.write(f"\nCohen's kappa of each two readers:\n{kappa_text(kappas(calls))}")


def scan_tables(
    job: Job, path: Path, readings: pd.DataFrame, slices: pd.DataFrame, predictions: Mapping[int, pd.DataFrame]
) -> ScanTables:
    """Return the truth of the scans that were read, and what each model says of them.

    Raises UserError, with the line of the CSV at `path`, for scans that are not in the data set, or of which there is
    no truth or no prediction.
    """
    splits = splits_of(slices, predictions.values())
    _refuse(path, readings, set(readings["scan_id"]) - set(splits), f"not in {job.paths.slices}; correct the names")
    training, test = ({scan for scan in readings["scan_id"] if splits[scan] == part} for part in ("train", "test"))
    truth, models = scans_of_training(slices, predictions, training)
    if test:
        known = job.paths.truth
        if not known.exists():
            reason = f"test scans, whose truth is not known; put it into {known}, or leave them out"
            _refuse(path, readings, test, reason)
        test_truth, test_models = scans_of_test(known, predictions, test)
        truth = pd.concat([truth, test_truth])
        models = {name: pd.concat([own, test_models[name]]) for name, own in models.items()}
    lacking = training - set(next(iter(models.values())).index)
    if lacking:
        patients = slices.drop_duplicates("scan_id").set_index("scan_id")["patient_id"]
        split_kind = job.run.settings.split.kind
        fold_of = patient_folds(read_table(require(job.paths.folds, "split")), split_kind)
        if split_kind == "holdout":
            trained = {scan for scan in lacking if fold_of[patients[scan]] not in job.folds}
            _refuse(path, readings, trained, "no prediction, for split.kind=holdout trained on them; leave them out")
        _refuse_unpredicted(path, readings, {scan: int(fold_of[patients[scan]]) for scan in lacking}, job.folds)
    return truth, models


def splits_of(slices: pd.DataFrame, predictions: Iterable[pd.DataFrame]) -> dict[str, str]:
    """Return `train` or `test` by scan_id; of a test scan that could not be read, only predictions know."""
    test = [table.loc[table["split"] == "test", "scan_id"] for table in (slices, *predictions)]
    known = {scan: "test" for part in test for scan in part.unique() if scan}
    return known | dict.fromkeys(slices.loc[slices["split"] == "train", "scan_id"], "train")


def scans_of_training(slices: pd.DataFrame, predictions: Mapping[int, pd.DataFrame], wanted: set[str]) -> ScanTables:
    """Return training scans' truth by SLICES, and what the fold says of them that did not train on them."""
    own = slices[(slices["split"] == "train") & slices["scan_id"].isin(wanted)]
    truth = scan_maxima(own["scan_id"].to_numpy(), label_matrix(own))
    return truth, _models(out_of_fold_rows(predictions), wanted)


def scans_of_test(truth: Path, predictions: Mapping[int, pd.DataFrame], wanted: set[str]) -> ScanTables:
    """Return test scans' truth by truth.csv, and what the mean over folds says of them.

    Raises UserError where truth.csv lacks a slice of theirs.
    """
    rows = rows_of_test(list(predictions.values()))
    held = pd.Index(rows.scan_ids).isin(wanted)
    try:
        labels = label_matrix(look_up(read_labels(truth), rows.slice_ids[held], str(truth)))
    except ValueError as error:
        raise UserError(f"{error}; add them, or leave their scans out") from error
    return scan_maxima(rows.scan_ids[held], labels), _models(rows, wanted)


def _models(rows: Rows, wanted: set[str]) -> dict[str, pd.DataFrame]:
    held = pd.Index(rows.scan_ids).isin(wanted)
    return {name: scan_maxima(rows.scan_ids[held], values[held]) for name, values in rows.predictors.items()}


def _refuse(path: Path, readings: pd.DataFrame, scans: set[str], reason: str) -> None:
    """Raise UserError with the first line that speaks of one of these scans; nothing where there are none."""
    if scans:
        line = readings.loc[readings["scan_id"].isin(scans), "line"].iloc[0]
        raise UserError(f"{path}, line {line}: {some(sorted(scans))}: {reason}")


def _refuse_unpredicted(path: Path, readings: pd.DataFrame, fold_of: Mapping[str, int], folds: tuple[int, ...]) -> None:
    """Raise UserError for scans without prediction; fold_of: by scan, the fold that would predict it."""
    elsewhere = {scan for scan, fold in fold_of.items() if fold not in folds}
    if elsewhere:
        others = sorted({fold_of[scan] for scan in elsewhere})
        wanted = " ".join(map(str, sorted({*folds, *others})))
        reason = (
            f"no prediction, for their fold was not trained ({_listed(others)}; this run has {_listed(folds)}); "
            f'add FOLDS="{wanted}" after `make predict FOLDS="{wanted}"`, or leave them out'
        )
        _refuse(path, readings, elsewhere, reason)
    _refuse(path, readings, set(fold_of), "no prediction, for no slice of theirs could be decoded; leave them out")


def _opening(job: Job, readings: pd.DataFrame, truth: np.ndarray, training: int) -> str:
    """Return the lines above the tables: which scans these are, and how our figures were made."""
    readers, scans = readings["reader"].unique(), readings["scan_id"].nunique()
    positive = ", ".join(f"{label} {int(n)}" for label, n in zip(LABELS, truth.sum(axis=0), strict=True))
    parts = {f"{training} out of fold": training, f"{len(truth) - training} of the test part": len(truth) - training}
    level = f"{100 * job.run.settings.predict.level:g} %"
    return (
        f"{len(truth)} of the {scans} scans in {job.readers} were read by all readers ({', '.join(readers)}); "
        f"positive: {positive}.\n"
        f"Models: {job.run.name} on the data set {job.paths.dataset}, {_listed(job.folds)}: "
        f"{' and '.join(text for text, count in parts.items() if count)}; "
        f"a scan scores as its highest slice and is called positive from {THRESHOLD:g} on.\n"
        f"Intervals of {level}: Wilson's for shares, DeLong's for ROC AUC (without width where the classes are fully "
        f"apart); scans count as independent.\n"
        f"{_warning(job.paths.dataset)}\n"
    )


def _listed(folds: Iterable[int]) -> str:
    numbers = list(map(str, folds))
    return f"fold{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def _warning(dataset: str) -> str:
    if dataset == "phantom":
        return "A phantom is not a head: our figures show that the comparison runs, and nothing about the paper's."
    return "Not the same scans and readers as the paper's: the figures stand beside each other, no more."
