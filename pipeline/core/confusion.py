"""What follows from counting right and wrong calls: accuracy, sensitivity, specificity, PPV, NPV and F1."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pipeline.core.intervals import Interval


@dataclass(frozen=True)
class Confusion:
    """Counts of calls, right and wrong."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    def accuracy(self, level: float) -> Interval:
        """Return the share of right calls; NaN where there is none. Intervals: see `proportion`."""
        right = self.true_positives + self.true_negatives
        return proportion(right, right + self.false_positives + self.false_negatives, level)

    def sensitivity(self, level: float) -> Interval:
        """Return the share of positive cases that are called so (recall); NaN without positive cases."""
        return proportion(self.true_positives, self.true_positives + self.false_negatives, level)

    def specificity(self, level: float) -> Interval:
        """Return the share of negative cases that are called so; NaN without negative cases."""
        return proportion(self.true_negatives, self.true_negatives + self.false_positives, level)

    def ppv(self, level: float) -> Interval:
        """Return the share of positive calls that are right (precision); NaN without positive calls."""
        return proportion(self.true_positives, self.true_positives + self.false_positives, level)

    def npv(self, level: float) -> Interval:
        """Return the share of negative calls that are right; NaN without negative calls."""
        return proportion(self.true_negatives, self.true_negatives + self.false_negatives, level)

    def f1(self) -> float:
        """Return the harmonic mean of sensitivity and PPV; NaN where no case is positive and none is called so.

        It is no proportion of independent cases, and so has no Wilson interval.
        """
        doubled = 2 * self.true_positives
        total = doubled + self.false_positives + self.false_negatives
        return doubled / total if total else float("nan")


def count(truth: np.ndarray, calls: np.ndarray) -> Confusion:
    """Return the counts of binary calls against the truth, (cases,) each, boolean or 0 and 1.

    Raises ValueError where the shapes differ.
    """
    truth, calls = np.asarray(truth, dtype=bool), np.asarray(calls, dtype=bool)
    if truth.ndim != 1 or truth.shape != calls.shape:
        raise ValueError(f"truth has shape {truth.shape}, calls {calls.shape}; expected (cases,) twice")
    return Confusion(
        true_positives=int((truth & calls).sum()),
        false_positives=int((~truth & calls).sum()),
        false_negatives=int((truth & ~calls).sum()),
        true_negatives=int((~truth & ~calls).sum()),
    )


def proportion(hits: int, cases: int, level: float) -> Interval:
    """Return hits / cases and Wilson's score interval, all NaN where there are no cases; level: such as 0.95.

    Source: Wilson, Probable inference, the law of succession, and statistical inference. JASA 22:209-212, 1927. Cases
    count as independent: several scans of one patient are not quite so.
    """
    if cases == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = binomtest(hits, cases).proportion_ci(level, "wilson")
    return Interval(hits / cases, float(low), float(high))
