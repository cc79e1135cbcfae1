"""All figures of several predictors on the same slices, with intervals: what the leaderboard's rows are made of."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import LABELS, Predict
from pipeline.core.delong import roc_auc_interval
from pipeline.core.intervals import Advance, Interval, intervals, no_progress
from pipeline.core.metrics import auc_per_label, log_losses, scan_roc_auc, weighted
from pipeline.core.scan_predictions import ScanScores

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
    a predictor does not speak of; pairs: (name, name), the difference is first minus second, left out where one of them
    does not speak of all labels; patients: (slices,), the unit of resampling; scans: (slices,), the empty string
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
    pairs = [pair for pair in pairs if set(pair) <= set(names)]
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


def evaluate_scans(
    truth: tuple[np.ndarray, np.ndarray], scores: ScanScores, level: float
) -> dict[str, tuple[int, Interval]]:
    """Return by predictor the number of scans, and their ROC AUC of `any` with DeLong's interval.

    truth: the scans and their labels, (scans,) twice; scores: scans of truth, in any order; level: such as 0.95.
    Raises ValueError for a scan that truth does not have.
    """
    labels = pd.Series(truth[1], index=truth[0])
    found = {}
    for name, (scans, values) in scores.items():
        unknown = [scan for scan in scans if scan not in labels.index]
        if unknown:
            raise ValueError(f"{name} speaks of {len(unknown)} scans without labels, such as {unknown[0]}")
        found[name] = len(scans), roc_auc_interval(labels[scans].to_numpy() > 0, values, level)
    return found


def scan_figures(scans: int, area: Interval) -> dict[str, Any]:
    """Return the figures of a predictor of scans, under the names that `evaluate` gives those of slices."""
    unsaid = np.full(len(LABELS), np.nan)
    labels = _by_label("log_loss", unsaid) | _by_label("roc_auc", unsaid) | _by_label("pr_auc", unsaid)
    losses = dict.fromkeys(("weighted_log_loss", "weighted_log_loss_low", "weighted_log_loss_high"))
    return {"slices": None, "scans": scans, **losses, **labels, "scan_roc_auc_any": _plain(area.estimate)}


def plain_interval(interval: Interval) -> dict[str, float | None]:
    """Return an interval as JSON holds it."""
    return {"estimate": _plain(interval.estimate), "low": _plain(interval.low), "high": _plain(interval.high)}


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
