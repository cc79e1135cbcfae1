"""Stage `predict`: a fold's out-of-fold rows and test rows, from the CNN alone and from the sequence model."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.config import (
    LABELS,
    P_LABELS,
    Predict,
    Settings,
    draws,
    last_stage,
    section_settings,
    speaks_of_all_labels,
    trains_whole,
)
from pipeline.core.drawings import highest_scores
from pipeline.core.ensemble import fill_from_neighbours
from pipeline.core.rows import cached_slices, label_matrix, scan_bounds, training_rows
from pipeline.core.scan_predictions import ScanScores, scan_table
from pipeline.core.scan_rules import consecutive_scores
from pipeline.job import Job
from pipeline.learn.devices import choose_gpu
from pipeline.learn.inference import predict_scans
from pipeline.learn.scan_data import Scans, scan_loader
from pipeline.learn.slice_data import loader_workers
from pipeline.nets.build import build_network, build_sequence
from pipeline.paths import Paths, record_of, require
from pipeline.schema import DETECTIONS, MEASUREMENTS, OVERLAPS, PREDICTIONS, SCAN_PREDICTIONS, Contract
from pipeline.shell.network_files import load_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, read_vectors, write_table

log = logging.getLogger(__name__)

UNWANTED = ("not in the sample submission", "repeated slice id")
"""Rejected test files that nobody asks a prediction for."""

COLUMNS = ("slice_id", "scan_id", "patient_id", "split", "position", "z_mm", *LABELS)
"""What is read of SLICES."""
GEOMETRY = ("spacing_mm", "rows", "columns", "row_mm", "column_mm", "mask")
"""What is read besides for networks that see volumes."""

NO_ROWS = np.empty(0, dtype=np.intp)


class Predicted(NamedTuple):
    """What a run says."""

    stages: dict[str, pd.DataFrame]
    """By stage, rows of slices with their probabilities."""
    known: set[str]
    """All slices that could be read."""
    scans: ScanScores
    """What models over scans say, which speak of no slices."""
    drawn: dict[Path, tuple[Contract, pd.DataFrame]]
    """Tables of what is drawn, by file."""


def main(job: Job) -> None:
    """Predict the fold's validation slices and all test slices; rejected test slices get what their neighbours have."""
    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    inputs = [require(path, stage) for path, stage in _inputs(job, fold).items()]
    rejections = [require(paths.rejected, "index"), require(paths.images_rejected, "window")]
    section = section_settings(settings, "predict")
    provenance = Provenance("predict", {"predict": section, "fold": fold}, [*inputs, *rejections], job.threads)

    slices = read_table(paths.slices, [*COLUMNS, *(() if speaks_of_all_labels(settings) else GEOMETRY)])
    predicted = (_predicted_whole if trains_whole(settings) else _predicted)(job, fold, slices)
    stages = predicted.stages
    rejected = rejected_test_slices(*(read_table(path) for path in rejections), known=predicted.known)
    prevalence = label_matrix(slices[slices["split"] == "train"]).mean(axis=0)
    tables, counts = [], {}
    for stage, rows in stages.items():
        filled, counts = filled_rows(rejected, rows[rows["split"] == "test"], prevalence)
        tables.append(pd.concat([rows, filled], ignore_index=True).assign(stage=stage, fold=fold))
    if len(rejected):
        log.warning(
            "fold %d: %d rejected test slices: %d from their neighbours, %d from the training prevalence",
            fold, len(rejected), counts["neighbours"], counts["prevalence"],
        )  # fmt: skip
    artefact, of_scans = paths.predictions(fold), paths.scan_predictions(fold)
    predictions = pd.concat(tables, ignore_index=True)
    scans = {**predicted.scans, **scan_scores_of(stages, settings.predict)}
    others = [*([of_scans] if scans else []), *predicted.drawn]
    with provenance.recorded(record_of(artefact), *others, artefact) as record:
        record.update(
            rows=len(predictions),
            stages=list(stages),
            scan_stages=list(scans),
            rejected_test_slices=len(rejected),
            **counts,
        )
        if scans:
            split_of = dict(zip(slices["scan_id"], slices["split"], strict=True))
            write_table(of_scans, SCAN_PREDICTIONS, scan_table(scans, split_of, fold), provenance.facts)
        for path, (contract, table) in predicted.drawn.items():
            write_table(path, contract, table, provenance.facts)
        write_table(artefact, PREDICTIONS, predictions, provenance.facts)


