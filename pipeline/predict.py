"""Stage `predict`: a fold's out-of-fold rows and test rows, from the CNN alone and from the sequence model."""

import logging

import numpy as np
import pandas as pd

from pipeline.config import LABELS, P_LABELS, last_stage, section_settings
from pipeline.core.ensemble import fill_from_neighbours
from pipeline.core.rows import label_matrix, scan_bounds
from pipeline.learn.devices import choose_gpu
from pipeline.learn.inference import predict_scans
from pipeline.learn.scan_data import Scans, scan_loader
from pipeline.nets.build import build_sequence
from pipeline.plan import Job, record_of, require
from pipeline.schema import PREDICTIONS
from pipeline.shell.network_files import load_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, read_vectors, write_table

log = logging.getLogger(__name__)

UNWANTED = ("not in the sample submission", "repeated slice id")
"""Rejected test files that nobody asks a prediction for."""

NO_ROWS = np.empty(0, dtype=np.intp)


def main(job: Job) -> None:
    """Predict the fold's validation slices and all test slices; rejected test slices get what their neighbours have."""
    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    has_sequence = last_stage(settings) == "sequence"
    inputs = [require(paths.slices, "index"), require(paths.embeddings(fold), "embed")]
    if has_sequence:
        inputs += [require(paths.reduced(fold), "reduce"), require(paths.sequence(fold), "sequence")]
    rejections = [require(paths.rejected, "index"), require(paths.images_rejected, "window")]
    section = section_settings(settings, "predict")
    provenance = Provenance("predict", {"predict": section, "fold": fold}, [*inputs, *rejections], job.threads)

    slices = read_table(paths.slices, ["slice_id", "scan_id", "patient_id", "split", "z_mm", *LABELS])
    cnn = read_table(paths.embeddings(fold), ["slice_id", "fold", *P_LABELS])
    cnn = cnn.merge(slices, on="slice_id", how="left", validate="one_to_one")
    wanted = ((cnn["split"] == "test") | (cnn["fold"] == fold)).to_numpy(dtype=bool)
    stages = {"cnn": cnn[wanted]}
    if has_sequence:
        stages["sequence"] = _sequence_rows(job, fold, cnn, wanted)
    rejected = rejected_test_slices(*(read_table(path) for path in rejections), known=set(cnn["slice_id"]))
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
    artefact = paths.predictions(fold)
    predictions = pd.concat(tables, ignore_index=True)
    with provenance.recorded(record_of(artefact), artefact) as record:
        record.update(rows=len(predictions), stages=list(stages), rejected_test_slices=len(rejected), **counts)
        write_table(artefact, PREDICTIONS, predictions, provenance.facts)


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
