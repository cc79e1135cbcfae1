"""How well a system draws: overlaps on slices, and volumes of scans beside the true ones, by type of hemorrhage.

Source: Chang et al. 2018, Statistical Analysis.
"""

import numpy as np
import pandas as pd

from pipeline.core.agreement import bland_altman, pearson_r
from pipeline.core.lesions import CLASSES

ALL = ""
"""The name of all types together."""
ANY = "any"
"""Their name in OVERLAPS."""
ABC2 = "abc2"


def overlap_figures(overlaps: pd.DataFrame, type_: str) -> dict[str, float]:
    """Return the mean Dice over slices that truly show a type, and of all types also a plain threshold's.

    overlaps: rows of OVERLAPS; type_: one of CLASSES, or ALL. Means are NaN without slices.
    """
    own = overlaps[overlaps["type"] == (type_ or ANY)]
    return {
        "slices": len(own),
        "dice": float(own["dice"].mean()),
        "threshold_dice": float(own["threshold_dice"].mean()),
    }


def scan_volumes_ml(measurements: pd.DataFrame, scans: np.ndarray, source: str, column: str) -> dict[str, np.ndarray]:
    """Return the volume in each scan, (scans,), by type and, under ALL, of all types; 0 where there is none.

    measurements: rows of MEASUREMENTS; scans: identifiers; source: `drawn` or `true`; column: `volume_ml` or `abc2_ml`.
    NaN where a lesion's volume is not known.
    """
    own = measurements[measurements["source"] == source]
    sums = own.groupby(["type", "scan_id"])[column].agg(lambda volumes: volumes.sum(skipna=False))
    of_types = {
        name: sums.reindex([(name, scan) for scan in scans], fill_value=0.0).to_numpy(np.float64) for name in CLASSES
    }
    return {ALL: np.sum(list(of_types.values()), axis=0), **of_types}


def volume_figures(measurements: pd.DataFrame, type_: str, rule: str = "") -> dict[str, float]:
    """Return how volumes of a type agree with the true ones, over the scans that truly hold it.

    measurements: rows of MEASUREMENTS; type_: one of CLASSES, or ALL; rule: empty for what is drawn, ABC2 for what that
    rule makes of the true masks. `volume_bias_percent` is the bias as a share of the mean true volume: a mean of scans'
    own shares would be the smallest ones'.
    """
    source, column = ("true", "abc2_ml") if rule == ABC2 else ("drawn", "volume_ml")
    scans = measurements.loc[measurements["source"] == "true", "scan_id"].unique()
    true = scan_volumes_ml(measurements, scans, "true", "volume_ml")[type_]
    measured = scan_volumes_ml(measurements, scans, source, column)[type_]
    held = (true > 0) & np.isfinite(measured)
    agreement = bland_altman(measured[held], true[held])
    return {
        "scans": int(held.sum()),
        "volume_r": pearson_r(measured[held], true[held]),
        "volume_bias_ml": agreement.bias,
        "volume_low_ml": agreement.low,
        "volume_high_ml": agreement.high,
        "volume_bias_percent": 100 * agreement.bias / float(true[held].mean()) if held.any() else float("nan"),
    }
