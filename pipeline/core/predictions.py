"""Predictions of several folds put together: who predicts which slices, beside constants on the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.config import LABELS, P_LABELS
from pipeline.core.ensemble import mean_over_folds

STAGES = ("cnn", "sequence")
"""Stages that predict, in the order of the pipeline."""


@dataclass(frozen=True)
class Rows:
    """Slices that are scored, and what each predictor says of them.

    slice_ids, scan_ids: (slices,), a scan that is not known is the empty string; predictors: name to probabilities
    (slices, labels).
    """

    slice_ids: np.ndarray
    scan_ids: np.ndarray
    predictors: dict[str, np.ndarray]


def prevalences(truth: np.ndarray, fold_column: np.ndarray, folds: Sequence[int]) -> dict[int, np.ndarray]:
    """Return for each fold the share of positive slices of each label, (labels,), in all the other folds.

    truth: (slices, labels); fold_column: (slices,), each training slice's fold.
    """
    return {fold: truth[fold_column != fold].mean(axis=0, dtype=np.float64) for fold in folds}


def out_of_fold_rows(predictions: Mapping[int, pd.DataFrame], rates: Mapping[int, np.ndarray] | None = None) -> Rows:
    """Return the training slices that the folds predict, each by the fold that did not train on it.

    predictions: PREDICTIONS by fold; rates: by fold, (labels,), what the constant predictor says of that fold's slices;
    without them there are no constant predictors.
    Raises ValueError where a table holds training slices of another fold, or two hold the same one.
    """
    parts = []
    for fold, table in predictions.items():
        own = table[table["split"] == "train"]
        if len(own) == 0 or not (own["fold"] == fold).all():
            raise ValueError(f"predictions of fold {fold}: no training slices, or some of another fold")
        part = Rows(*_by_stage(own))
        parts.append(part if rates is None else _with_constants(part, rates[fold]))
    slice_ids = np.concatenate([part.slice_ids for part in parts])
    repeated = pd.Index(slice_ids).duplicated()
    if repeated.any():
        raise ValueError(f"{repeated.sum()} slices are out of fold twice, such as {slice_ids[repeated][0]}")
    names = list(parts[0].predictors)
    predictors = {name: np.concatenate([part.predictors[name] for part in parts]) for name in names}
    return Rows(slice_ids, np.concatenate([part.scan_ids for part in parts]), predictors)


def rows_of_test(predictions: Sequence[pd.DataFrame], rates: np.ndarray | None = None) -> Rows:
    """Return the test slices with the mean over folds of each stage's probabilities, as they are handed in unclipped.

    predictions: PREDICTIONS, one a fold; rates: (labels,), what the constant predictor says; without them there are no
    constant predictors.
    """
    folds = [_by_stage(table[table["split"] == "test"]) for table in predictions]
    slice_ids, scan_ids, first = folds[0]
    own_ids = [ids for ids, _, _ in folds]
    means = {name: mean_over_folds(own_ids, [stages[name] for _, _, stages in folds]) for name in first}
    rows = Rows(slice_ids, scan_ids, means)
    return rows if rates is None else _with_constants(rows, rates)


def _by_stage(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return slice ids, scan ids, and by stage the probabilities (slices, labels) of these slices in this order."""
    stages = {name: rows for name in STAGES if len(rows := table[table["stage"] == name])}
    if not stages or sum(map(len, stages.values())) != len(table):
        raise ValueError(f"predictions of stages {sorted(set(table['stage']))}, expected {' and '.join(STAGES)}")
    first = next(iter(stages.values()))
    slice_ids = first["slice_id"].to_numpy(object)
    probabilities = {}
    for name, stage in stages.items():
        probabilities[name] = stage[list(P_LABELS)].to_numpy(np.float64)
        own_ids = stage["slice_id"].to_numpy(object)
        if np.array_equal(own_ids, slice_ids):
            continue
        order = pd.Index(own_ids).get_indexer(slice_ids)
        if len(stage) != len(first) or (order < 0).any():
            raise ValueError(f"stage {name} predicts other slices than stage {next(iter(stages))}")
        probabilities[name] = probabilities[name][order]
    return slice_ids, first["scan_id"].to_numpy(object), probabilities


def _with_constants(rows: Rows, rates: np.ndarray) -> Rows:
    shape = (len(rows.slice_ids), len(LABELS))
    constants = {"constant-0.5": np.full(shape, 0.5), "constant-prevalence": np.broadcast_to(rates, shape)}
    return Rows(rows.slice_ids, rows.scan_ids, {**rows.predictors, **constants})


def look_up(table: pd.DataFrame, slice_ids: np.ndarray, name: str) -> pd.DataFrame:
    """Return the rows of a table, indexed by slice_id, for these slices; raises ValueError naming absent ones."""
    positions = table.index.get_indexer(slice_ids)
    absent = slice_ids[positions < 0]
    if len(absent):
        raise ValueError(f"{name}: {len(absent)} predicted slices are not in it, such as {', '.join(absent[:3])}")
    return table.iloc[positions]
