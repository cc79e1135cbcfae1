"""Figures of merit of slices' probabilities: the challenge's log loss, ROC and PR AUC, and the scan's score."""

import numpy as np
import pandas as pd
from sklearn.metrics import auc, confusion_matrix_at_thresholds

from pipeline.config import LABELS, METRIC_WEIGHTS, SCORE_CLIP


def weighted_log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the challenge's metric: the labels' log losses weighted by METRIC_WEIGHTS, averaged over slices.

    truth and probabilities: (slices, labels), in label order. Raises ValueError for what `log_losses` refuses.
    Source: the RSNA 2019 challenge's evaluation; Burduja et al. 2020, section 3.2.
    """
    return float(slice_losses(truth, probabilities).mean())


def log_loss_per_label(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return each label's log loss, (labels,), averaged over slices; arguments as `log_losses`."""
    return log_losses(truth, probabilities).mean(axis=0)


def slice_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return each slice's weighted log loss, (slices,), whose mean is the metric; arguments as `log_losses`."""
    return weighted(log_losses(truth, probabilities))


def weighted(losses: np.ndarray) -> np.ndarray:
    """Return each slice's weighted log loss, (slices,), of its labels' losses (slices, labels)."""
    weights = np.asarray(METRIC_WEIGHTS)
    return losses @ (weights / weights.sum())


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the log loss of each slice and label, (slices, labels), in nats.

    truth: (slices, labels), 0 or 1; probabilities: the same shape, in [0, 1], clipped at SCORE_CLIP in float64 (in
    float32 1 - 1e-15 is 1, and its loss infinite). Raises ValueError for other shapes, no slices, labels other than
    0 and 1, and probabilities that are not finite or lie outside [0, 1].
    """
    truth, probabilities = _checked(truth, probabilities)
    clipped = np.clip(probabilities, SCORE_CLIP, 1 - SCORE_CLIP)
    return -np.log(np.where(truth, clipped, 1 - clipped))


def _checked(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth as booleans and probabilities as float64, both (slices, labels), or raise ValueError."""
    truth, probabilities = np.asarray(truth), np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 2 or truth.shape[1] != len(LABELS):
        raise ValueError(f"truth has shape {truth.shape}, expected (slices, {len(LABELS)})")
    if probabilities.shape != truth.shape:
        raise ValueError(f"probabilities have shape {probabilities.shape}, truth has {truth.shape}")
    if len(truth) == 0:
        raise ValueError("no slices to score")
    is_label = (truth == 0) | (truth == 1)
    if not is_label.all():
        raise ValueError(f"labels must be 0 or 1, found {truth[~is_label][0]}")
    if not np.isfinite(probabilities).all():
        raise ValueError(f"probabilities must be finite, found {probabilities[~np.isfinite(probabilities)][0]}")
    if probabilities.min() < 0 or probabilities.max() > 1:
        low, high = probabilities.min(), probabilities.max()
        raise ValueError(f"probabilities must lie in [0, 1], found {low:g} to {high:g}")
    return truth.astype(bool), probabilities


def auc_per_label(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each label's ROC AUC and PR AUC, (labels,) each; arguments as `log_losses`."""
    truth, probabilities = _checked(truth, probabilities)
    areas = [roc_and_pr_auc(truth[:, k], probabilities[:, k]) for k in range(len(LABELS))]
    return np.array([roc for roc, _ in areas]), np.array([pr for _, pr in areas])


def roc_and_pr_auc(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the area under the ROC curve and the average precision of one label's scores.

    truth: (cases,), 0 or 1; scores: (cases,), larger = more likely. NaN for both where one class is absent. Equal to
    scikit-learn's roc_auc_score and average_precision_score, from one sorting of the scores instead of two.
    """
    truth = np.asarray(truth, dtype=bool)
    if truth.all() or not truth.any():
        return float("nan"), float("nan")
    _, false_positives, _, true_positives, _ = confusion_matrix_at_thresholds(truth, scores)
    recall = np.r_[0, true_positives / true_positives[-1]]
    precision = true_positives / (true_positives + false_positives)
    roc = auc(np.r_[0, false_positives / false_positives[-1]], recall)
    return float(roc), float(np.diff(recall) @ precision)


def scan_scores(scans: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scans, sorted, and each scan's score: the maximum over its slices.

    scans: (slices,), identifiers; values: (slices,), a label's probabilities or truth. Returns (scans,) twice.
    """
    codes, names = pd.factorize(np.asarray(scans), sort=True)
    scores = np.full(len(names), -np.inf)
    np.maximum.at(scores, codes, np.asarray(values, dtype=np.float64))
    return names, scores


def scan_roc_auc(scans: np.ndarray, truth: np.ndarray, values: np.ndarray) -> float:
    """Return the ROC AUC of scans for one label, by the maximum over slices; NaN where one class is absent.

    scans, truth, values: (slices,).
    """
    return roc_and_pr_auc(scan_scores(scans, truth)[1] > 0, scan_scores(scans, values)[1])[0]
