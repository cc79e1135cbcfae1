"""Patients divided into folds: no patient in two, and each fold alike in all six labels at once."""

import numpy as np
import pandas as pd

from pipeline.config import LABELS

HOLDOUT = ("train", "val", "test")
"""The parts of the holdout column, in the order of `split.holdout`."""

TOLERANCE_SHARE = 0.03
"""How far a fold's number of slices, or of slices of a label, may lie from its share, relative to that share."""

REFINEMENTS = 5
"""Rounds of moving single patients, and of swapping pairs; in practice the first two do nearly all."""

SWAP_PATIENTS = 1000
"""With more patients than that, moving single ones is fine enough, and trying all pairs slow."""


def patient_table(slices: pd.DataFrame) -> pd.DataFrame:
    """Return what each patient brings, one row a patient, sorted by patient_id (the index).

    slices: one row a slice with patient_id, scan_id and the six labels (0 or 1), in any order.
    Columns: `slices`, `scans`, then for each label `slices_<label>` and `scans_<label>`, the positive ones.
    """
    labels = list(LABELS)
    truth = slices[["patient_id", "scan_id", *labels]].astype({label: np.int64 for label in labels})
    scans = truth.groupby(["patient_id", "scan_id"], sort=True)[labels].agg(["sum", "max"])
    scans.columns = [f"{'slices' if how == 'sum' else 'scans'}_{label}" for label, how in scans.columns]
    scans["slices"] = truth.groupby(["patient_id", "scan_id"], sort=True).size()
    scans["scans"] = 1
    order = ["slices", "scans", *(f"{what}_{label}" for label in labels for what in ("slices", "scans"))]
    return scans.groupby(level="patient_id", sort=True)[order].sum()


def divide(patients: pd.DataFrame, shares: tuple[float, ...], seed: int) -> np.ndarray:
    """Return each patient's part, (patients,), numbered as `shares`; deterministic in `seed`.

    patients: as `patient_table` returns it; shares: of the whole, one a part, summing to 1.

    The parts are to hold their shares of slices, scans and patients, in all and of each label. Greedy, after the
    idea of Sechidis et al. 2011 (iterative stratification), which takes the rarest labels first: patients come in
    the order of the largest share of any label that they bring, and each goes where the squared distance from the
    wanted shares grows least; then single patients move while that brings the distance down. Distances count in
    shares of each quantity's total, so that a rare label weighs as much as a common one.
    """
    shares_column = np.asarray(shares, dtype=np.float64)[:, None]
    brings = _shares_of_totals(patients)
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    order = shuffled[np.argsort(-brings[shuffled].max(axis=1), kind="stable")]
    excess = np.repeat(-shares_column, brings.shape[1], axis=1)  # (parts, quantities): held minus wanted
    parts = np.empty(len(patients), dtype=np.int64)
    for patient in order:
        growth = ((2 * excess + brings[patient]) * brings[patient] / shares_column).sum(axis=1)
        parts[patient] = growth.argmin()
        excess[parts[patient]] += brings[patient]
    for _ in range(REFINEMENTS):
        moves = _move_patients(order, brings, shares_column, parts, excess)
        if len(patients) <= SWAP_PATIENTS:
            moves += _swap_patients(order, brings, shares_column, parts, excess)
        if not moves:
            break
    return parts


def _shares_of_totals(patients: pd.DataFrame) -> np.ndarray:
    """Return the share of each total that each patient brings, (patients, quantities), of totals that are not 0."""
    carriers = {f"patients_{label}": patients[f"slices_{label}"] > 0 for label in LABELS}
    quantities = patients.assign(patients=1, **carriers).to_numpy(np.float64)
    totals = quantities.sum(axis=0)
    return quantities[:, totals > 0] / totals[totals > 0]


