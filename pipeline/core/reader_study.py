"""Human readers and models on the same scans: what a scan holds and is said to hold, and all figures of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from pipeline.config import LABELS
from pipeline.core.agreement import cohen_kappa
from pipeline.core.confusion import count
from pipeline.core.delong import roc_auc_interval
from pipeline.core.intervals import Interval


@dataclass(frozen=True)
class ReaderRow:
    """What one reader or model comes to in one label; kind is `reader` or `model`, figures as `figures_of`."""

    label: str
    kind: str
    name: str
    figures: dict[str, Interval]


def scan_maxima(scans: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Return each scan's maximum over its slices of each label, (scans, labels), indexed by scan, in sorted order.

    scans: (slices,), identifiers; values: (slices, labels), truth or probabilities, NaN where a label is not given.
    """
    return pd.DataFrame(np.asarray(values, dtype=np.float64), columns=list(LABELS)).groupby(np.asarray(scans)).max()


def common_scans(readings: pd.DataFrame) -> list[str]:
    """Return the scans that every reader read, sorted.

    readings: a row a scan and reader, columns scan_id and reader.
    """
    readers = readings.groupby("scan_id")["reader"].nunique()
    return readers.index[readers == readings["reader"].nunique()].tolist()


def figures_of(truth: np.ndarray, scores: np.ndarray, threshold: float, level: float) -> dict[str, Interval]:
    """Return the figures of a reader or model for one label, each with its interval; NaN where undefined.

    truth: (scans,), 0 or 1; scores: (scans,), a reader's 0 or 1 or a model's probability, a call from `threshold` on;
    level: of the intervals, such as 0.95. The ROC AUC of a reader's calls is (sensitivity + specificity) / 2.
    """
    counts = count(truth, np.asarray(scores) >= threshold)
    return {
        "accuracy": counts.accuracy(level),
        "roc_auc": roc_auc_interval(truth, scores, level),
        "sensitivity": counts.sensitivity(level),
        "specificity": counts.specificity(level),
        "recall": counts.sensitivity(level),
        "precision": counts.ppv(level),
        "f1": Interval(counts.f1(), float("nan"), float("nan")),
    }


def reader_rows(
    truth: np.ndarray,
    readers: Mapping[str, np.ndarray],
    models: Mapping[str, np.ndarray],
    labels: Sequence[str],
    threshold: float,
    level: float,
) -> list[ReaderRow]:
    """Return a row for each label, and in it for each reader, then each model; others as `figures_of`.

    truth: (scans, labels); readers, models: the same by name. A model has no row for a label that it does not give,
    whose probabilities are NaN.
    """
    rows = []
    for label in labels:
        k = LABELS.index(label)
        for kind, said in (("reader", readers), ("model", models)):
            given = {name: values[:, k] for name, values in said.items() if not np.isnan(values[:, k]).any()}
            rows += [
                ReaderRow(label, kind, name, figures_of(truth[:, k], scores, threshold, level))
                for name, scores in given.items()
            ]
    return rows


def kappas(calls: Mapping[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """Return Cohen's kappa of each label, (labels,), for each pair of readers; NaN where both say but one thing.

    calls: by reader, (scans, labels), 0 or 1, of the same scans.
    """
    return {
        (first, second): np.array([cohen_kappa(*pair) for pair in zip(calls[first].T, calls[second].T, strict=True)])
        for first, second in combinations(calls, 2)
    }
