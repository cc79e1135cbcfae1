"""Stage `score`: the figures of a run, and of constant predictors on the same rows, for a fold, out of fold, and test."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import LABELS, Predict, section_settings, settings_digest
from pipeline.core.ensemble import mean_over_folds
from pipeline.core.evaluation import evaluate
from pipeline.core.rows import label_matrix
from pipeline.datasets.rsna import read_labels
from pipeline.plan import Job, Paths, record_of, require
from pipeline.schema import P_LABELS, ContractError
from pipeline.shell.provenance import Provenance, read_json, write_json
from pipeline.shell.tables import read_provenance, read_table

log = logging.getLogger(__name__)

STAGES = ("cnn", "sequence")
"""Stages that predict, in the order of the pipeline."""

PAIRS = (("cnn", "constant-prevalence"), ("sequence", "cnn"))
"""What is compared on the same resamples: first minus second."""


def main(job: Job) -> None:
    """Score one fold; without one, all folds out of fold, and their mean on the test part where truth.csv is there.

    Everything in a score file follows from its inputs: scoring twice changes no byte.
    """
    paths = job.paths
    folds = job.folds if job.fold is None else (job.fold,)
    predictions = {fold: read_table(require(paths.predictions(fold), "predict")) for fold in folds}
    slices = read_table(
        require(paths.slices, "index"), ["slice_id", "scan_id", "patient_id", "split", *LABELS]
    ).set_index("slice_id")
    fold_of = read_table(require(paths.folds, "split")).set_index("patient_id")["fold"]
    train = slices[slices["split"] == "train"]
    rates = prevalences(label_matrix(train), train["patient_id"].map(fold_of).to_numpy(np.int64), folds)

    rows = out_of_fold_rows(predictions, rates)
    truth = label_matrix(known_rows(slices, rows))
    patients = known_rows(slices, rows)["patient_id"].to_numpy()
    _write(job, folds, "oof" if job.fold is None else job.fold, rows, truth, patients)

    if job.fold is None and paths.truth.exists():
        labels = read_labels(paths.truth)
        rows = test_rows(list(predictions.values()), label_matrix(train).mean(axis=0, dtype=np.float64))
        if len(rows):
            truth = label_matrix(known_rows(labels, rows))
            _write(job, folds, "test", rows, truth, _test_patients(paths, slices, rows), [paths.truth])


def prevalences(truth: np.ndarray, fold_column: np.ndarray, folds: Sequence[int]) -> dict[int, np.ndarray]:
    """Return for each fold the share of positive slices of each label, (labels,), in all the other folds.

    truth: (slices, labels); fold_column: (slices,), each training slice's fold.
    """
    return {fold: truth[fold_column != fold].mean(axis=0, dtype=np.float64) for fold in folds}


def out_of_fold_rows(predictions: dict[int, pd.DataFrame], rates: dict[int, np.ndarray]) -> pd.DataFrame:
    """Return one row a training slice: slice_id, scan_id, and each predictor's probabilities.

    predictions: PREDICTIONS by fold; rates: by fold, (labels,), what the constant predictor says on that fold's rows.
    The probabilities' columns are (predictor, label).
    """
    tables = []
    for fold, table in predictions.items():
        own = table[table["split"] == "train"]
        if not (own["fold"] == fold).all():
            raise ContractError(f"predictions of fold {fold} hold train rows of another fold")
        stages = _by_stage(own)
        ids = stages["cnn"][["slice_id", "scan_id"]]
        probabilities = {name: stage[list(P_LABELS)].to_numpy(np.float64) for name, stage in stages.items()}
        tables.append(_wide(ids, probabilities, rates[fold]))
    rows = pd.concat(tables, ignore_index=True)
    if rows["slice_id"].duplicated().any():
        raise ContractError(f"slice {rows.loc[rows['slice_id'].duplicated(), 'slice_id'].iloc[0]} is out of two folds")
    return rows


def test_rows(predictions: list[pd.DataFrame], rates: np.ndarray) -> pd.DataFrame:
    """Return one row a test slice, as `out_of_fold_rows`, with the mean over folds of each stage's probabilities."""
    stages = [_by_stage(table[table["split"] == "test"]) for table in predictions]
    probabilities = {
        name: mean_over_folds(
            [fold[name]["slice_id"].to_numpy() for fold in stages],
            [fold[name][list(P_LABELS)].to_numpy() for fold in stages],
        )
        for name in stages[0]
    }
    return _wide(stages[0]["cnn"][["slice_id", "scan_id"]], probabilities, rates)


def _by_stage(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table's stages, each with the same slices in the same order; raises ContractError where they differ."""
    present = [stage for stage in STAGES if (table["stage"] == stage).any()] or ["cnn"]
    stages = {stage: table[table["stage"] == stage].reset_index(drop=True) for stage in present}
    first = stages["cnn"]["slice_id"]
    for name, stage in stages.items():
        if len(stage) != len(first) or not (stage["slice_id"] == first).all():
            aligned = stage.set_index("slice_id").reindex(first)
            if len(stage) != len(first) or aligned["stage"].isna().any():
                raise ContractError(f"stages cnn and {name} predict different slices")
            stages[name] = aligned.reset_index()
    return stages


def _wide(ids: pd.DataFrame, probabilities: dict[str, np.ndarray], rates: np.ndarray) -> pd.DataFrame:
    """Return ids beside the probabilities of the run's stages and of the two constant predictors."""
    constants = {"constant-0.5": np.full(len(LABELS), 0.5), "constant-prevalence": rates}
    spread = {name: np.broadcast_to(values, (len(ids), len(LABELS))) for name, values in constants.items()}
    columns = [
        pd.DataFrame(values, columns=pd.MultiIndex.from_product([[name], LABELS]))
        for name, values in {**probabilities, **spread}.items()
    ]
    return pd.concat([ids.reset_index(drop=True), *columns], axis=1)
