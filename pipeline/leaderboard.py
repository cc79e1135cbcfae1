"""Stage `leaderboard`: one CSV rebuilt from all score files, and the same as a table to read, best first."""

import csv
import json
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import LABELS, UserError
from pipeline.core.text_table import limits, number, text_table
from pipeline.job import Job
from pipeline.paths import LEADERBOARD, record_of
from pipeline.shell import lock
from pipeline.shell.atomic import atomic_path
from pipeline.shell.provenance import Provenance, read_json

log = logging.getLogger(__name__)

COLUMNS = (
    *("dataset", "recipe", "stage", "fold", "slices", "scans"),
    *("weighted_log_loss", "weighted_log_loss_low", "weighted_log_loss_high"),
    *(f"{figure}_{label}" for figure in ("log_loss", "roc_auc", "pr_auc") for label in LABELS),
    *("scan_roc_auc_any", "parameters", "seconds", "commit", "settings_digest", "time"),
)
"""The leaderboard's columns; a score file's rows carry exactly these."""


def main(job: Job) -> None:
    """Rebuild the leaderboard and print it with the paired differences."""
    # Runs on other data sets may end at the same time: who writes last must have read all.
    with lock.alone(LEADERBOARD.parent):
        provenance = Provenance("leaderboard", {}, score_files(LEADERBOARD.parent), job.threads)
        scores = read_scores(LEADERBOARD.parent)
        with provenance.recorded(record_of(LEADERBOARD), LEADERBOARD) as record:
            rows = write_leaderboard(LEADERBOARD, scores)
            record["rows"] = len(rows)
    log.info("%s: %d rows from %d score files", LEADERBOARD, len(rows), len(scores))
    sys.stdout.write(figures_text(rows) + "\n" + paired_text(scores))


def rebuild(submissions: Path) -> Path:
    """Rebuild `leaderboard.csv` in the folder of submissions from the score files below it; return its path."""
    path = submissions / LEADERBOARD.name
    write_leaderboard(path, read_scores(submissions))
    return path


def score_files(submissions: Path) -> list[Path]:
    """Return all score files below the folder of submissions, in order of path."""
    return sorted(submissions.glob("*/*/*.score.json"))


def read_scores(submissions: Path) -> list[dict[str, Any]]:
    """Return what all score files say, in order of path; raises UserError for one that is not whole."""
    scores = []
    for path in score_files(submissions):
        try:
            score = read_json(path)
            odd = [row for row in score["rows"] if set(row) != set(COLUMNS)]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a score file ({error!r}); remove it and run `make score`") from error
        if odd:
            difference = ", ".join(sorted(set(odd[0]) ^ set(COLUMNS)))
            raise UserError(
                f"{path}: other columns than the leaderboard's ({difference}); redo it: `make score FORCE=1`"
            )
        scores.append(score)
    return scores


def write_leaderboard(path: Path, scores: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write the rows of all scores, sorted by data set, run, stage and fold; return them. Equal scores, equal bytes."""
    rows = sorted((row for score in scores for row in score["rows"]), key=_key)
    with atomic_path(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _key(row: Mapping[str, Any]) -> tuple:
    """Order by data set, run, stage, then folds by number, then oof and test."""
    fold = row["fold"]
    return row["dataset"], row["recipe"], row["stage"], not fold.isdigit(), _number_of(fold), fold


def _reading_order(row: Mapping[str, Any]) -> tuple:
    """Order by data set, out of fold first, then test, then the folds by number; the lowest log loss first."""
    loss = row["weighted_log_loss"]
    return row["dataset"], *_fold_order(row["fold"]), loss is None, loss or 0.0, row["recipe"], row["stage"]


def _fold_order(fold: str) -> tuple[int, int]:
    return {"oof": 0, "test": 1}.get(fold, 2), _number_of(fold)


def _number_of(fold: str) -> int:
    return int(fold) if fold.isdigit() else 0


def figures_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the leaderboard's main figures as text, best first within each data set and kind of fold."""
    head = ["dataset", "fold", "recipe", "stage", "weighted log loss", "interval", "ROC any", "PR any", "scan ROC"]
    head += ["slices", "scans", "parameters", "seconds"]
    cells = [
        [
            *(row[column] for column in ("dataset", "fold", "recipe", "stage")),
            number(row["weighted_log_loss"], 5),
            limits(row["weighted_log_loss_low"], row["weighted_log_loss_high"]),
            *(number(row[column], 3) for column in ("roc_auc_any", "pr_auc_any", "scan_roc_auc_any")),
            *(number(row[column], 0) for column in ("slices", "scans", "parameters", "seconds")),
        ]
        for row in sorted(rows, key=_reading_order)
    ]
    return text_table(head, cells, left=4)


def paired_text(scores: Iterable[Mapping[str, Any]]) -> str:
    """Return the differences of predictors on the same patients as text; the empty string where there are none."""
    cells = [
        [
            *(score[key] for key in ("dataset", "fold", "run")),
            f"{pair['stage']} - {pair['minus']}",
            number(pair["difference"], 5),
            limits(pair["low"], pair["high"]),
        ]
        for score in sorted(scores, key=lambda score: (score["dataset"], *_fold_order(score["fold"]), score["run"]))
        for pair in score["paired"]
    ]
    head = ["dataset", "fold", "recipe", "paired difference", "in weighted log loss", "interval"]
    return text_table(head, cells, left=4) if cells else ""
