"""Runs of neighbouring slices: which slices stand around each slice of a scan, and at which place it stands itself."""

import numpy as np


def centred_runs(slices: int, run: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the run of `run` neighbouring slices around each slice of a scan, and the slice's place in its run.

    At a scan's ends a run is shifted inwards; a scan that is shorter than a run repeats its end slices. Returns
    (slices, run), positions in the scan, ascending, and (slices,). A run of even length has one slice more before its
    own than behind it. Raises ValueError for a run of no slice.
    """
    if run < 1:
        raise ValueError(f"a run of {run} slices: give at least 1")
    own = np.arange(slices)
    missing = run - slices
    first = np.full(slices, -(missing // 2)) if missing > 0 else np.clip(own - run // 2, 0, -missing)
    return np.clip(first[:, None] + np.arange(run), 0, max(slices - 1, 0)), own - first
