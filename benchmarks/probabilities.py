"""Whether a quicker way gives the probabilities of the slower one."""

import numpy as np
from scipy.stats import spearmanr

LEAST_SPEARMAN = 0.999


def check_probabilities(
    found: np.ndarray, expected: np.ndarray, tolerance: float, least_spearman: float = LEAST_SPEARMAN
) -> None:
    """Check probabilities (slices, labels) against those expected.

    Raises ValueError where one lies further away than `tolerance`, or where the slices' order by a label is less alike
    than `least_spearman` (Spearman's rank correlation).
    """
    worst = np.abs(found - expected).max()
    alike = min(spearmanr(found[:, label], expected[:, label]).statistic for label in range(expected.shape[1]))
    if not worst <= tolerance or not alike >= least_spearman:
        raise ValueError(
            f"probabilities differ by {worst:.2g}, may by {tolerance:g}; "
            f"their rank correlation is {alike:.5f}, to be at least {least_spearman:g}"
        )
