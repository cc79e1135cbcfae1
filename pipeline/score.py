"""Stage `score`: figures of a run, and of constant predictors on the same rows: per fold, out of fold, and test."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import LABELS, section_settings, settings_digest
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


@dataclass(frozen=True)
class Rows:
    """Slices that are scored, and what each predictor says of them.

    slice_ids, scan_ids: (slices,), a scan that is not known is the empty string; predictors: name to probabilities
    (slices, labels).
    """

    slice_ids: np.ndarray
    scan_ids: np.ndarray
    predictors: dict[str, np.ndarray]


def main(job: Job) -> None:
    """Score one fold; without one, all folds out of fold, and their mean on the test part where truth.csv is there.

    All in a score file follows from its inputs and the code: scoring twice changes no byte.
    """
    paths = job.paths
    folds = job.folds if job.fold is None else (job.fold,)
    part = "oof" if job.fold is None else job.fold
    inputs = [require(paths.slices, "index"), require(paths.folds, "split")]
    inputs += [require(paths.predictions(fold), "predict") for fold in folds]
    slices = read_table(paths.slices, ["slice_id", "patient_id", "split", *LABELS]).set_index("slice_id")
    fold_of = read_table(paths.folds).set_index("patient_id")["fold"]
    predictions = {fold: read_table(paths.predictions(fold)) for fold in folds}

    train = slices[slices["split"] == "train"]
    rates = prevalences(label_matrix(train), train["patient_id"].map(fold_of).to_numpy(np.int64), folds)
    if job.fold is None:
        # Make knows the file of `oof` alone: it comes last, so that a run that was stopped is done again.
        _score_test(job, inputs, slices, predictions)
    rows = out_of_fold_rows(predictions, rates)
    known = look_up(slices, rows.slice_ids, "SLICES")
    _write(job, part, folds, inputs, rows, label_matrix(known), known["patient_id"].to_numpy())


def _score_test(job: Job, inputs: list[Path], slices: pd.DataFrame, predictions: Mapping[int, pd.DataFrame]) -> None:
    """Score the mean over folds on the test part where its truth is known; else see that no such score is left."""
    paths = job.paths
    if not paths.truth.exists():
        paths.score("test").unlink(missing_ok=True)
        return
    rates = label_matrix(slices[slices["split"] == "train"]).mean(axis=0, dtype=np.float64)
    rows = rows_of_test(list(predictions.values()), rates)
    patients = patients_of_test(rows.slice_ids, slices["patient_id"], _rejected_patients(paths))
    truth = label_matrix(look_up(read_labels(paths.truth), rows.slice_ids, str(paths.truth)))
    _write(job, "test", list(predictions), [*inputs, paths.truth], rows, truth, patients)


def prevalences(truth: np.ndarray, fold_column: np.ndarray, folds: Sequence[int]) -> dict[int, np.ndarray]:
    """Return for each fold the share of positive slices of each label, (labels,), in all the other folds.

    truth: (slices, labels); fold_column: (slices,), each training slice's fold.
    """
    return {fold: truth[fold_column != fold].mean(axis=0, dtype=np.float64) for fold in folds}


def out_of_fold_rows(predictions: Mapping[int, pd.DataFrame], rates: Mapping[int, np.ndarray]) -> Rows:
    """Return the training slices that the folds predict, each by the fold that did not train on it.

    predictions: PREDICTIONS by fold; rates: by fold, (labels,), what the constant predictor says of that fold's slices.
    Raises ContractError where a table holds training slices of another fold, or two hold the same one.
    """
    parts = []
    for fold, table in predictions.items():
        own = table[table["split"] == "train"]
        if len(own) == 0 or not (own["fold"] == fold).all():
            raise ContractError(f"predictions of fold {fold}: no training slices, or some of another fold")
        parts.append(_with_constants(*_by_stage(own), rates[fold]))
    slice_ids = np.concatenate([part.slice_ids for part in parts])
    repeated = pd.Index(slice_ids).duplicated()
    if repeated.any():
        raise ContractError(f"{repeated.sum()} slices are out of fold twice, such as {slice_ids[repeated][0]}")
    names = list(parts[0].predictors)
    predictors = {name: np.concatenate([part.predictors[name] for part in parts]) for name in names}
    return Rows(slice_ids, np.concatenate([part.scan_ids for part in parts]), predictors)


def rows_of_test(predictions: Sequence[pd.DataFrame], rates: np.ndarray) -> Rows:
    """Return the test slices with the mean over folds of each stage's probabilities, as they are handed in unclipped.

    predictions: PREDICTIONS, one a fold; rates: (labels,), what the constant predictor says.
    """
    folds = [_by_stage(table[table["split"] == "test"]) for table in predictions]
    slice_ids, scan_ids, first = folds[0]
    own_ids = [ids for ids, _, _ in folds]
    means = {name: mean_over_folds(own_ids, [stages[name] for _, _, stages in folds]) for name in first}
    return _with_constants(slice_ids, scan_ids, means, rates)


def _by_stage(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return slice ids, scan ids, and by stage the probabilities (slices, labels) of these slices in this order."""
    stages = {name: table[table["stage"] == name] for name in STAGES if (table["stage"] == name).any()}
    if not stages or sum(map(len, stages.values())) != len(table):
        raise ContractError(f"predictions of stages {sorted(set(table['stage']))}, expected {' and '.join(STAGES)}")
    first = next(iter(stages.values()))
    probabilities = {}
    for name, stage in stages.items():
        order = pd.Index(stage["slice_id"]).get_indexer(first["slice_id"])
        if len(stage) != len(first) or (order < 0).any():
            raise ContractError(f"stage {name} predicts other slices than stage {next(iter(stages))}")
        probabilities[name] = stage[list(P_LABELS)].to_numpy(np.float64)[order]
    return first["slice_id"].to_numpy(object), first["scan_id"].to_numpy(object), probabilities


