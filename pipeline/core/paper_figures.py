"""The figures of papers' tables, by their names in `published.FigureTable`, from labels and scores of cases."""

import numpy as np

from pipeline.config import LABELS, SCORE_CLIP
from pipeline.core.confusion import count
from pipeline.core.delong import roc_auc_interval
from pipeline.core.metrics import roc_and_pr_auc

THRESHOLD = 0.5
"""From which a score counts as a call; the papers name none."""
LEVEL = 0.95
"""Of the intervals, as in the papers that give some."""


def case_figures(truth: np.ndarray, scores: np.ndarray, threshold: float = THRESHOLD) -> dict[str, float]:
    """Return all figures of one label of cases, slices or scans; NaN where undefined.

    truth: (cases,), 0 or 1; scores: (cases,), in [0, 1], a call from `threshold` on.
    """
    truth, scores = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=np.float64)
    counts = count(truth, scores >= threshold)
    roc, pr = roc_and_pr_auc(truth, scores)
    clipped = np.clip(np.where(truth, scores, 1 - scores), SCORE_CLIP, 1)
    sensitivity, ppv = counts.sensitivity(LEVEL).estimate, counts.ppv(LEVEL).estimate
    of_roc = roc_auc_interval(truth, scores, LEVEL)
    return {
        "accuracy": counts.accuracy(LEVEL).estimate,
        "sensitivity": sensitivity,
        "recall": sensitivity,
        "specificity": counts.specificity(LEVEL).estimate,
        "ppv": ppv,
        "precision": ppv,
        "npv": counts.npv(LEVEL).estimate,
        "f1": counts.f1(),
        "roc_auc": roc,
        "roc_auc_low": of_roc.low,
        "roc_auc_high": of_roc.high,
        "pr_auc": pr,
        "log_loss": float(-np.log(clipped).mean()),
    }


def label_figures(truth: np.ndarray, scores: np.ndarray, subset: str) -> dict[str, float]:
    """Return the figures of the label that `subset` names, or of the empty one the plain mean of all labels'.

    truth, scores: (cases, labels), in label order. Labels that the predictor does not speak of (NaN) have no figures;
    a mean over labels needs all of them. Raises ValueError for a subset that is no label.
    """
    if subset and subset not in LABELS:
        raise ValueError(f"subset {subset!r}: choose one of {', '.join(LABELS)}, or none")
    columns = [LABELS.index(subset)] if subset else range(len(LABELS))
    if np.isnan(scores[:, columns]).any():
        return {}
    found = [case_figures(truth[:, k], scores[:, k]) for k in columns]
    return {name: float(np.mean([figures[name] for figures in found])) for name in found[0]}
