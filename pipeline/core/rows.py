"""Joining the tables that a training stage reads into one row a slice."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from pipeline.config import LABELS, UserError

HOLDOUT_NUMBERS = {"test": 0, "val": 1, "train": 2}
"""The parts of the holdout division as folds: what is predicted is the fold of the one model, 0."""


def patient_folds(folds: pd.DataFrame, split_kind: str) -> pd.Series:
    """Return each patient's fold, indexed by patient_id; of the holdout division, HOLDOUT_NUMBERS.

    folds: FOLDS; split_kind: `folds` or `holdout`.
    """
    by_patient = folds.set_index("patient_id")
    return by_patient["fold"] if split_kind == "folds" else by_patient["holdout"].map(HOLDOUT_NUMBERS).astype(np.int8)


def cached_slices(
    slices: pd.DataFrame, images: pd.DataFrame, folds: pd.DataFrame, split_kind: str = "folds"
) -> pd.DataFrame:
    """Return the SLICES rows that have a cached image, in their order, with columns `png`, `mask` and `fold`.

    `mask` is the path of the cached mask or null, where IMAGES has that column; the source's mask, which SLICES knows,
    has another geometry and is left out.
    `fold` is the patient's, as `patient_folds` has it, for training slices and null for test slices, also where a
    patient is in both parts.
    """
    cached = images[["slice_id", "path", *images.columns.intersection(["mask"])]].rename(columns={"path": "png"})
    rows = slices.drop(columns="mask", errors="ignore").merge(cached, on="slice_id", how="inner")
    rows["fold"] = rows["patient_id"].map(patient_folds(folds, split_kind)).where(rows["split"] == "train")
    return rows


def training_rows(fold_column: pd.Series, fold: int, split_kind: str = "folds") -> tuple[np.ndarray, np.ndarray]:
    """Return two masks over rows: the ones that fold `fold` trains on, and the ones it is validated on.

    Of folds, validation rows are those that will be predicted; of the holdout division, they are its part `val`. Rows
    without a fold (test slices) are in neither. Raises UserError where either part is empty.
    """
    known = fold_column.notna().to_numpy()
    numbers = fold_column.fillna(-1).to_numpy(dtype=np.int64)
    if split_kind == "holdout":
        train, validation = (numbers == HOLDOUT_NUMBERS[part] for part in ("train", "val"))
    else:
        train, validation = known & (numbers != fold), known & (numbers == fold)
    if not train.any() or not validation.any():
        present = sorted(set(numbers[known].tolist()))
        raise UserError(
            f"fold {fold}: {train.sum()} rows to train on and {validation.sum()} to validate on; folds are {present}"
        )
    return train, validation


def label_matrix(rows: pd.DataFrame) -> np.ndarray:
    """Return the labels (slices, 6) as float32, in label order."""
    return rows[list(LABELS)].to_numpy(dtype=np.float32)


def scan_bounds(scan_ids: np.ndarray) -> np.ndarray:
    """Return where each scan begins, and the end: (scans + 1,) indices into rows that lie together scan by scan."""
    if len(scan_ids) == 0:
        return np.zeros(1, dtype=np.int64)
    changes = np.flatnonzero(scan_ids[1:] != scan_ids[:-1]) + 1
    return np.concatenate([[0], changes, [len(scan_ids)]])


def whole_scans(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield all rows again, in frames of about the same size that hold whole scans.

    frames: rows in ascending order of their column scan_id, which may change in the midst of a frame. Raises ValueError
    for another order.
    """
    rest, before = None, ""
    for frame in frames:
        rows = frame if rest is None else pd.concat([rest, frame], ignore_index=True)
        bounds = scan_bounds(rows["scan_id"].to_numpy())
        for scan in rows["scan_id"].iloc[bounds[0 if rest is None else 1 : -1]]:
            if scan <= before:
                raise ValueError(f"scans are not in order: {scan} behind {before}")
            before = scan
        if bounds[-2]:
            yield rows.iloc[: bounds[-2]]
        rest = rows.iloc[bounds[-2] :]
    if rest is not None:
        yield rest
