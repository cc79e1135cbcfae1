"""All of RSNA 2019 but the pixels, through index, split, score, submit, leaderboard: `python -m benchmarks.full_size`.

Lays out a data set with the tables that the stages before these would leave, runs each stage as a process of its own,
checks what came out, and writes seconds and peak memory to results/<machine>.json. Five minutes, 0.6 GB of disk.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from benchmarks.full_size_data import (
    RSNA_TEST,
    RSNA_TRAIN,
    SEPARATION,
    Part,
    make_slices,
    predictions,
    prevalence_loss,
)
from benchmarks.header_rows import measure_index
from benchmarks.label_files import write_label_files
from benchmarks.measure import measure
from benchmarks.parts import FULL_SIZE, THREADS, write_and_print
from benchmarks.results import Cost
from pipeline.__main__ import make_job, parser
from pipeline.config import LABELS, METRIC_WEIGHTS
from pipeline.paths import LEADERBOARD, Paths, record_of
from pipeline.schema import FOLDS, PREDICTIONS, REJECTED, SLICES
from pipeline.shell.provenance import Provenance, commit
from pipeline.shell.tables import read_table, write_table

log = logging.getLogger(__name__)

DATASET, RECIPE, SEED = "rsna-like", "burduja2020", 0
ARGUMENTS = ("--dataset", DATASET, "--recipe", RECIPE, "--threads", str(THREADS))
READ_LABELS = (
    "import pathlib, sys; from pipeline.datasets.rsna import read_labels; read_labels(pathlib.Path(sys.argv[1]))"
)
RUNS = 3
"""Runs of each stage, of which the fastest counts: the others waited for something else on the machine."""

MOST_SECONDS, MOST_MB = 15.0, 4096.0
"""What a stage may take of two cores."""

CONSTANT_TOLERANCE = 0.02
"""How far, relatively, the prevalence predictor may lie from the labels' entropy: folds differ a little."""


def run(folder: Path, train: Part, test: Part, runs: int = RUNS) -> list[Cost]:
    """Lay out a data set of that size in a folder, run and measure each stage, check the results; return the rows.

    A row holds the fewest seconds and the highest peak of so many runs.

    Raises RuntimeError where a stage fails, and ValueError where its results are not what they should be.
    """
    paths = make_job(parser().parse_args(["score", *ARGUMENTS])).paths
    log.info("generating %d + %d slices", train.slices, test.slices)
    slices = make_slices(train, test, SEED)
    lay_out_index(folder, paths, slices)
    rows = [_measured("read_labels (label CSV)", folder, runs, "-c", READ_LABELS, str(paths.labels))]
    rows.append(_stage(folder, runs, "split"))
    fold_of = read_table(folder / paths.folds).set_index("patient_id")["fold"]
    check_folds(slices, fold_of)
    lay_out_predictions(folder, paths, slices, fold_of)
    for words in (("score", "--fold", "0"), ("score",), ("submit",), ("leaderboard",)):
        rows.append(_stage(folder, runs, *words))
    rows.insert(1, measure_index(folder, train, test, SEED, runs))
    check_submission(folder / paths.sample_submission, folder / paths.submission, 6 * test.slices)
    check_leaderboard(pd.read_csv(folder / LEADERBOARD), slices, fold_of)
    return rows


def _stage(folder: Path, runs: int, *words: str) -> Cost:
    return _measured(" ".join(words), folder, runs, "-m", "pipeline", *words, *ARGUMENTS)


