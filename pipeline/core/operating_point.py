"""Where to draw the line between positive and negative scans."""

import numpy as np


def threshold_at_sensitivity(truth: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold at which at least this share of positive cases has a score that reaches it.

    truth: (cases,), 0 or 1; scores: (cases,), a case is called positive where its score is the threshold or more.
    NaN without positive cases. Raises ValueError for a sensitivity that is not above 0 and at most 1.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity {sensitivity}: give a share above 0, at most 1")
    falling = np.sort(np.asarray(scores, dtype=np.float64)[np.asarray(truth, dtype=bool)])[::-1]
    if len(falling) == 0:
        return float("nan")
    found = np.arange(1, len(falling) + 1) / len(falling)
    return float(falling[np.argmax(found >= sensitivity)])