def _move_patients(
    order: np.ndarray, brings: np.ndarray, shares: np.ndarray, parts: np.ndarray, excess: np.ndarray
) -> int:
    """Move each patient to the part where the distance is least, changing `parts` and `excess`; return the moves."""
    moves = 0
    for patient in order:
        own = parts[patient]
        excess[own] -= brings[patient]
        growth = ((2 * excess + brings[patient]) * brings[patient] / shares).sum(axis=1)
        # An equal place is no better: without the margin, rounding could move patients round in a circle.
        if growth.min() < growth[own] - 1e-15:
            parts[patient] = growth.argmin()
            moves += 1
        excess[parts[patient]] += brings[patient]
    return moves


def _swap_patients(
    order: np.ndarray, brings: np.ndarray, shares: np.ndarray, parts: np.ndarray, excess: np.ndarray
) -> int:
    """Exchange each patient for the one of another part where that helps most; return how often."""
    swaps = 0
    for patient in order:
        own = parts[patient]
        gains = brings - brings[patient]  # (patients, quantities): what the own part gains, and the other one loses
        growth = ((2 * excess[own] + gains) * gains / shares[own]).sum(axis=1)
        growth += ((gains - 2 * excess[parts]) * gains / shares[parts]).sum(axis=1)
        growth[parts == own] = 0
        other = growth.argmin()
        if growth[other] < -1e-15:
            excess[own] += gains[other]
            excess[parts[other]] -= gains[other]
            parts[patient], parts[other] = parts[other], own
            swaps += 1
    return swaps


def label_rates(patients: pd.DataFrame, parts: np.ndarray) -> pd.DataFrame:
    """Return what each part holds: patients, scans, slices, and the share of positive slices of each label.

    patients: as `patient_table` returns it; parts: (patients,). One row a part, the last one `all`.
    """
    counted = patients.assign(patients=1)
    held = counted.groupby(np.asarray(parts), sort=True).sum()
    held.loc["all"] = counted.sum()
    rates = held[["patients", "scans", "slices"]].astype(np.int64)
    return rates.assign(**{label: held[f"slices_{label}"] / held["slices"] for label in LABELS})


def check_stratified(patients: pd.DataFrame, parts: np.ndarray, shares: tuple[float, ...]) -> None:
    """Check that each part holds its share of the slices, in all and of each label.

    patients: as `patient_table` returns it; parts: (patients,), numbered as `shares`. A part may be off its share by
    TOLERANCE_SHARE of it, or, where patients are few, by the most that a single patient brings: whole patients
    cannot be divided finer than that. Raises ValueError with the part, the label, and the rates.
    """
    slices = patients["slices"].to_numpy(np.float64)
    for what, column in (*((label, f"slices_{label}") for label in LABELS), ("all labels", "slices")):
        brings = patients[column].to_numpy(np.float64)
        held = np.bincount(parts, brings, len(shares))
        wanted = np.asarray(shares) * brings.sum()
        allowed = np.maximum(TOLERANCE_SHARE * wanted, brings.max())
        off = np.flatnonzero(np.abs(held - wanted) > allowed)
        if len(off):
            part = off[0]
            rate = held[part] / max(slices[parts == part].sum(), 1)
            raise ValueError(
                f"part {part} holds {held[part]:.0f} of {brings.sum():.0f} slices of {what}, wanted {wanted[part]:.1f} "
                f"± {allowed[part]:.1f}: a rate of {rate:.5f}, where the whole has {brings.sum() / slices.sum():.5f}"
            )


def check_disjoint(slices_patient: np.ndarray, slices_part: np.ndarray) -> None:
    """Check that no patient's slices lie in two parts; raises ValueError with the patient and the parts.

    slices_patient, slices_part: (slices,).
    """
    pairs = pd.DataFrame({"patient": slices_patient, "part": slices_part}).drop_duplicates()
    repeated = pairs[pairs["patient"].duplicated(keep=False)]
    if len(repeated):
        name = repeated["patient"].iloc[0]
        parts = sorted(repeated.loc[repeated["patient"] == name, "part"])
        raise ValueError(f"patient {name} is in parts {', '.join(map(str, parts))}")