def _measured(name: str, folder: Path, runs: int, *arguments: str) -> Cost:
    """Return the row of a Python process that runs in the folder with this code."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    log.info("%s ...", name)
    measured = [measure([sys.executable, *arguments], folder, environment) for _ in range(runs)]
    seconds, peak_mb = min(seconds for seconds, _ in measured), max(peak_mb for _, peak_mb in measured)
    return Cost(name, seconds, peak_mb, MOST_SECONDS, MOST_MB)


def lay_out_index(folder: Path, paths: Paths, slices: pd.DataFrame) -> None:
    """Write raw/ without DICOM files, SLICES, and tables of rejected slices without any.

    slices: as `full_size_data.make_slices` returns them.
    """
    write_label_files(folder, paths, slices)
    is_test = (slices["split"] == "test").to_numpy()
    index = slices.astype(dict.fromkeys(LABELS, "Int8"))
    index.loc[is_test, list(LABELS)] = pd.NA
    index["path"] = f"{paths.raw.as_posix()}/stage_2_" + index["split"] + "/" + index["slice_id"] + ".dcm"
    index["orientation"] = [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]] * len(index)
    plain = {"spacing_mm": 5.0, "thickness_mm": None, "tilt_deg": 0.0, "rows": 512, "columns": 512, "row_mm": 0.488281}
    plain |= {
        "frame": 1,
        "padding_low": None,
        "padding_high": None,
        "column_mm": 0.488281,
        "bits": 16,
        "signed": True,
        "slope": 1.0,
        "intercept": -1024.0,
        "bytes": 526_000,
        "pixel_offset": 1_712,
    }
    index = index.assign(**plain, transfer_syntax="1.2.840.10008.1.2.1", mask=None)
    write_table(folder / paths.slices, SLICES, index, {"commit": commit()})
    for path in (paths.rejected, paths.images_rejected):
        write_table(folder / path, REJECTED, REJECTED.schema().empty_table(), {"commit": commit()})


def lay_out_predictions(folder: Path, paths: Paths, slices: pd.DataFrame, fold_of: pd.Series) -> None:
    """Write the PREDICTIONS of each fold, and its record."""
    for fold, table in predictions(slices, fold_of, SEED + 1):
        provenance = Provenance("predict", {"fold": fold}, [], THREADS)
        artefact = folder / paths.predictions(fold)
        with provenance.recorded(record_of(artefact), artefact) as record:
            record.update(rows=len(table), stages=list(SEPARATION))
            write_table(artefact, PREDICTIONS, table, provenance.facts)


def check_folds(slices: pd.DataFrame, fold_of: pd.Series) -> None:
    """Check that the train part's patients, and no others, have one fold each; raises ValueError."""
    patients = set(slices.loc[slices["split"] == "train", "patient_id"])
    if not fold_of.index.is_unique or set(fold_of.index) != patients:
        raise ValueError(f"{FOLDS.name}: {len(fold_of)} rows for {len(patients)} patients of the train part")


def check_submission(sample: Path, submission: Path, rows: int) -> None:
    """Check that a submission has that many rows, the sample's IDs in the sample's order; raises ValueError."""
    asked, given = (pa.csv.read_csv(path).column("ID").combine_chunks() for path in (sample, submission))
    if len(given) != rows or not given.equals(asked):
        raise ValueError(f"{submission.name}: {len(given)} rows that are not the sample's {rows} in its order")


def check_leaderboard(leaderboard: pd.DataFrame, slices: pd.DataFrame, fold_of: pd.Series) -> None:
    """Check that the leaderboard has the rows it must have, with figures that can be known; raises ValueError.

    The prevalence predictor's loss is computed here by other means, and is near the entropy of the labels; the one that
    always says 0.5 loses ln 2; and the more evidence a predictor has, the less it loses.
    """
    losses = leaderboard.astype({"fold": str}).set_index(["fold", "stage"])["weighted_log_loss"]
    stages = [*SEPARATION, "constant-0.5", "constant-prevalence"]
    expected = pd.MultiIndex.from_product([["0", "oof", "test"], stages])
    if not losses.index.is_unique or len(losses.index.symmetric_difference(expected)):
        raise ValueError(f"leaderboard: rows {losses.index.tolist()}, expected {expected.tolist()}")
    labels, is_test = slices[list(LABELS)].to_numpy(np.float64), (slices["split"] == "test").to_numpy()
    folds = slices["patient_id"].map(fold_of).to_numpy()
    constants = np.empty_like(labels)
    for fold in sorted(set(fold_of)):
        constants[~is_test & (folds == fold)] = labels[~is_test & (folds != fold)].mean(axis=0)
    constants[is_test] = labels[~is_test].mean(axis=0)
    slice_losses = np.average(-np.log(np.abs(1 - labels - constants)), axis=1, weights=METRIC_WEIGHTS)
    for part, rows in {"0": ~is_test & (folds == 0), "oof": ~is_test, "test": is_test}.items():
        found = losses[part]
        said, computed = found["constant-prevalence"], slice_losses[rows].mean()
        entropy = prevalence_loss(labels[rows], np.array(METRIC_WEIGHTS))
        if abs(said - computed) > 1e-8 or abs(said / entropy - 1) > CONSTANT_TOLERANCE:
            raise ValueError(f"{part}: prevalence loses {said}, by other means {computed}, the entropy is {entropy}")
        ordered = [found[name] for name in ("sequence", "cnn", "constant-prevalence", "constant-0.5")]
        if ordered != sorted(ordered) or abs(ordered[-1] - np.log(2)) > 1e-8:
            raise ValueError(f"{part}: losses {ordered} are not in the order of what the predictors know")


def main() -> None:
    """Run the benchmark at full size, print its rows, and write them to the machine's file."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--folder", type=Path, help="where the data set is laid out and left (default: a temporary one)"
    )
    folder = arguments.parse_args().folder
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with tempfile.TemporaryDirectory(prefix="full-size-") as scratch:
        rows = run((folder or Path(scratch)).resolve(), RSNA_TRAIN, RSNA_TEST)
    write_and_print(FULL_SIZE, rows)


if __name__ == "__main__":
    main()
