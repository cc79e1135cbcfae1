"""An index like RSNA 2019's, of any size and without pixels: slices, labels, predictions. Equal seed, equal data."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import LABELS, P_LABELS

SCAN_SLICES = (20, 60)
"""Fewest and most slices of a scan."""

SCAN_SLICES_SD = 6.0
"""Spread of the number of slices, before the bounds."""

POSITIVE_SCANS = 0.4
"""Share of scans with at least one positive slice."""

POSITIVE_SD = 0.45
"""Spread of the length of the positive run, relative to its mean."""

SUBTYPE_SHARE = 0.6
"""Mean share of a positive run that a second subtype covers."""

SEPARATION = {"cnn": 2.6, "sequence": 3.2}
"""Distance in standard deviations between the evidence of positive and of negative slices, by stage."""

COMMON_EVIDENCE = 0.8
"""Share of the evidence's variance that all folds have in common: they saw mostly the same patients."""

SHARED_PATIENTS = 0.13
"""Share of the test part's patients who also have scans in the train part (285 of 2,144 in RSNA's headers)."""

REPEATED_SLICES = 4
"""Training slices whose six rows stand twice in the label CSV, as in Kaggle's."""


@dataclass(frozen=True)
class Part:
    """How much one part holds: slices, scans, patients, and positive slices of each label in label order."""

    slices: int
    scans: int
    patients: int
    positive: tuple[int, ...]


RSNA_TRAIN = Part(752_803, 21_744, 18_938, (3_145, 36_118, 26_205, 35_675, 47_166, 107_933))
"""Stage 2's training part."""

RSNA_TEST = Part(121_232, 3_528, 3_200, (506, 5_816, 4_220, 5_745, 7_596, 17_382))
"""Stage 2's test part; its patients are guessed and its labels at the training part's rates: they are not public."""


def scaled(part: Part, share: float) -> Part:
    """Return a part of a share of the size, as alike as whole numbers allow."""
    counts = {name: round(getattr(part, name) * share) for name in ("slices", "scans", "patients")}
    return replace(part, **counts, positive=tuple(round(count * share) for count in part.positive))


def make_slices(train: Part, test: Part, seed: int) -> pd.DataFrame:
    """Return one row a slice, in order of scan_id and position.

    Columns: slice_id, scan_id, study_id, patient_id, split, position, z_mm and the six labels (int8), of both parts.
    Totals of slices, scans, patients and positive slices are exact (a subtype of so few slices that it covers less than
    one or two scans may have some more); positive slices of a scan lie together.
    Raises ValueError for a part that cannot be had, such as scans that would be too long.
    """
    rng = np.random.default_rng(seed)
    shared = round(SHARED_PATIENTS * test.patients)
    patients = hex_ids(rng, train.patients + test.patients - shared, 8)
    parts = [("train", train, patients[: train.patients]), ("test", test, patients[train.patients - shared :])]
    slice_ids = iter(np.split(hex_ids(rng, train.slices + test.slices, 9), [train.slices]))
    scan_ids = iter(np.split(hex_ids(rng, train.scans + test.scans, 10), [train.scans]))
    study_ids = iter(np.split(hex_ids(rng, train.scans + test.scans, 10), [train.scans]))
    frames = []
    for split, part, names in parts:
        lengths = whole_numbers(
            rng.normal(part.slices / part.scans, SCAN_SLICES_SD, part.scans), part.slices, *SCAN_SLICES
        )
        scans = np.repeat(np.arange(part.scans), lengths)
        position = np.arange(part.slices) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        columns = {
            "slice_id": next(slice_ids),
            "scan_id": next(scan_ids)[scans],
            "study_id": next(study_ids)[scans],
            "patient_id": names[_patient_of_scan(rng, part)[scans]],
            "split": split,
            "position": position.astype(np.int32),
            "z_mm": 5.0 * position,
        }
        labels = _labels(rng, part, lengths)
        frames.append(pd.DataFrame({**columns, **dict(zip(LABELS, labels.T, strict=True))}))
    return pd.concat(frames).sort_values(["scan_id", "position"], ignore_index=True)


def hex_ids(rng: np.random.Generator, count: int, digits: int) -> np.ndarray:
    """Return different names like RSNA's, `ID_0a1b2c3d4`, (count,), in random order."""
    numbers = np.empty(0, dtype=np.int64)
    while len(numbers) < count:
        numbers = np.unique(np.concatenate([numbers, rng.integers(0, 16**digits, count)]))
    return np.array([f"ID_{number:0{digits}x}" for number in rng.permutation(numbers)[:count]], dtype=object)


def whole_numbers(wanted: np.ndarray, total: int, low: np.ndarray | int, high: np.ndarray | int) -> np.ndarray:
    """Return whole numbers near those wanted, (n,), each from `low` to `high`, that add up to `total` exactly.

    Raises ValueError where the bounds do not allow the total.
    """
    low, high = np.broadcast_to(low, wanted.shape), np.broadcast_to(high, wanted.shape)
    if not low.sum() <= total <= high.sum():
        raise ValueError(f"{len(wanted)} numbers from {low.sum()} to {high.sum()} in all cannot add up to {total}")
    numbers = np.clip(np.rint(wanted), low, high).astype(np.int64)
    while missing := total - numbers.sum():
        step = np.sign(missing)
        # The room left is in order of the fractions cut off, so that the result stays near what was wanted.
        free = np.flatnonzero(numbers < high if step > 0 else numbers > low)
        nearest = free[np.argsort(step * (numbers - wanted)[free], kind="stable")]
        numbers[nearest[: abs(missing)]] += step
    return numbers


