"""Stage `submit`: the mean over folds in the challenge's long form, checked against the sample submission."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import LABELS, P_LABELS, UserError, last_stage, section_settings, speaks_of_all_labels
from pipeline.core.ensemble import mean_over_folds
from pipeline.datasets.rsna import read_sample_ids
from pipeline.job import Job
from pipeline.paths import record_of, require
from pipeline.schema import ContractError
from pipeline.shell.atomic import atomic_path
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)

DIGITS = 9
"""Significant digits of a probability in the submission."""

SHOWN = 5
"""IDs that an error names."""


def main(job: Job) -> None:
    """Average exactly the job's folds, clip, check, and write the submission; one that fails is not written."""
    paths, settings = job.paths, job.run.settings
    if not speaks_of_all_labels(settings):
        raise UserError(
            f"{job.run.name} gives no probabilities of {', '.join(LABELS[:-1])}: a submission needs all six labels a "
            f"slice; its figures: make leaderboard RECIPE={job.run.name}"
        )
    stage = last_stage(settings)
    if not paths.sample_submission.is_file():
        raise UserError(f"{paths.sample_submission} is missing: it says which slices to predict; put it there")
    sources = [require(paths.predictions(fold), "predict") for fold in job.folds]
    section = {"predict": section_settings(settings, "predict"), "folds": list(job.folds)}
    provenance = Provenance("submit", section, [*sources, paths.sample_submission], job.threads)

    sample_ids = pd.Series(read_sample_ids(paths.sample_submission))
    tables = [_test_rows(path, stage) for path in sources]
    slice_ids = [table["slice_id"].to_numpy(object) for table in tables]
    mean = mean_over_folds(slice_ids, [table[list(P_LABELS)].to_numpy(np.float64) for table in tables])
    submission = arrange(slice_ids[0], mean, sample_ids, settings.predict.clip)
    check_submission(submission, sample_ids)
    with (
        provenance.recorded(record_of(paths.submission), paths.submission) as record,
        atomic_path(paths.submission) as partial,
    ):
        submission.to_csv(partial, index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
        record.update(stage_submitted=stage, rows=len(submission))
    log.info("%s: %d rows, mean of folds %s", paths.submission, len(submission), ", ".join(map(str, job.folds)))


def _test_rows(path: Path, stage: str) -> pd.DataFrame:
    """Return a fold's test rows of the stage that is handed in; raises UserError where labels are not predicted."""
    table = read_table(path, ["slice_id", "stage", "split", *P_LABELS])
    rows = table[(table["split"] == "test") & (table["stage"] == stage)].reset_index(drop=True)
    lacking = [label for label, name in zip(LABELS, P_LABELS, strict=True) if rows[name].isna().any()]
    if lacking:
        raise UserError(f"{path}: no probabilities of {', '.join(lacking)}: a submission needs all six labels a slice")
    return rows


def arrange(slice_ids: np.ndarray, probabilities: np.ndarray, sample_ids: pd.Series, clip: float) -> pd.DataFrame:
    """Return the submission, `ID` and `Label`, in the sample's order, clipped to [clip, 1 - clip]; NaN where missing.

    slice_ids: (slices,); probabilities: (slices, labels); sample_ids: (rows,), `<slice_id>_<label>`.
    """
    ids = np.add.outer(slice_ids.astype(object), [f"_{label}" for label in LABELS]).ravel()
    positions = pd.Index(ids).get_indexer(sample_ids)
    values = np.where(positions < 0, np.nan, np.clip(probabilities, clip, 1 - clip).ravel()[positions])
    if len(ids) > len(sample_ids):
        log.warning("%d predicted rows are not asked for by the sample submission", len(ids) - len(sample_ids))
    return pd.DataFrame({"ID": sample_ids.to_numpy(), "Label": values})


def check_submission(submission: pd.DataFrame, sample_ids: pd.Series) -> None:
    """Check that every ID is there once, in the sample's order, with a finite value in [0, 1]; raises ContractError."""
    ids, values = submission["ID"], submission["Label"]
    if ids.duplicated().any():
        raise ContractError(f"submission repeats {_first(ids[ids.duplicated()])}")
    if len(ids) != len(sample_ids) or not np.array_equal(ids.to_numpy(), sample_ids.to_numpy()):
        raise ContractError(f"submission has {len(ids)} rows in another order than the sample's {len(sample_ids)}")
    missing = ~np.isfinite(values)
    if missing.any():
        raise ContractError(f"submission: {missing.sum()} rows without a finite value: {_first(ids[missing])}")
    outside = (values < 0) | (values > 1)
    if outside.any():
        raise ContractError(f"submission: {outside.sum()} values outside [0, 1]: {_first(ids[outside])}")


def _first(ids: pd.Series) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids.head(SHOWN)) + more
