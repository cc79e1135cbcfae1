"""Stage `ablation`: a paper's table of its recipe's variants, with our own figures of the same runs beside it."""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.config import LABELS, Predict, last_stage
from pipeline.core.intervals import Interval, intervals
from pipeline.core.metrics import slice_losses
from pipeline.core.predictions import look_up, out_of_fold_rows
from pipeline.core.rows import label_matrix
from pipeline.core.text_table import limits, number, text_table
from pipeline.job import Job
from pipeline.paths import Paths, require
from pipeline.published import PublishedRow, PublishedTable
from pipeline.shell.progress import progress, tracked
from pipeline.shell.provenance import read_json
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)


def main(job: Job) -> None:
    """Print each of the recipe's tables: the paper's figure, ours out of fold and on the test part, and differences.

    The differences are the variant minus the recipe itself, on the same resamples of the patients.
    """
    recipe = job.table_runs[""]
    slices = read_table(require(job.paths.slices, "index"), ["slice_id", "patient_id", "split", *LABELS])
    slices = slices.set_index("slice_id")
    for table in job.tables:
        rows = [row for row in table.rows if row.variant in job.table_runs]
        paths = {row.variant: dataclasses.replace(job.paths, run=job.table_runs[row.variant]) for row in rows}
        losses, patients, scans = out_of_fold_losses(paths, job.folds, slices)
        own, paired = compare(losses, patients, recipe.settings.predict)
        test = {variant: _test_loss(own_paths) for variant, own_paths in paths.items()}
        folds = ", ".join(map(str, job.folds))
        sys.stdout.write(
            f"{table.title}: {table.figure}.\n"
            f"Ours: {recipe.name} and its variants on the data set {job.paths.dataset}, out of fold over folds {folds}:"
            f" {len(patients)} slices of {scans} scans.\n"
            f"{_warning(job.paths.dataset)}\n"
            f"{table_text(table, rows, own, paired, test)}\n"
        )


def out_of_fold_losses(
    paths: Mapping[str, Paths], folds: Sequence[int], slices: pd.DataFrame
) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    """Return each run's loss of each slice, (slices,) in one order; the slices' patients; and the number of scans.

    paths: a run's, by variant; slices: SLICES, indexed by slice_id. Raises UserError where a run was not predicted.
    """
    losses: dict[str, np.ndarray] = {}
    order = np.array([], dtype=object)
    scans = 0
    for variant, own in tracked(paths.items(), "runs"):
        predictions = {fold: read_table(require(own.predictions(fold), "ablation")) for fold in folds}
        rows = out_of_fold_rows(predictions)
        if not losses:
            order, scans = rows.slice_ids, len(set(rows.scan_ids))
        said = pd.DataFrame(rows.predictors[last_stage(own.run.settings)], index=rows.slice_ids)
        truth = label_matrix(look_up(slices, order, "SLICES"))
        losses[variant] = slice_losses(truth, look_up(said, order, f"predictions of {own.run.name}").to_numpy())
    return losses, look_up(slices, order, "SLICES")["patient_id"].to_numpy(), scans


def compare(
    losses: Mapping[str, np.ndarray], patients: np.ndarray, settings: Predict
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Return each variant's mean loss, and its difference to the recipe (the empty name), with intervals.

    losses: (slices,) by variant; patients: (slices,), the unit of resampling.
    """
    names = list(losses)
    pairs = [(k, names.index("")) for k, name in enumerate(names) if name]
    columns = np.stack(list(losses.values()), axis=1)
    with progress(settings.resamples, "resamples") as bar:
        own, paired = intervals(
            patients, columns, pairs, settings.resamples, settings.level, settings.seed, advance=bar.update
        )
    return dict(zip(names, own, strict=True)), {names[k]: d for (k, _), d in zip(pairs, paired, strict=True)}


def table_text(
    table: PublishedTable,
    rows: Sequence[PublishedRow],
    own: Mapping[str, Interval],
    paired: Mapping[str, Interval],
    test: Mapping[str, float | None],
) -> str:
    """Return a table as text: rows in the paper's order."""
    head = [
        table.title.split(" of ")[0],
        "variant",
        "paper",
        "ours",
        "interval",
        "minus the recipe",
        "interval",
        "test",
    ]
    cells = []
    for row in rows:
        mine, difference = own[row.variant], paired.get(row.variant)
        cells.append(
            [
                row.text,
                row.variant or "(the recipe)",
                number(row.figure, 5),
                number(mine.estimate, 5),
                limits(mine.low, mine.high),
                "" if difference is None else f"{difference.estimate:+.5f}",
                "" if difference is None else limits(difference.low, difference.high),
                number(test[row.variant], 5),
            ]
        )
    return text_table(head, cells, left=2)


def _test_loss(paths: Paths) -> float | None:
    """Return a run's weighted log loss on the test part where its truth is known."""
    path = paths.score("test")
    if not path.exists():
        return None
    stage = last_stage(paths.run.settings)
    return next(row["weighted_log_loss"] for row in read_json(path)["rows"] if row["stage"] == stage)


def _warning(dataset: str) -> str:
    if dataset == "phantom":
        return "A phantom is not a head: our figures show that every row runs, and nothing about the paper's."
    return "Not the same data: the paper's figures are of test patients, ours out of fold of training patients."
