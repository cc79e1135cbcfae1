"""All figures of several predictors on the same slices, with intervals: what the leaderboard's rows are made of."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import LABELS, Predict
from pipeline.core.intervals import Advance, intervals, no_progress
from pipeline.core.metrics import auc_per_label, log_losses, scan_roc_auc, weighted

DECIMALS = 9
"""Figures are rounded to these: beyond them, the order of additions shows."""


def evaluate(
    truth: np.ndarray,
    predictors: Mapping[str, np.ndarray],
    pairs: list[tuple[str, str]],
    patients: np.ndarray,
    scans: np.ndarray,
    settings: Predict,
    advance: Advance = no_progress,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return each predictor's figures, and the differences of pairs of predictors in weighted log loss.

    truth: (slices, labels), 0 or 1; predictors: name to (slices, labels) probabilities; pairs: (name, name), the
    difference is first minus second; patients: (slices,), the unit of resampling; scans: (slices,), the empty string
    where unknown: such slices are in no scan's score; settings: how intervals are drawn; advance:
    told of resamples that are done.

    Figures carry the leaderboard's column names and are None where one class is absent. All intervals come from the
    same resamples of the patients.
    """
    names = list(predictors)
    losses, label_losses = np.empty((len(truth), len(names))), []
    for k, values in enumerate(predictors.values()):
        of_labels = log_losses(truth, values)
        losses[:, k] = weighted(of_labels)
        label_losses.append(of_labels.mean(axis=0))
    columns = [(names.index(first), names.index(second)) for first, second in pairs]
    own, paired = intervals(patients, losses, columns, settings.resamples, settings.level, settings.seed, advance)
    in_scan = np.asarray(scans) != ""
    scan_codes, scan_names = pd.factorize(np.asarray(scans)[in_scan])
    figures = {}
    for (name, values), limits, of_labels in zip(predictors.items(), own, label_losses, strict=True):
        roc, pr = auc_per_label(truth, values)
        figures[name] = {
            "slices": len(truth),
            "scans": len(scan_names),
            "weighted_log_loss": _plain(limits.estimate),
            "weighted_log_loss_low": _plain(limits.low),
            "weighted_log_loss_high": _plain(limits.high),
            **_by_label("log_loss", of_labels),
            **_by_label("roc_auc", roc),
            **_by_label("pr_auc", pr),
            "scan_roc_auc_any": _plain(scan_roc_auc(scan_codes, truth[in_scan, -1], values[in_scan, -1])),
        }
    differences = [
        {
            "stage": first,
            "minus": second,
            "difference": _plain(d.estimate),
            "low": _plain(d.low),
            "high": _plain(d.high),
        }
        for (first, second), d in zip(pairs, paired, strict=True)
    ]
    return figures, differences


def _by_label(figure: str, values: np.ndarray) -> dict[str, float | None]:
    return {f"{figure}_{label}": _plain(value) for label, value in zip(LABELS, values, strict=True)}


def _plain(value: float) -> float | None:
    """Return a figure as JSON and CSV hold it: rounded, and None for NaN."""
    return None if np.isnan(value) else round(float(value), DECIMALS)
