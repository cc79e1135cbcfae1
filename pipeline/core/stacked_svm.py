"""A linear support vector machine on all vectors of a scan side by side."""

from collections.abc import Sequence

import numpy as np
from sklearn.svm import SVC


def stack_padded(scans: Sequence[np.ndarray], slices: int) -> np.ndarray:
    """Return each scan's vectors as one row (scans, slices * features) float32, zeros at both ends of shorter scans.

    scans: (own slices, features) each. The zeros are shared evenly; an odd one stands at the end. Raises ValueError for
    a scan of more slices. Source: Patel et al. 2019, section IV-A.
    """
    stacked = np.zeros((len(scans), slices, scans[0].shape[1]), dtype=np.float32)
    for row, vectors in zip(stacked, scans, strict=True):
        if len(vectors) > slices:
            raise ValueError(f"a scan of {len(vectors)} slices does not fit into {slices}: give the longest scan's")
        start = (slices - len(vectors)) // 2
        row[start : start + len(vectors)] = vectors
    return stacked.reshape(len(scans), -1)


def svm_scan_scores(train: Sequence[np.ndarray], is_positive: np.ndarray, scans: Sequence[np.ndarray]) -> np.ndarray:
    """Return a score (scans,) for each of `scans`: the decision value of a linear SVM fitted to `train`.

    train, scans: vectors (own slices, features) of each scan; is_positive: (train scans,). All are padded to the
    longest of both. Decision values order scans as Platt's probabilities do, which the paper made of them: the same
    ROC curve. Raises ValueError where `is_positive` has one class alone.
    """
    is_positive = np.asarray(is_positive, dtype=bool)
    if is_positive.all() or not is_positive.any():
        raise ValueError(f"{is_positive.sum()} of {len(is_positive)} scans are positive: an SVM needs both classes")
    slices = max(map(len, [*train, *scans]))
    machine = SVC(kernel="linear", C=1.0)
    machine.fit(stack_padded(train, slices), is_positive)
    return machine.decision_function(stack_padded(scans, slices))
