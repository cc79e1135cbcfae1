"""What detections say of slices and scans: which pixels are drawn, and how sure of hemorrhage the whole is."""

import numpy as np
import pandas as pd

from pipeline.core.lesions import CLASSES
from pipeline.core.run_lengths import text_mask


def drawn_masks(detections: pd.DataFrame, slice_ids: list[str], size_px: int, least_score: float) -> np.ndarray:
    """Return which pixels are drawn as each class, boolean (classes, slices, y, x), in the order of slice_ids.

    detections: rows of DETECTIONS (slice_id, type, score, mask); those that score less than `least_score`, and those of
    other slices, are left out. Where masks lie over one another, a pixel belongs to each.
    """
    places = {slice_id: place for place, slice_id in enumerate(slice_ids)}
    masks = np.zeros((len(CLASSES), len(slice_ids), size_px, size_px), dtype=bool)
    drawn = detections[(detections["score"] >= least_score) & detections["slice_id"].isin(places)]
    for slice_id, name, text in zip(drawn["slice_id"], drawn["type"], drawn["mask"], strict=True):
        masks[CLASSES.index(name), places[slice_id]] |= text_mask(text, (size_px, size_px))
    return masks


def highest_scores(detections: pd.DataFrame, ids: pd.Series, of: str = "scan_id") -> np.ndarray:
    """Return the score (ids,) of the most certain detection in each scan or slice, 0 where there is none.

    detections: rows of DETECTIONS; ids: values of their column `of`. A scan is positive "if any single region-proposal
    prediction on any given slice was determined to contain hemorrhage": where this score reaches a threshold. Source:
    Chang et al. 2018, Statistical Analysis.
    """
    return ids.map(detections.groupby(of)["score"].max()).fillna(0.0).to_numpy(dtype=np.float64)
