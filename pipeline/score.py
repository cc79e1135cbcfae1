"""Stage `score`: figures of a run, and of constant predictors on the same rows: per fold, out of fold, and test."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import LABELS, UserError, section_settings, settings_digest, trains_whole
from pipeline.core.evaluation import evaluate, evaluate_scans, plain_interval, scan_figures
from pipeline.core.metrics import scan_scores
from pipeline.core.predictions import Rows, look_up, out_of_fold_rows, prevalences, rows_of_test
from pipeline.core.rows import label_matrix, patient_folds
from pipeline.core.scan_predictions import ScanScores, out_of_fold_scans, scans_of_test
from pipeline.datasets.rsna import read_labels
from pipeline.job import Job
from pipeline.paths import Paths, record_of, require
from pipeline.shell.progress import progress
from pipeline.shell.provenance import Provenance, read_json, score_digest, write_json
from pipeline.shell.tables import read_provenance, read_table

log = logging.getLogger(__name__)

PAIRS = (("cnn", "constant-prevalence"), ("sequence", "cnn"))
"""What is compared on the same resamples: first minus second."""


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
    fold_of = patient_folds(read_table(paths.folds), job.run.settings.split.kind)
    predictions = {fold: read_table(paths.predictions(fold)) for fold in folds}
    of_scans = {fold: table for fold in folds if (table := _scan_table(paths, fold)) is not None}

    train = slices[slices["split"] == "train"]
    rates = prevalences(label_matrix(train), train["patient_id"].map(fold_of).to_numpy(np.int64), folds)
    if job.fold is None:
        # Make knows the file of `oof` alone: it comes last, so that a run that was stopped is done again.
        _score_test(job, inputs, slices, predictions, of_scans)
    rows = out_of_fold_rows(predictions, rates)
    known = look_up(slices, rows.slice_ids, "SLICES")
    scans = out_of_fold_scans(of_scans) if of_scans else {}
    _write(job, part, folds, inputs, rows, label_matrix(known), known["patient_id"].to_numpy(), scans)


def _scan_table(paths: Paths, fold: int) -> pd.DataFrame | None:
    """Return SCAN_PREDICTIONS of a fold, None where the run speaks of slices alone."""
    if not _recorded(paths.predictions(fold), "scan_stages"):
        return None
    return read_table(require(paths.scan_predictions(fold), "predict"))


def _score_test(
    job: Job,
    inputs: list[Path],
    slices: pd.DataFrame,
    predictions: Mapping[int, pd.DataFrame],
    of_scans: Mapping[int, pd.DataFrame],
) -> None:
    """Score the mean over folds on the test part where its truth is known; else see that no such score is left."""
    paths = job.paths
    if not paths.truth.exists():
        paths.score("test").unlink(missing_ok=True)
        return
    rates = label_matrix(slices[slices["split"] == "train"]).mean(axis=0, dtype=np.float64)
    rows = rows_of_test(list(predictions.values()), rates)
    patients = patients_of_test(rows.slice_ids, slices["patient_id"], _rejected_patients(paths))
    try:
        truth = label_matrix(look_up(read_labels(paths.truth), rows.slice_ids, str(paths.truth)))
    except ValueError as error:
        raise UserError(f"{error}; add them, or remove the file") from error
    scans = scans_of_test(list(of_scans.values())) if of_scans else {}
    _write(job, "test", list(predictions), [*inputs, paths.truth], rows, truth, patients, scans)


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
    scans: ScanScores,
) -> None:
    """Compute all figures of one part and write its score file."""
    settings = job.run.settings
    pairs = [pair for pair in PAIRS if set(pair) <= set(rows.predictors)]
    with progress(settings.predict.resamples, "resamples") as bar:
        figures, paired = evaluate(
            truth, rows.predictors, pairs, patients, rows.scan_ids, settings.predict, advance=bar.update
        )
    identity = {"dataset": job.paths.dataset, "recipe": job.run.name}
    origin = {"settings_digest": settings_digest(settings), **_origin(job.paths, folds)}
    in_scan = rows.scan_ids != ""
    of_slices = {name: values[:, -1] for name, values in {"": truth, **rows.predictors}.items()}
    maxima = {name: scan_scores(rows.scan_ids[in_scan], values[in_scan]) for name, values in of_slices.items()}
    areas = evaluate_scans(maxima.pop(""), {**maxima, **scans}, settings.predict.level)
    figures |= {name: scan_figures(*areas[name]) for name in scans}
    table = [
        {**identity, "stage": name, "fold": str(part), **own, **_cost(job.paths, name, folds), **origin}
        for name, own in figures.items()
    ]
    section = {"predict": section_settings(settings, "predict"), "folds": list(folds)}
    facts = Provenance("score", section, inputs, job.threads).facts
    score = {"dataset": job.paths.dataset, "run": job.run.name, "fold": str(part), "rows": table, "paired": paired}
    score["scan_roc_auc_any"] = {name: plain_interval(area) for name, (_, area) in areas.items()}
    score["provenance"] = facts
    write_json(job.paths.score(part), {**score, "digest": score_digest(score)})
    for row in table:
        log.info("%s %s: %s", row["stage"], row["fold"], _headline(row))


def _headline(row: Mapping[str, Any]) -> str:
    """Return the figure that a predictor is known by: of all labels where it speaks of them, else of scans."""
    if row["weighted_log_loss"] is not None:
        return f"weighted log loss {row['weighted_log_loss']:.5f}"
    area = row["scan_roc_auc_any"]
    return "no figure" if area is None else f"scan ROC AUC {area:.3f}"


def _origin(paths: Paths, folds: Sequence[int]) -> dict[str, str | None]:
    """Return the commit or commits that made the predictions, and the time when the last of them was finished."""
    commits = sorted({read_provenance(paths.predictions(fold))["commit"] for fold in folds})
    times = [_recorded(paths.predictions(fold), "finished") for fold in folds]
    return {"commit": "/".join(commits), "time": max(times) if all(times) else None}


def _cost(paths: Paths, stage: str, folds: Sequence[int]) -> dict[str, float | None]:
    """Return what a predictor costs: the parameters of one fold's model, and the seconds of all the folds together.

    The CNN's seconds are training and embedding; the sequence model needs those and its own (reduction and training);
    a network trained in one piece takes training and prediction. A rule from slices to scans, `<stage>/<rule>`, costs
    what its stage does, a predictor of constants nothing; what no record says is None.
    """
    stage = stage.partition("/")[0]
    if stage.startswith("constant-"):
        return {"parameters": 0, "seconds": 0.0}
    models, artefacts = [paths.cnn], [paths.cnn, paths.embeddings]
    if trains_whole(paths.run.settings):
        artefacts = [paths.cnn, paths.predictions]
    elif stage != "cnn":
        models, artefacts = [*models, paths.sequence], [*artefacts, paths.reduced, paths.sequence]
    if stage == "endtoend":  # the networks of the steps before it, trained further
        models, artefacts = [paths.endtoend], [*artefacts, paths.endtoend]
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
