"""The variance of an ROC AUC without resampling, its interval, and the paired test of two AUCs on the same cases.

Sources: DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
characteristic curves. Biometrics 44:837-845, 1988. Sun and Xu, Fast implementation of DeLong's algorithm. IEEE Signal
Processing Letters 21:1389-1393, 2014: the same by midranks, in the time of a sorting.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from pipeline.core.intervals import Interval


@dataclass(frozen=True)
class PairedAucs:
    """The difference of two AUCs on the same cases, its interval, and the two-sided p value of there being none."""

    difference: Interval
    p_value: float


def roc_auc_interval(truth: np.ndarray, scores: np.ndarray, level: float) -> Interval:
    """Return the ROC AUC of scores and its DeLong interval, cut to [0, 1].

    truth: (cases,), 0 or 1; scores: (cases,), larger = more likely, ties count one half; level: such as 0.95.
    All NaN where one class is absent; limits NaN where a class has one case alone. Where the classes are fully apart
    the estimated variance is 0 and the limits are the area itself: then they say nothing of what other cases may show.
    Raises ValueError for scores that are not finite.
    """
    positive, negative = _wins(truth, scores)
    area = _area(positive, negative)
    margin = _margin(positive, negative, level)
    return Interval(area, float(np.maximum(area - margin, 0)), float(np.minimum(area + margin, 1)))


def compare_aucs(truth: np.ndarray, first: np.ndarray, second: np.ndarray, level: float) -> PairedAucs:
    """Return the AUC of the first scores minus the second's on the same cases, with DeLong's paired test.

    truth, first, second: (cases,); level: such as 0.95. All NaN where one class is absent; limits and p value NaN where
    a class has one case alone; the p value NaN where the difference has no variance (both orders are the same, or both
    perfect). Raises ValueError for scores that are not finite.
    """
    wins, others = _wins(truth, first), _wins(truth, second)
    positive, negative = (own - other for own, other in zip(wins, others, strict=True))
    area = _area(*wins) - _area(*others)
    margin = _margin(positive, negative, level)
    deviation = np.sqrt(_variance(positive, negative))
    p_value = 2 * norm.sf(abs(area) / deviation) if deviation > 0 else float("nan")
    return PairedAucs(Interval(area, area - margin, area + margin), float(p_value))


def _wins(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many negatives each positive exceeds, (positives,), and how many positives each negative lies below,
    (negatives,), ties counting one half: DeLong's structural components, not yet divided, so that they are exact.
    """
    truth, scores = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape:
        raise ValueError(f"truth has shape {truth.shape}, scores {scores.shape}; expected (cases,) twice")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, found {scores[~np.isfinite(scores)][0]}")
    # A case's midrank among all, less that among its own class, is the number of the other class below it.
    ranks = rankdata(scores)
    positive = ranks[truth] - rankdata(scores[truth])
    below = ranks[~truth] - rankdata(scores[~truth])
    return positive, truth.sum() - below


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
    pairs = len(positive) * len(negative)
    return float(positive.sum() / pairs) if pairs else float("nan")


def _variance(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return DeLong's variance of an area, or of a difference of two, from (differences of) wins; NaN below two cases
    of a class.
    """
    positives, negatives = len(positive), len(negative)
    if min(positives, negatives) < 2:
        return float("nan")
    of_positives = positive.var(ddof=1) / negatives**2
    of_negatives = negative.var(ddof=1) / positives**2
    return float(of_positives / positives + of_negatives / negatives)


def _margin(positive: np.ndarray, negative: np.ndarray, level: float) -> float:
    return float(norm.ppf((1 + level) / 2) * np.sqrt(_variance(positive, negative)))
