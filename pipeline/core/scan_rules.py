"""From slices to a scan, beside the maximum of `metrics.scan_scores`: a percentile, and a run of neighbouring slices.

Each rule gives a score, so that ROC curves can be drawn; a scan is positive where its score reaches the threshold.
"""

import numpy as np
import pandas as pd


def percentile_scores(scans: np.ndarray, values: np.ndarray, percentile: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the scans, sorted, and each scan's percentile over its slices, interpolated linearly.

    scans: (slices,), identifiers; values: (slices,), probabilities; percentile: 0 to 100, such as the 95th of
    Patel et al. 2019, section IV. Returns (scans,) twice.
    """
    scores = pd.Series(np.asarray(values, dtype=np.float64)).groupby(np.asarray(scans)).quantile(percentile / 100)
    return scores.index.to_numpy(), scores.to_numpy()


def consecutive_scores(
    scans: np.ndarray, positions: np.ndarray, values: np.ndarray, run: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scans, sorted, and the highest threshold that `run` consecutive slices of each reach.

    scans, positions: (slices,), a scan's slices in the order of their positions are neighbours, whatever lies between;
    values: (slices,), probabilities. So a scan's score is at least t where `run` or more consecutive slices have t or
    more: the rule of Grewal et al. 2018, section 2.3, with run 3. 0 for a scan of fewer slices. Returns (scans,) twice.
    """
    if run < 1:
        raise ValueError(f"a run of {run} slices: give at least 1")
    codes, names = pd.factorize(np.asarray(scans), sort=True)
    order = np.lexsort((positions, codes))
    codes, values = codes[order], np.asarray(values, dtype=np.float64)[order]
    scores = np.zeros(len(names))
    if len(codes) >= run:
        lowest = np.lib.stride_tricks.sliding_window_view(values, run).min(axis=1)
        first, last = codes[: len(codes) - run + 1], codes[run - 1 :]
        np.maximum.at(scores, first[first == last], lowest[first == last])
    return names, scores
