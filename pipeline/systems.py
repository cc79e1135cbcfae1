"""Stage `systems`: all published systems on the same folds of one data set, in one table."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.text_table import limits, number, text_table
from pipeline.plan import Job, require
from pipeline.shell.provenance import read_json

CONSTANT = "constant-"
"""How predictors begin that have learned nothing."""
PREVALENCE = "constant-prevalence"
"""The best of them."""

HEAD = (
    *("recipe", "stage", "weighted log loss", "interval", "ROC any", "PR any", "scan ROC any", "interval"),
    *("slices", "scans", "parameters", "seconds"),
)


def main(job: Job) -> None:
    """Print the out-of-fold figures of every system, best guess of nothing (the prevalence) last."""
    scores = [
        read_json(require(dataclasses.replace(job.paths, run=run).score("oof"), "systems")) for run in job.system_runs
    ]
    names = ", ".join(run.name for run in job.system_runs)
    sys.stdout.write(
        f"{names} on the data set {job.paths.dataset}, out of fold over folds {', '.join(map(str, job.folds))}; a scan "
        f"scores as its highest slice, or by the rule behind the stroke. Intervals of 95 %: of patients drawn again, "
        f"and DeLong's for scans.\n{systems_text(scores)}"
    )


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
