"""Our figures of a row of a paper's table, from what a run says and what is true."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.config import LABELS
from pipeline.core.delong import compare_aucs
from pipeline.core.drawing_figures import ALL, overlap_figures, scan_volumes_ml, volume_figures
from pipeline.core.operating_point import threshold_at_sensitivity
from pipeline.core.paper_figures import LEVEL, THRESHOLD, case_figures, label_figures
from pipeline.core.predictions import Rows
from pipeline.core.reader_study import scan_maxima
from pipeline.core.scan_predictions import ScanScores
from pipeline.core.strata import TYPES, subset_of, subset_rows
from pipeline.published import FigureRow


@dataclass(frozen=True)
class Drawn:
    """What a run draws of the train part, out of fold."""

    overlaps: pd.DataFrame
    """Rows of OVERLAPS."""
    measurements: pd.DataFrame
    """Rows of MEASUREMENTS."""


@dataclass(frozen=True)
class Said:
    """What a run says of the train part, out of fold, beside the truth."""

    rows: Rows
    truth: np.ndarray
    """(slices, labels)"""
    scans: ScanScores
    """What it says of scans by itself, or by a rule."""
    last_stage: str
    """Whose word counts where a row names no stage."""
    seed: int
    """Draws balanced sets."""
    drawn: Drawn | None = None


def row_figures(unit: str, row: FigureRow, said: Said) -> dict[str, float]:
    """Return our figures of a row by name, none where the run does not say such a thing.

    unit: `slice`, `scan` or `lesion`. Raises ValueError for a subset that the unit does not have.
    """
    if unit == "lesion":
        return _of_drawings(row, said)
    stage = row.stage or said.last_stage
    if unit == "slice":
        found = said.rows.predictors.get(stage)
        return {} if found is None else label_figures(said.truth, found, row.subset)
    truth = scan_maxima(said.rows.scan_ids, said.truth)
    scores = scan_scores(said, stage)
    if scores is None:
        return {}
    if row.subset in LABELS:
        return label_figures(truth.to_numpy(), scores.loc[truth.index].to_numpy(), row.subset)
    kept = _subset(row.subset, truth, said)
    if kept is None:
        return {}
    own = truth.iloc[kept]
    is_positive, score = own[LABELS[-1]].to_numpy(bool), scores.loc[own.index, LABELS[-1]].to_numpy()
    threshold = threshold_at_sensitivity(is_positive, score, row.sensitivity) if row.sensitivity else THRESHOLD
    found = case_figures(is_positive, score, threshold)
    other = scan_scores(said, row.against) if row.against else None
    if other is not None:
        beside = other.loc[own.index, LABELS[-1]].to_numpy()
        found["p_value"] = compare_aucs(is_positive, score, beside, LEVEL).p_value
    return found


def scan_scores(said: Said, stage: str) -> pd.DataFrame | None:
    """Return what a predictor says of scans, (scans, labels), indexed by scan; None where there is none of that name.

    Of a predictor of slices that is the highest slice's. NaN for labels that it does not speak of.
    """
    if stage in said.scans:
        scans, scores = said.scans[stage]
        return pd.DataFrame({LABELS[-1]: scores}, index=scans).reindex(columns=list(LABELS))
    found = said.rows.predictors.get(stage)
    return None if found is None else scan_maxima(said.rows.scan_ids, found)


def _subset(text: str, truth: pd.DataFrame, said: Said) -> np.ndarray | None:
    """Return the rows of `truth` that a subset holds; None where sizes are asked for and nothing is drawn."""
    subset = subset_of(text)
    if subset.size and said.drawn is None:
        return None
    volumes = {} if said.drawn is None else _true_volumes_ml(truth, said.drawn)
    return subset_rows(subset, truth.to_numpy(), volumes, said.seed)


def _true_volumes_ml(truth: pd.DataFrame, drawn: Drawn) -> dict[str, np.ndarray]:
    """Return true volumes, (scans,), by type and of all types; NaN where hemorrhage was not drawn by hand."""
    drawn_by_hand = drawn.measurements.loc[drawn.measurements["source"] == "true", "scan_id"]
    unknown = (truth[LABELS[-1]] != 0).to_numpy() & ~truth.index.isin(drawn_by_hand)
    volumes = scan_volumes_ml(drawn.measurements, truth.index.to_numpy(), "true", "volume_ml")
    return {name: np.where(unknown, np.nan, own) for name, own in volumes.items()}


def _of_drawings(row: FigureRow, said: Said) -> dict[str, float]:
    if said.drawn is None:
        return {}
    if row.subset not in ("", *TYPES):
        raise ValueError(f"subset {row.subset!r} of lesions: choose one of {', '.join(TYPES)}, or none")
    volumes = volume_figures(said.drawn.measurements, row.subset or ALL, row.stage)
    return volumes if row.stage else overlap_figures(said.drawn.overlaps, row.subset or ALL) | volumes