def _inputs(job: Job, fold: int) -> dict[Path, str]:
    """Return the files that predictions are made of, and the stages that make them."""
    paths, settings = job.paths, job.run.settings
    tables = {paths.slices: "index"}
    images = {paths.images: "window", paths.folds: "split"}
    if trains_whole(settings):
        return {**tables, **images, paths.cnn(fold): "train"}
    inputs = {**tables, paths.embeddings(fold): "embed"}
    if last_stage(settings) != "cnn":
        inputs |= {paths.reduced(fold): "reduce", paths.sequence(fold): "sequence"}
    if last_stage(settings) == "endtoend":
        inputs |= {**images, paths.endtoend(fold): "endtoend"}
    return inputs


def _predicted(job: Job, fold: int, slices: pd.DataFrame) -> Predicted:
    """Return what embeddings and the models over scans say."""
    paths, settings = job.paths, job.run.settings
    cnn = read_table(paths.embeddings(fold), ["slice_id", "fold", *P_LABELS])
    cnn = cnn.merge(slices, on="slice_id", how="left", validate="one_to_one")
    wanted = _wanted(cnn, fold)
    stages = {"cnn": cnn[wanted]}
    scans: ScanScores = {}
    if settings.sequence.kind == "bilstm":
        stages["sequence"] = _sequence_rows(job, fold, cnn, wanted)
    elif settings.sequence.kind == "bilstm_sum":
        scans = _scan_scores(job, fold, cnn, wanted)
    return Predicted(stages, set(cnn["slice_id"]), scans, {})


def _scan_scores(job: Job, fold: int, cnn: pd.DataFrame, wanted: np.ndarray) -> ScanScores:
    """Return what models that are trained on scan labels say."""
    # Each brings a library that other recipes can do without.
    from pipeline.learn.scan_label_inference import scores_of_scans

    paths, settings = job.paths, job.run.settings
    rows = cnn.drop(columns="png", errors="ignore")
    endtoend = None
    if last_stage(settings) == "endtoend":
        endtoend = paths.endtoend(fold)
        images = read_table(paths.images, ["slice_id", "path"]).rename(columns={"path": "png"})
        rows = rows.merge(images, on="slice_id", how="left", validate="one_to_one")
    _, vectors = read_vectors(paths.reduced(fold))
    train, _ = training_rows(cnn["fold"], fold, settings.split.kind)
    workers = loader_workers(job.n_jobs)
    return scores_of_scans(rows, vectors, train, wanted, settings, workers, paths.sequence(fold), endtoend)


def _predicted_whole(job: Job, fold: int, slices: pd.DataFrame) -> Predicted:
    """Return what a network says that was trained in one piece; it speaks of `any` alone."""
    from pipeline.learn.dense_training import predict_slices
    from pipeline.learn.detection import detect

    paths, settings = job.paths, job.run.settings
    rows = cached_slices(slices, read_table(paths.images), read_table(paths.folds), settings.split.kind)
    known = set(rows["slice_id"])
    rows = rows[_wanted(rows, fold)].reset_index(drop=True)
    network = build_network(settings, pretrained=False)
    load_network(paths.cnn(fold), network)
    workers, drawn = loader_workers(job.n_jobs), {}
    if draws(settings):
        detections = detect(network, rows, settings, workers)
        said = highest_scores(detections, rows["slice_id"], of="slice_id")
        drawn = _drawn_tables(paths, fold, rows, detections, settings)
    else:
        said = predict_slices(network, rows, settings, workers)
    silent = dict.fromkeys(P_LABELS[:-1], np.nan)
    stages = {last_stage(settings): rows.assign(**silent, **{P_LABELS[-1]: said})}
    return Predicted(stages, known, {}, drawn)


def _drawn_tables(
    paths: Paths, fold: int, rows: pd.DataFrame, detections: pd.DataFrame, settings: Settings
) -> dict[Path, tuple[Contract, pd.DataFrame]]:
    """Return the tables of what is drawn, by file: detections, measurements, and overlaps where the truth is known."""
    from pipeline.learn.drawn_scans import measure, slice_overlaps

    split_of = dict(zip(rows["scan_id"], rows["split"], strict=True))
    tables = {
        paths.detections(fold): (DETECTIONS, detections),
        paths.measurements(fold): (MEASUREMENTS, measure(rows, detections, settings)),
        paths.overlaps(fold): (OVERLAPS, slice_overlaps(rows, detections, settings)),
    }
    return {
        path: (contract, table.assign(fold=fold, split=table["scan_id"].map(split_of).astype(object)))
        for path, (contract, table) in tables.items()
    }


