"""All figures of several predictors on the same slices, with intervals: what the leaderboard's rows are made of."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import LABELS, Predict
from pipeline.core.intervals import Advance, Interval, intervals, no_progress
from pipeline.core.metrics import auc_per_label, log_losses, scan_roc_auc, weighted

SILENT = 0.5
"""Stands for what a predictor does not say, until the figures made of it are left out."""

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

    truth: (slices, labels), 0 or 1; predictors: name to (slices, labels) probabilities, NaN throughout for a label that
    a predictor does not speak of; pairs: (name, name), of predictors that speak of all labels, the difference is first
    minus second; patients: (slices,), the unit of resampling; scans: (slices,), the empty string
    where unknown: such slices are in no scan's score; settings: how intervals are drawn; advance:
    told of resamples that are done.

    Figures carry the leaderboard's column names; they are None where one class is absent, for labels that a predictor
    does not speak of, and in the weighted log loss of one that does not speak of all. All intervals come from the same
    resamples of the patients. Raises ValueError for a label that is NaN in some slices and not in others.
    """
    spoken = {name: _spoken_labels(name, values) for name, values in predictors.items()}
    names = [name for name, labels in spoken.items() if labels.all()]
    losses, label_losses = np.empty((len(truth), len(names))), {}
    for name, values in predictors.items():
        of_labels = log_losses(truth, np.where(spoken[name], values, SILENT))
        label_losses[name] = np.where(spoken[name], of_labels.mean(axis=0), np.nan)
        if name in names:
            losses[:, names.index(name)] = weighted(of_labels)
    columns = [(names.index(first), names.index(second)) for first, second in pairs]
    own, paired = intervals(patients, losses, columns, settings.resamples, settings.level, settings.seed, advance)
    limits_of = dict(zip(names, own, strict=True))
    in_scan = np.asarray(scans) != ""
    scan_codes, scan_names = pd.factorize(np.asarray(scans)[in_scan])
    figures = {}
    for name, values in predictors.items():
        limits = limits_of.get(name, Interval(np.nan, np.nan, np.nan))
        areas = auc_per_label(truth, np.where(spoken[name], values, SILENT))
        roc, pr = (np.where(spoken[name], area, np.nan) for area in areas)
        figures[name] = {
            "slices": len(truth),
            "scans": len(scan_names),
            "weighted_log_loss": _plain(limits.estimate),
            "weighted_log_loss_low": _plain(limits.low),
            "weighted_log_loss_high": _plain(limits.high),
            **_by_label("log_loss", label_losses[name]),
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


def _spoken_labels(name: str, values: np.ndarray) -> np.ndarray:
    """Return which labels a predictor speaks of, (labels,) boolean; values: (slices, labels)."""
    is_nan = np.isnan(values)
    partly = is_nan.any(axis=0) & ~is_nan.all(axis=0)
    if partly.any():
        label = LABELS[int(partly.argmax())]
        raise ValueError(f"{name}: {is_nan[:, partly.argmax()].sum()} of {len(values)} slices lack p_{label}")
    if is_nan[:, -1].any():
        raise ValueError(f"{name}: no p_any; every predictor speaks of it")
    return ~is_nan.any(axis=0)


def _by_label(figure: str, values: np.ndarray) -> dict[str, float | None]:
    return {f"{figure}_{label}": _plain(value) for label, value in zip(LABELS, values, strict=True)}


def _plain(value: float) -> float | None:
    """Return a figure as JSON and CSV hold it: rounded, and None for NaN."""
    return None if np.isnan(value) else round(float(value), DECIMALS)
