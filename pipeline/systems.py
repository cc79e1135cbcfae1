"""Stage `systems`: all published systems on the same folds of one data set, side by side."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import Run, draws
from pipeline.core.drawing_figures import ABC2, ALL, ANY, overlap_figures, volume_figures
from pipeline.core.lesions import CLASSES
from pipeline.core.row_figures import Drawn
from pipeline.core.text_table import limits, number, text_table
from pipeline.job import Job
from pipeline.paths import require
from pipeline.published import RSNA_2019, RSNA_2019_TEST
from pipeline.runs import headlines
from pipeline.shell.drawn_tables import read_drawn
from pipeline.shell.provenance import read_json

CONSTANT = "constant-"
"""How predictors begin that have learned nothing."""
PREVALENCE = "constant-prevalence"
"""The best of them."""

HEAD = (
    *("recipe", "stage", "weighted log loss", "interval", "ROC any", "PR any", "scan ROC any", "interval"),
    *("slices", "scans", "parameters", "seconds"),
)

DRAWING_HEAD = (
    *("recipe", "type", "slices", "Dice", "Dice of 45-85 HU", "scans", "volume r", "bias, mL", "limits", "bias, %"),
)
DRAWINGS = (
    "Drawn on the same scans: mean Dice over slices that show a type, beside a plain threshold of 45 to 85 HU inside\n"
    "the skull; volumes of scans that hold it, drawn minus true, with Bland and Altman's limits. ABC/2: of true masks."
)
HEADLINES = "What these systems are known by, each on data of its own: nothing above compares with it."

ABC2_TYPE = "IPH"
"""What that rule was made for."""


def main(job: Job) -> None:
    """Print the out-of-fold figures of every system, best guess of nothing (the prevalence) last.

    Below it, the overlaps and volumes of those that draw, and the figures that the published systems are known by.
    """
    scores = [
        read_json(require(dataclasses.replace(job.paths, run=run).score("oof"), "systems")) for run in job.system_runs
    ]
    names = ", ".join(run.name for run in job.system_runs)
    sys.stdout.write(
        f"{names} on the data set {job.paths.dataset}, out of fold over folds {', '.join(map(str, job.folds))}; a scan "
        f"scores as its highest slice, or by the rule behind the stroke. Intervals of 95 %: of patients drawn again, "
        f"and DeLong's for scans.\n{systems_text(scores)}"
    )
    drawn = {
        run.name: read_drawn(dataclasses.replace(job.paths, run=run), job.folds)
        for run in job.system_runs
        if draws(run.settings)
    }
    sys.stdout.write(f"\n{DRAWINGS}\n{drawings_text(drawn)}\n{HEADLINES}\n{headlines_text(job.system_runs)}")


def systems_text(scores: Sequence[Mapping[str, Any]]) -> str:
    """Return the table; scores: score files of runs on the same rows."""
    cells = [
        _cells(row, score["scan_roc_auc_any"][row["stage"]])
        for score in scores
        for row in score["rows"]
        if not row["stage"].startswith(CONSTANT)
    ]
    nothing_learned = next(row for row in scores[0]["rows"] if row["stage"] == PREVALENCE)
    cells.append(_cells({**nothing_learned, "recipe": "", "parameters": None, "seconds": None}, {}))
    return text_table(HEAD, cells, left=2)


def _cells(row: Mapping[str, Any], area: Mapping[str, float | None]) -> list[str]:
    return [
        row["recipe"],
        row["stage"],
        number(row["weighted_log_loss"], 5),
        limits(row["weighted_log_loss_low"], row["weighted_log_loss_high"]),
        *(number(row[figure], 3) for figure in ("roc_auc_any", "pr_auc_any", "scan_roc_auc_any")),
        limits(area.get("low"), area.get("high"), 3),
        *(number(row[figure], 0) for figure in ("slices", "scans", "parameters", "seconds")),
    ]


def drawings_text(drawn: Mapping[str, Drawn]) -> str:
    """Return the table of what is drawn, a row a type and all types together; drawn: by run."""
    cells = []
    for name, own in drawn.items():
        for type_ in (ALL, *CLASSES):
            overlaps = overlap_figures(own.overlaps, type_)
            cells.append(
                [
                    name,
                    type_ or ANY,
                    number(overlaps["slices"], 0),
                    *(_known(overlaps[figure], 3) for figure in ("dice", "threshold_dice")),
                    *_volume_cells(volume_figures(own.measurements, type_)),
                ]
            )
        by_rule = _volume_cells(volume_figures(own.measurements, ABC2_TYPE, ABC2))
        cells.append([name, f"{ABC2_TYPE} by ABC/2", "", "", "", *by_rule])
    return text_table(DRAWING_HEAD, cells, left=2)


def _volume_cells(figures: Mapping[str, float]) -> list[str]:
    low, high = (None if math.isnan(figures[name]) else figures[name] for name in ("volume_low_ml", "volume_high_ml"))
    return [
        number(figures["scans"], 0),
        _known(figures["volume_r"], 3),
        _known(figures["volume_bias_ml"], 2),
        limits(low, high, 1),
        _known(figures["volume_bias_percent"], 1),
    ]


def _known(value: float, decimals: int) -> str:
    return number(None if math.isnan(value) else value, decimals)


def headlines_text(runs: Sequence[Run]) -> str:
    """Return the figures that the systems of runs are known by, those of other people's systems last."""
    cells = [[_published(run).name, *dataclasses.astuple(headline)] for run in runs for headline in headlines(run.name)]
    cells += [["", f"weighted log loss, {text}", figure, RSNA_2019_TEST] for text, figure in RSNA_2019]
    return text_table(("system", "figure", "published", "of"), cells, left=4)


def _published(run: Run) -> Run:
    """Return the recipe that a run is a variant of, as it was published."""
    while run.parents:
        run = run.parents[-1]
    return run
