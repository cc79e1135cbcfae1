"""Probabilities put together: folds into one prediction, neighbours into a slice that could not be read."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def mean_over_folds(slice_ids: Sequence[np.ndarray], probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over folds of each slice's probabilities, (slices, labels), in the first fold's order.

    slice_ids: (slices,) a fold, the same slices in any order; probabilities: (slices, labels) a fold.
    Raises ValueError where a fold repeats a slice or has others than the first.
    """
    index = pd.Index(slice_ids[0])
    total = np.zeros((len(index), probabilities[0].shape[1]))
    for number, (ids, values) in enumerate(zip(slice_ids, probabilities, strict=True)):
        if number and np.array_equal(ids, slice_ids[0]):
            total += values
            continue
        own = pd.Index(ids)
        if not own.is_unique:
            raise ValueError(f"prediction {number} repeats slice {own[own.duplicated()][0]}")
        odd = own.symmetric_difference(index)
        if len(odd):
            raise ValueError(f"prediction {number} has other slices than prediction 0, such as {', '.join(odd[:3])}")
        total += np.asarray(values, dtype=np.float64)[own.get_indexer(index)]
    return total / len(slice_ids)


def fill_from_neighbours(z_mm: np.ndarray, probabilities: np.ndarray, wanted_z_mm: np.ndarray) -> np.ndarray:
    """Return probabilities at places of one scan whose slices could not be read, from its readable slices.

    Linear in z between the nearest readable slices below and above; beyond the first or the last one, that one's.

    z_mm: (slices,), along the scan's normal, in any order; where places repeat, their mean counts.
    probabilities: (slices, labels); wanted_z_mm: (wanted,). Returns (wanted, labels).
    Raises ValueError for a scan without readable slices: the caller has the training prevalence for that.
    """
    if len(z_mm) == 0:
        raise ValueError("no readable slice to fill from")
    places, codes, counts = np.unique(z_mm, return_inverse=True, return_counts=True)
    columns = [np.bincount(codes, column) / counts for column in np.asarray(probabilities, dtype=np.float64).T]
    return np.stack([np.interp(wanted_z_mm, places, column) for column in columns], axis=1)