def _patient_of_scan(rng: np.random.Generator, part: Part) -> np.ndarray:
    """Return the number of each scan's patient, (scans,): each has one scan, some have several."""
    proneness = rng.gamma(0.5, size=part.patients)
    again = rng.choice(part.patients, part.scans - part.patients, p=proneness / proneness.sum())
    return rng.permutation(np.concatenate([np.arange(part.patients), again]))


def _labels(rng: np.random.Generator, part: Part, lengths: np.ndarray) -> np.ndarray:
    """Return labels (slices, 6) with the part's numbers of positive slices; lengths: (scans,), slices of each.

    A positive scan has one run of positive slices. A first subtype covers all of it, and further ones a run inside.
    """
    *wanted, wanted_any = part.positive
    labels = np.zeros((lengths.sum(), len(LABELS)), dtype=np.int8)
    positive = np.sort(rng.choice(part.scans, round(POSITIVE_SCANS * part.scans), replace=False))
    mean = wanted_any / len(positive)
    lengths_any = whole_numbers(rng.normal(mean, POSITIVE_SD * mean, len(positive)), wanted_any, 1, lengths[positive])
    starts = (np.cumsum(lengths) - lengths)[positive] + rng.integers(0, lengths[positive] - lengths_any + 1)
    labels[_runs(starts, lengths_any), -1] = 1
    # Scans in random order are given to the subtypes stretch by stretch, each as many positive slices as its share.
    order = rng.permutation(len(positive))
    middles = np.cumsum(lengths_any[order]) - lengths_any[order] / 2
    first = np.empty_like(order)
    first[order] = np.searchsorted(np.cumsum(wanted[:-1]) / sum(wanted) * wanted_any, middles)
    for label, total in enumerate(wanted):
        own = first == label
        labels[_runs(starts[own], lengths_any[own]), label] = 1
        missing = total - lengths_any[own].sum()
        if missing <= 0:
            continue
        others = rng.permutation(np.flatnonzero(~own))
        enough = np.searchsorted(np.cumsum(lengths_any[others]) * SUBTYPE_SHARE, missing) + 1
        others = others[:enough]
        lengths_other = whole_numbers(lengths_any[others] * rng.uniform(2 * SUBTYPE_SHARE - 1, 1, len(others)),
                                      missing, 0, lengths_any[others])  # fmt: skip
        starts_other = starts[others] + rng.integers(0, lengths_any[others] - lengths_other + 1)
        labels[_runs(starts_other, lengths_other), label] = 1
    return labels


def _runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return all indices of runs, one run behind the other."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within


def predictions(slices: pd.DataFrame, fold_of: pd.Series, seed: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield each fold's number and its PREDICTIONS: its own training slices and all test slices, of both stages.

    slices: as `make_slices` returns them; fold_of: fold by patient_id.

    Each label's evidence is normal with unit variance, SEPARATION apart for positive and negative slices; what is
    predicted is the posterior given the prevalence: such predictors are calibrated, and their ROC AUC is known.
    """
    labels = slices[list(LABELS)].to_numpy(np.int8)
    rates = labels.mean(axis=0)
    rng = np.random.default_rng(seed)
    common = np.sqrt(COMMON_EVIDENCE) * rng.standard_normal(labels.shape)
    is_test = (slices["split"] == "test").to_numpy()
    folds = np.where(is_test, -1, slices["patient_id"].map(fold_of).fillna(-1).to_numpy())
    for fold in sorted(set(fold_of)):
        rows = np.flatnonzero(is_test | (folds == fold))
        own = np.sqrt(1 - COMMON_EVIDENCE) * rng.standard_normal((len(rows), len(LABELS)))
        table = slices.loc[rows, ["slice_id", "scan_id", "split"]]
        stages = []
        for stage, separation in SEPARATION.items():
            evidence = separation * (labels[rows] - 0.5) + common[rows] + own
            odds = np.exp(separation * evidence) * rates / (1 - rates)
            values = dict(zip(P_LABELS, (odds / (1 + odds)).T, strict=True))
            stages.append(table.assign(stage=stage, fold=fold, **values))
        yield int(fold), pd.concat(stages, ignore_index=True)


def long_form(slice_ids: np.ndarray, values: np.ndarray, repeated: int = 0) -> pa.Table:
    """Return the challenge's long form, `ID` and `Label`, six rows a slice.

    slice_ids: (slices,); values: (slices, labels); repeated: slices, evenly chosen, whose rows stand twice.
    """
    again = np.linspace(0, len(slice_ids) - 1, repeated).astype(np.int64)
    order = np.concatenate([np.arange(len(slice_ids)), again])
    # One string a row is made by Arrow, not by Python: there are millions.
    stems = pa.array(slice_ids, pa.string()).take(pa.array(np.repeat(order, len(LABELS))))
    labels = pa.array(LABELS).take(pa.array(np.tile(np.arange(len(LABELS)), len(order))))
    ids = pc.binary_join_element_wise(stems, labels, "_")
    return pa.table({"ID": ids, "Label": values[order].ravel()})


def prevalence_loss(labels: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted log loss of the constant that says each label's prevalence: the labels' entropies, in nats.

    labels: (slices, labels); weights: (labels,).
    """
    rates = labels.mean(axis=0, dtype=np.float64)
    entropies = -(rates * np.log(rates) + (1 - rates) * np.log(1 - rates))
    return float(np.average(entropies, weights=weights))
