"""Whether two agree: readers' calls by kappa, volumes by Pearson's r and by Bland and Altman's limits."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, pearsonr
from sklearn.metrics import cohen_kappa_score

LIMITS_LEVEL = 0.95
"""The share of differences that Bland and Altman's limits are to hold."""


@dataclass(frozen=True)
class Agreement:
    """The mean difference of two measurements, and the limits between which most differences lie."""

    bias: float
    low: float
    high: float


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Return how much more two readers' binary calls agree than by chance: 1 always, 0 as by chance.

    first, second: (cases,), 0 or 1. NaN where both say the same of all cases: then chance alone explains it.
    Source: Cohen, A coefficient of agreement for nominal scales. Educ Psychol Meas 20:37-46, 1960.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if len(np.unique(np.concatenate([first, second]))) < 2:
        return float("nan")
    return float(cohen_kappa_score(first, second))


def pearson_r(measured: np.ndarray, reference: np.ndarray) -> float:
    """Return Pearson's correlation of two series, (cases,) each; NaN below two cases, or where one never changes."""
    measured, reference = np.asarray(measured, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if len(measured) < 2 or np.ptp(measured) == 0 or np.ptp(reference) == 0:
        return float("nan")
    return float(pearsonr(measured, reference).statistic)


def bland_altman(measured: np.ndarray, reference: np.ndarray) -> Agreement:
    """Return the bias, mean of measured - reference, and the limits that hold 95 % of differences, in their unit.

    measured, reference: (cases,). The limits are the bias ± 1.96 standard deviations (n - 1); NaN below two cases, the
    bias without any. Source: Bland and Altman, Statistical methods for assessing agreement between two methods of
    clinical measurement. Lancet 327:307-310, 1986.
    """
    differences = np.asarray(measured, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    bias = float(differences.mean()) if len(differences) else float("nan")
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else float("nan")
    margin = float(norm.ppf((1 + LIMITS_LEVEL) / 2)) * deviation
    return Agreement(bias, bias - margin, bias + margin)