def _with_constants(
    slice_ids: np.ndarray, scan_ids: np.ndarray, stages: dict[str, np.ndarray], rates: np.ndarray
) -> Rows:
    shape = (len(slice_ids), len(LABELS))
    constants = {"constant-0.5": np.full(shape, 0.5), "constant-prevalence": np.broadcast_to(rates, shape)}
    return Rows(slice_ids, scan_ids, {**stages, **constants})


def look_up(table: pd.DataFrame, slice_ids: np.ndarray, name: str) -> pd.DataFrame:
    """Return the rows of a table, indexed by slice_id, for these slices; raises ContractError naming absent ones."""
    positions = table.index.get_indexer(slice_ids)
    absent = slice_ids[positions < 0]
    if len(absent):
        raise ContractError(f"{name}: {len(absent)} predicted slices are not in it, such as {', '.join(absent[:3])}")
    return table.iloc[positions]


def patients_of_test(slice_ids: np.ndarray, readable: pd.Series, rejected: pd.Series) -> np.ndarray:
    """Return the patient of each test slice, (slices,); a slice whose patient is not known is a patient of its own.

    readable, rejected: patient_id by slice_id, of SLICES and of REJECTED.
    """
    found = readable.reindex(slice_ids).to_numpy(object)
    found = np.where(pd.isna(found), rejected.reindex(slice_ids).to_numpy(object), found)
    return np.where(pd.isna(found), "slice " + slice_ids, found)


def _rejected_patients(paths: Paths) -> pd.Series:
    known = [path for path in (paths.rejected, paths.images_rejected) if path.exists()]
    tables = [read_table(path, ["slice_id", "patient_id"]) for path in known]
    return pd.concat(tables).dropna().drop_duplicates("slice_id").set_index("slice_id")["patient_id"]


def _write(
    job: Job,
    part: int | str,
    folds: Sequence[int],
    inputs: list[Path],
    rows: Rows,
    truth: np.ndarray,
    patients: np.ndarray,
) -> None:
    """Compute all figures of one part and write its score file."""
    settings = job.run.settings
    pairs = [pair for pair in PAIRS if set(pair) <= set(rows.predictors)]
    figures, paired = evaluate(truth, rows.predictors, pairs, patients, rows.scan_ids, settings.predict)
    identity = {"dataset": job.paths.dataset, "recipe": job.run.name}
    origin = {"settings_digest": settings_digest(settings), **_origin(job.paths, folds)}
    table = [
        {**identity, "stage": name, "fold": str(part), **figures[name], **_cost(job.paths, name, folds), **origin}
        for name in rows.predictors
    ]
    section = {"predict": section_settings(settings, "predict"), "folds": list(folds)}
    facts = Provenance("score", section, inputs, job.threads).facts
    score = {"dataset": job.paths.dataset, "run": job.run.name, "fold": str(part), "rows": table, "paired": paired}
    write_json(job.paths.score(part), {**score, "provenance": facts})
    for row in table:
        log.info("%s %s: weighted log loss %.5f", row["stage"], row["fold"], row["weighted_log_loss"])


def _origin(paths: Paths, folds: Sequence[int]) -> dict[str, str | None]:
    """Return the commit or commits that made the predictions, and the time when the last of them was finished."""
    commits = sorted({read_provenance(paths.predictions(fold))["commit"] for fold in folds})
    times = [_recorded(paths.predictions(fold), "finished") for fold in folds]
    return {"commit": "/".join(commits), "time": max(times) if all(times) else None}


def _cost(paths: Paths, stage: str, folds: Sequence[int]) -> dict[str, float | None]:
    """Return what a predictor costs: the parameters of one fold's model, and the seconds of all the folds together.

    The CNN's seconds are training and embedding; the sequence model needs those and its own (reduction and training).
    A predictor of constants costs nothing; what no record says is None.
    """
    if stage not in STAGES:
        return {"parameters": 0, "seconds": 0.0}
    models, artefacts = [paths.cnn], [paths.cnn, paths.embeddings]
    if stage == "sequence":
        models, artefacts = [*models, paths.sequence], [*artefacts, paths.reduced, paths.sequence]
    parameters = [_recorded(model(folds[0]), "parameters") for model in models]
    seconds = [_recorded(artefact(fold), "seconds") for artefact in artefacts for fold in folds]
    return {
        "parameters": None if None in parameters else sum(parameters),
        "seconds": None if None in seconds else round(sum(seconds), 3),
    }


def _recorded(artefact: Path, key: str) -> Any:
    """Return what an artefact's record says, or None where there is no record or it does not say it."""
    record = record_of(artefact)
    return read_json(record).get(key) if record.exists() else None
