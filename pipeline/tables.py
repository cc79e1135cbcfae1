"""Stage `tables`: a paper's own tables of figures, ours of the same kind beside the published ones."""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.config import LABELS, UserError, draws, last_stage
from pipeline.core.predictions import look_up, out_of_fold_rows
from pipeline.core.row_figures import Said, row_figures
from pipeline.core.rows import label_matrix
from pipeline.core.scan_predictions import out_of_fold_scans
from pipeline.core.text_table import number, text_table
from pipeline.job import Job
from pipeline.paths import Paths, require
from pipeline.published import FigureTable
from pipeline.shell.drawn_tables import read_drawn
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)

DECIMALS = {"p_value": 4, "volume_bias_percent": 1}
"""Of figures that are no shares, or small ones; all others have the table's."""


def main(job: Job) -> None:
    """Print each table of figures of the recipe's paper; runs that were not predicted leave their columns empty."""
    if not job.figure_tables:
        raise UserError(
            f"{job.run.name}: its paper has no tables of figures; Table 2 of burduja2020 is `make ablation`"
        )
    slices = read_table(require(job.paths.slices, "index"), ["slice_id", "scan_id", "split", *LABELS])
    slices = slices.set_index("slice_id")
    said = {
        key: _said(dataclasses.replace(job.paths, run=run), job.folds, slices) for key, run in job.figure_runs.items()
    }
    for table in job.figure_tables:
        sys.stdout.write(opening(table, job, {key: own is not None for key, own in said.items()}))
        ours = [
            {} if (own := said.get(row.variant)) is None else row_figures(table.unit, row, own) for row in table.rows
        ]
        sys.stdout.write(figures_text(table, ours))
        sys.stdout.write("\n")


def _said(paths: Paths, folds: tuple[int, ...], slices: pd.DataFrame) -> Said | None:
    """Return what a run says, None where one of its folds was not predicted."""
    if not all(paths.predictions(fold).exists() for fold in folds):
        return None
    rows = out_of_fold_rows({fold: read_table(paths.predictions(fold)) for fold in folds})
    of_scans = {fold: read_table(path) for fold in folds if (path := paths.scan_predictions(fold)).exists()}
    settings = paths.run.settings
    return Said(
        rows,
        label_matrix(look_up(slices, rows.slice_ids, "SLICES")),
        out_of_fold_scans(of_scans) if of_scans else {},
        last_stage(settings),
        settings.predict.seed,
        read_drawn(paths, folds) if draws(settings) else None,
    )


def opening(table: FigureTable, job: Job, is_there: Mapping[str, bool]) -> str:
    """Return the lines above a table: what the paper's figures are of, and what ours are of."""
    ours = [job.figure_runs[key].name for key in dict.fromkeys(row.variant for row in table.rows) if is_there.get(key)]
    missing = [
        job.figure_runs[key].name
        for key in dict.fromkeys(row.variant for row in table.rows)
        if key in job.figure_runs and not is_there[key]
    ]
    folds = ", ".join(map(str, job.folds))
    lines = [
        f"{table.title}: {table.of}.",
        f"Ours: {', '.join(ours) or 'no run of the recipe was predicted'}; data set {job.paths.dataset}, out of fold "
        f"over folds {folds}{'' if table.unit == 'lesion' else f', a {table.unit} is called positive from 0.5 on'}.",
        *([f"Not predicted: {', '.join(missing)} (`make score RECIPE=...`)."] if missing else []),
        *([table.note] if table.note else []),
        _warning(job.paths.dataset),
    ]
    return "\n".join(lines) + "\n"


def figures_text(table: FigureTable, ours: Sequence[Mapping[str, float]]) -> str:
    """Return a table of figures as text: each figure of the paper, and ours behind it; ours: by figure, one a row."""
    head = [table.title.split(" of ")[0], *(text for figure in table.figures for text in (figure, "ours"))]
    cells = []
    for row, own in zip(table.rows, ours, strict=True):
        values = [row.text]
        for figure in table.figures:
            mine = own.get(figure)
            decimals = DECIMALS.get(figure, table.decimals)
            values += [number(row.figures.get(figure), decimals)]
            values += ["" if mine is None or np.isnan(mine) else number(mine, decimals)]
        cells.append(values)
    return text_table(head, cells, left=1)


def _warning(dataset: str) -> str:
    if dataset == "phantom":
        return "A phantom is not a head: our figures show that every row runs, and nothing about the paper's."
    return "Not the same data: the figures stand beside each other, no more."