def _wanted(rows: pd.DataFrame, fold: int) -> np.ndarray:
    return ((rows["split"] == "test") | (rows["fold"] == fold)).to_numpy(dtype=bool)


def scan_scores_of(stages: Mapping[str, pd.DataFrame], predict: Predict) -> ScanScores:
    """Return what the recipe's rules make of slices: nothing for a recipe without rules of its own.

    stages: by stage, rows with scan_id, position and p_any. A rule `consecutive` with k is `<stage>/consecutive-<k>`.
    """
    return {
        f"{stage}/consecutive-{run:g}": consecutive_scores(
            rows["scan_id"].to_numpy(object),
            rows["position"].to_numpy(),
            rows[P_LABELS[-1]].to_numpy(np.float64),
            int(run),
        )
        for stage, rows in stages.items()
        for run in predict.consecutive
    }


def _sequence_rows(job: Job, fold: int, cnn: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """Return the wanted rows with the sequence model's probabilities in place of the CNN's."""
    _, features = read_vectors(job.paths.reduced(fold))
    rows = cnn[wanted].reset_index(drop=True)
    network = build_sequence(job.run.settings, features.shape[1])
    load_network(job.paths.sequence(fold), network)
    probabilities = rows[list(P_LABELS)].to_numpy(dtype=np.float32)
    unused_labels = np.zeros((len(rows), len(LABELS)), dtype=np.float32)
    scans = Scans(features[wanted], probabilities, unused_labels, scan_bounds(rows["scan_id"].to_numpy()))
    predicted = predict_scans(network, scan_loader(scans, job.run.settings.sequence.batch_scans, None))
    return rows.assign(**{name: predicted[:, i] for i, name in enumerate(P_LABELS)})


def rejected_test_slices(index: pd.DataFrame, window: pd.DataFrame, known: set[str]) -> pd.DataFrame:
    """Return one row a rejected test slice that a prediction is wanted for."""
    rejected = pd.concat([index, window], ignore_index=True)
    wanted = (rejected["split"] == "test") & rejected["slice_id"].notna() & ~rejected["reason"].isin(UNWANTED)
    rejected = rejected[wanted & ~rejected["slice_id"].isin(known)]
    return rejected.drop_duplicates("slice_id").reset_index(drop=True)


def filled_rows(
    rejected: pd.DataFrame, test: pd.DataFrame, prevalence: np.ndarray
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return rows for rejected slices, and how many came from neighbours and from the training prevalence.

    A slice whose scan and place are known takes what lies between its readable neighbours; the neighbours may belong
    to either acquisition of a series that held two (a UID may end in .2 by itself: the patient must be the same).
    """
    values = np.tile(prevalence.astype(np.float64), (len(rejected), 1))
    is_filled = np.zeros(len(rejected), dtype=bool)
    of_scan = test.groupby("scan_id").indices
    series = test["scan_id"].str.replace(r"\.[2-9]$", "", regex=True)
    of_series = test.groupby([series, "patient_id"]).indices
    z_mm, probabilities = test["z_mm"].to_numpy(), test[list(P_LABELS)].to_numpy(dtype=np.float64)
    scan_ids = rejected["scan_id"].fillna("")
    for k, (scan, patient, place) in enumerate(zip(scan_ids, rejected["patient_id"], rejected["z_mm"], strict=True)):
        neighbours = np.union1d(of_scan.get(scan, NO_ROWS), of_series.get((scan, patient), NO_ROWS))
        if len(neighbours) and not pd.isna(place):
            values[k] = fill_from_neighbours(z_mm[neighbours], probabilities[neighbours], np.array([place]))[0]
            is_filled[k] = True
    filled = rejected.assign(split="test", scan_id=scan_ids, **dict(zip(P_LABELS, values.T, strict=True)))
    return filled, {"neighbours": int(is_filled.sum()), "prevalence": int((~is_filled).sum())}
