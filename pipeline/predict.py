"""Stage `predict`: a fold's out-of-fold rows and test rows, from the CNN alone and from the sequence model."""

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import LABELS, P_LABELS, Predict, last_stage, section_settings, trains_whole
from pipeline.core.ensemble import fill_from_neighbours
from pipeline.core.rows import cached_slices, label_matrix, scan_bounds
from pipeline.core.scan_predictions import ScanScores, scan_table
from pipeline.core.scan_rules import consecutive_scores
from pipeline.learn.devices import choose_gpu
from pipeline.learn.inference import predict_scans
from pipeline.learn.scan_data import Scans, scan_loader
from pipeline.learn.slice_data import loader_workers
from pipeline.nets.build import build_network, build_sequence
from pipeline.plan import Job, record_of, require
from pipeline.schema import PREDICTIONS, SCAN_PREDICTIONS
from pipeline.shell.network_files import load_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, read_vectors, write_table

log = logging.getLogger(__name__)

UNWANTED = ("not in the sample submission", "repeated slice id")
"""Rejected test files that nobody asks a prediction for."""

INFERENCES = {"densenet": "dense_training"}
"""By network that is trained in one piece: the module of `learn` whose `predict_slices` runs it."""

NO_ROWS = np.empty(0, dtype=np.intp)


def main(job: Job) -> None:
    """Predict the fold's validation slices and all test slices; rejected test slices get what their neighbours have."""
    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    inputs = [require(path, stage) for path, stage in _inputs(job, fold).items()]
    rejections = [require(paths.rejected, "index"), require(paths.images_rejected, "window")]
    section = section_settings(settings, "predict")
    provenance = Provenance("predict", {"predict": section, "fold": fold}, [*inputs, *rejections], job.threads)

    slices = read_table(paths.slices, ["slice_id", "scan_id", "patient_id", "split", "position", "z_mm", *LABELS])
    stages, known = (_whole_stages if trains_whole(settings) else _stages)(job, fold, slices)
    rejected = rejected_test_slices(*(read_table(path) for path in rejections), known=known)
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
    scans = scan_scores_of(stages, settings.predict)
    with provenance.recorded(record_of(artefact), *([of_scans] if scans else []), artefact) as record:
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
        write_table(artefact, PREDICTIONS, predictions, provenance.facts)


def _inputs(job: Job, fold: int) -> dict[Path, str]:
    """Return the files that predictions are made of, and the stages that make them."""
    paths, settings = job.paths, job.run.settings
    if trains_whole(settings):
        return {paths.slices: "index", paths.images: "window", paths.folds: "split", paths.cnn(fold): "train"}
    inputs = {paths.slices: "index", paths.embeddings(fold): "embed"}
    if last_stage(settings) == "sequence":
        inputs |= {paths.reduced(fold): "reduce", paths.sequence(fold): "sequence"}
    return inputs


def _stages(job: Job, fold: int, slices: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """Return by stage the rows that are wanted of embeddings and the sequence model, and all slices that are known."""
    cnn = read_table(job.paths.embeddings(fold), ["slice_id", "fold", *P_LABELS])
    cnn = cnn.merge(slices, on="slice_id", how="left", validate="one_to_one")
    wanted = _wanted(cnn, fold)
    stages = {"cnn": cnn[wanted]}
    if last_stage(job.run.settings) == "sequence":
        stages["sequence"] = _sequence_rows(job, fold, cnn, wanted)
    return stages, set(cnn["slice_id"])


def _whole_stages(job: Job, fold: int, slices: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """Return the same of a network that was trained in one piece; it speaks of `any` alone."""
    paths, settings = job.paths, job.run.settings
    rows = cached_slices(slices, read_table(paths.images), read_table(paths.folds), settings.split.kind)
    known = set(rows["slice_id"])
    rows = rows[_wanted(rows, fold)].reset_index(drop=True)
    network = build_network(settings, pretrained=False)
    load_network(paths.cnn(fold), network)
    inference = importlib.import_module(f"pipeline.learn.{INFERENCES[settings.train.network]}")
    said = inference.predict_slices(network, rows, settings, loader_workers(job.n_jobs))
    silent = dict.fromkeys(P_LABELS[:-1], np.nan)
    return {last_stage(settings): rows.assign(**silent, **{P_LABELS[-1]: said})}, known


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
