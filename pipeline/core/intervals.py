"""Confidence intervals by resampling patients: slices of one patient, and scans of one head, are not independent."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

CHUNK_RESAMPLES = 50
"""Resamples whose weights are held at once: 50 of 19,000 patients are 8 MB."""

Advance = Callable[[int], object]
"""Told of so many resamples that are done, for whoever shows progress."""


def no_progress(_done: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence limits."""

    estimate: float
    low: float
    high: float


def patient_sums(patients: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each patient's summed losses and number of slices, patients in sorted order.

    patients: (slices,), identifiers; losses: (slices, predictors). Returns (patients, predictors) and (patients,).
    A mean over the slices of any sample of patients follows from these alone.
    """
    codes, names = pd.factorize(np.asarray(patients), sort=True)
    sums = np.stack([np.bincount(codes, column, len(names)) for column in losses.T], axis=1)
    return sums, np.bincount(codes, minlength=len(names))


def bootstrap_means(
    sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int, advance: Advance = no_progress
) -> np.ndarray:
    """Return the mean loss over slices in each resample of the patients, (resamples, predictors).

    sums, counts: as `patient_sums` returns them. Each resample draws as many patients as there are, with replacement,
    and the same ones for every predictor, so that differences are paired. A patient's weight is the number of times
    it was drawn. Deterministic in `seed`.
    """
    if len(counts) == 0 or resamples < 1:
        raise ValueError(f"cannot resample {len(counts)} patients {resamples} times")
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, CHUNK_RESAMPLES):
        chunk = min(CHUNK_RESAMPLES, resamples - start)
        weights = np.stack([draw_weights(rng, len(counts)) for _ in range(chunk)])
        means[start : start + chunk] = (weights @ sums) / (weights @ counts)[:, None]
        advance(chunk)
    return means


def draw_weights(rng: np.random.Generator, patients: int) -> np.ndarray:
    """Return how often each patient is drawn in one resample, (patients,), as float64; the sum is `patients`."""
    return np.bincount(rng.integers(0, patients, patients), minlength=patients).astype(np.float64)


def intervals(
    patients: np.ndarray,
    losses: np.ndarray,
    pairs: list[tuple[int, int]],
    resamples: int,
    level: float,
    seed: int,
    advance: Advance = no_progress,
) -> tuple[list[Interval], list[Interval]]:
    """Return percentile intervals of predictors' mean losses and of the differences of pairs of them.

    patients: (slices,); losses: (slices, predictors) of the same slices; pairs: columns (i, j), whose difference is
    mean i - mean j; level: such as 0.95. Source: Efron and Tibshirani 1993, chapter 13 (the percentile interval).
    """
    sums, counts = patient_sums(patients, losses)
    means = bootstrap_means(sums, counts, resamples, seed, advance)
    estimates = sums.sum(axis=0) / counts.sum()
    own = [_percentiles(estimates[k], means[:, k], level) for k in range(losses.shape[1])]
    paired = [_percentiles(estimates[i] - estimates[j], means[:, i] - means[:, j], level) for i, j in pairs]
    return own, paired


def _percentiles(estimate: float, resampled: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(resampled, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(estimate), float(low), float(high))
