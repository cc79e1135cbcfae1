"""Stage `tables`: a paper's own tables of figures, ours of the same kind beside the published ones."""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.config import LABELS, Run, UserError, last_stage
from pipeline.core.paper_figures import label_figures
from pipeline.core.predictions import Rows, look_up, out_of_fold_rows
from pipeline.core.reader_study import scan_maxima
from pipeline.core.rows import label_matrix
from pipeline.core.scan_predictions import ScanScores, out_of_fold_scans
from pipeline.core.text_table import number, text_table
from pipeline.plan import Job, Paths, require
from pipeline.published import FigureRow, FigureTable
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)

ANY = LABELS[-1]


@dataclasses.dataclass(frozen=True)
class Said:
    """What a run says of the train part, out of fold, beside the truth."""

    rows: Rows
    truth: np.ndarray
    """(slices, labels)"""
    scans: ScanScores


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
        sys.stdout.write(figures_text(table, [_ours(table.unit, row, said, job.figure_runs) for row in table.rows]))
        sys.stdout.write("\n")


def _said(paths: Paths, folds: tuple[int, ...], slices: pd.DataFrame) -> Said | None:
    """Return what a run says, None where one of its folds was not predicted."""
    if not all(paths.predictions(fold).exists() for fold in folds):
        return None
    rows = out_of_fold_rows({fold: read_table(paths.predictions(fold)) for fold in folds})
    of_scans = {fold: read_table(path) for fold in folds if (path := paths.scan_predictions(fold)).exists()}
    scans = out_of_fold_scans(of_scans) if of_scans else {}
    return Said(rows, label_matrix(look_up(slices, rows.slice_ids, "SLICES")), scans)


def _ours(unit: str, row: FigureRow, said: Mapping[str, Said | None], runs: Mapping[str, Run]) -> dict[str, float]:
    """Return our figures of a row, none where its run was not predicted or the run does not say such a thing."""
    own = said.get(row.variant)
    if own is None or unit not in ("slice", "scan") or row.subset not in ("", *LABELS):
        return {}
    stage = row.stage or last_stage(runs[row.variant].settings)
    if unit == "slice":
        return label_figures(own.truth, own.rows.predictors[stage], row.subset) if stage in own.rows.predictors else {}
    truth = scan_maxima(own.rows.scan_ids, own.truth)
    if stage in own.scans:
        scans, scores = own.scans[stage]
        said_of = np.full((len(scans), len(LABELS)), np.nan)
        said_of[:, -1] = scores
        return label_figures(truth.loc[scans].to_numpy(), said_of, row.subset or ANY)
    if stage not in own.rows.predictors:
        return {}
    scores = scan_maxima(own.rows.scan_ids, own.rows.predictors[stage])
    return label_figures(truth.to_numpy(), scores.to_numpy(), row.subset or ANY)


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
        f"over folds {folds}, a {table.unit} is called positive from 0.5 on.",
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
            values += [number(row.figures.get(figure), table.decimals)]
            values += ["" if mine is None or np.isnan(mine) else number(mine, table.decimals)]
        cells.append(values)
    return text_table(head, cells, left=1)


def _warning(dataset: str) -> str:
    if dataset == "phantom":
        return "A phantom is not a head: our figures show that every row runs, and nothing about the paper's."
    return "Not the same data: the figures stand beside each other, no more."
