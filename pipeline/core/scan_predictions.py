"""What systems say of whole scans: from slices by a rule, and of several folds put together."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.config import P_LABELS
from pipeline.core.ensemble import mean_over_folds

P_ANY = P_LABELS[-1]

ScanScores = dict[str, tuple[np.ndarray, np.ndarray]]
"""By predictor: the scans, and the score of each, (scans,) twice."""


def scan_table(scores: ScanScores, split_of: Mapping[str, str], fold: int) -> pd.DataFrame:
    """Return SCAN_PREDICTIONS of a fold: p_any alone; split_of: `train` or `test` by scan."""
    parts = [
        pd.DataFrame({"scan_id": scans, "stage": stage, P_ANY: values, "split": [split_of[scan] for scan in scans]})
        for stage, (scans, values) in scores.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(fold=fold, **dict.fromkeys(P_LABELS[:-1], np.nan))


def out_of_fold_scans(predictions: Mapping[int, pd.DataFrame]) -> ScanScores:
    """Return the scores of training scans, each by the fold that did not train on it; predictions by fold.

    Raises ValueError where two folds speak of one scan.
    """
    own = pd.concat([table[table["split"] == "train"] for table in predictions.values()], ignore_index=True)
    repeated = own.duplicated(["scan_id", "stage"])
    if repeated.any():
        raise ValueError(f"{repeated.sum()} scans are out of fold twice, such as {own['scan_id'][repeated].iloc[0]}")
    return {
        stage: (rows["scan_id"].to_numpy(object), rows[P_ANY].to_numpy(np.float64))
        for stage, rows in own.groupby("stage", sort=False)
    }


def scans_of_test(predictions: Sequence[pd.DataFrame]) -> ScanScores:
    """Return the mean over folds of the scores of test scans; predictions: SCAN_PREDICTIONS, one a fold."""
    tables = [table[table["split"] == "test"] for table in predictions]
    found = {}
    for stage in tables[0]["stage"].unique():
        rows = [table[table["stage"] == stage] for table in tables]
        scans = [own["scan_id"].to_numpy(object) for own in rows]
        found[stage] = (scans[0], mean_over_folds(scans, [own[[P_ANY]].to_numpy(np.float64) for own in rows])[:, 0])
    return found
