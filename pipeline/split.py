"""Stage `split`: patients into folds and into a holdout split, alike in all six labels."""

import logging

import pandas as pd

from pipeline.config import LABELS, Split, UserError
from pipeline.core.folds import HOLDOUT, check_disjoint, check_stratified, divide, label_rates, patient_table
from pipeline.job import Job
from pipeline.paths import division_settings, record_of, require
from pipeline.schema import FOLDS, ContractError
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, write_table

log = logging.getLogger(__name__)


def main(job: Job) -> None:
    """Divide the train part's patients, check that folds are patient-disjoint and stratified, and log their rates.

    A patient of the test part alone has no fold; one of both parts has the fold of their train slices.
    """
    paths, split = job.paths, job.run.settings.split
    inputs = [require(paths.slices, "index")]
    provenance = Provenance("split", {"split": division_settings(job.run.settings)}, inputs, job.threads)
    slices = read_table(paths.slices, ["slice_id", "scan_id", "patient_id", "split", *LABELS])
    train = slices[slices["split"] == "train"]
    patients = patient_table(train)
    folds, rates = divide_patients(patients, split)
    for column in ("fold", "holdout"):
        _check_disjoint(train, folds, column)
        for line in rates[column].to_string(float_format="{:.5f}".format).splitlines():
            log.info("%s", line)
    plain_rates = {column: table.rename(index=str).to_dict("index") for column, table in rates.items()}
    with provenance.recorded(record_of(paths.folds), paths.folds) as record:
        record.update(patients=len(patients), slices=len(train), rates=plain_rates)
        write_table(paths.folds, FOLDS, folds, provenance.facts)


def divide_patients(patients: pd.DataFrame, split: Split) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the FOLDS table, and for its columns `fold` and `holdout` what each part holds.

    patients: as `core.folds.patient_table` returns it. Raises UserError for settings that cannot be met, and
    ContractError where a division is not stratified.
    """
    if split.folds < 2 or len(patients) < split.folds:
        raise UserError(
            f"split.folds={split.folds}: the train part has {len(patients)} patients; set 2 to {len(patients)} folds"
        )
    if len(split.holdout) != len(HOLDOUT) or min(split.holdout) <= 0 or abs(sum(split.holdout) - 1) > 1e-9:
        raise UserError(f"split.holdout={split.holdout}: give three positive shares that add up to 1")
    folds = pd.DataFrame({"patient_id": patients.index})
    rates = {}
    for column, shares in (("fold", (1 / split.folds,) * split.folds), ("holdout", split.holdout)):
        parts = divide(patients, shares, split.seed)
        try:
            check_stratified(patients, parts, shares)
        except ValueError as error:
            raise ContractError(f"FOLDS.{column}: {error}") from error
        folds[column] = parts if column == "fold" else [HOLDOUT[part] for part in parts]
        rates[column] = label_rates(patients, parts).rename_axis(column)
    rates["holdout"] = rates["holdout"].rename(index=dict(enumerate(HOLDOUT)))
    return folds, rates


def _check_disjoint(train: pd.DataFrame, folds: pd.DataFrame, column: str) -> None:
    """Check on the slices themselves, as the stages behind will join them, that no patient is in two parts."""
    joined = train[["patient_id"]].merge(folds, on="patient_id", how="left")
    try:
        check_disjoint(joined["patient_id"].to_numpy(), joined[column].to_numpy())
    except ValueError as error:
        raise ContractError(f"FOLDS.{column}: {error}") from error
    if joined[column].isna().any() or len(joined) != len(train):
        raise ContractError(f"FOLDS.{column}: not each train slice has exactly one")
