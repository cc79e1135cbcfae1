"""Measuring what is drawn and what is true, scan by scan: volumes, ABC/2, overlaps, and a plain threshold's."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.config import Settings
from pipeline.core.drawings import drawn_masks
from pipeline.core.lesion_size import volume_ml
from pipeline.core.lesions import CLASSES, cached_pixel_mm, class_masks, scan_lesions
from pipeline.core.overlap import dice
from pipeline.core.plain_threshold import threshold_mask
from pipeline.learn.hu_images import read_hu, read_mask
from pipeline.shell.progress import tracked

MEASURED = ["scan_id", "source", "type", "lesion", "volume_ml", "abc2_ml"]
SCAN_OVERLAPS = ["scan_id", "type", "dice", "drawn_ml", "true_ml"]
SLICE_OVERLAPS = ["slice_id", "scan_id", "type", "dice", "threshold_dice"]

ANY = "any"


class DrawnScan(NamedTuple):
    """A scan as it was drawn and, where that is known, as it is."""

    scan_id: str
    rows: pd.DataFrame
    """Its slices in anatomical order."""
    drawn: np.ndarray
    """(classes, slices, y, x), boolean."""
    true: np.ndarray | None
    row_mm: float
    column_mm: float
    z_mm: np.ndarray

    def volumes_ml(self, masks: np.ndarray) -> list[float]:
        """Return the volume of each class."""
        return [volume_ml(mask, self.row_mm, self.column_mm, self.z_mm) for mask in masks]


def drawn_scans(rows: pd.DataFrame, detections: pd.DataFrame, settings: Settings) -> Iterator[DrawnScan]:
    """Yield scans, one at a time: a data set's masks do not fit into memory.

    rows: one a slice, whole scans in anatomical order: slice_id, scan_id, png, mask (a cached mask's path or null),
    any, z_mm, rows, columns, row_mm, column_mm; detections: rows of DETECTIONS. The truth of a scan is known where each
    of its slices has a mask or shows no hemorrhage. Pixels have the size of the scan's first slice's.
    """
    by_scan = dict(list(detections.groupby("scan_id")))
    none = detections.iloc[:0]
    for scan_id, own in tracked(rows.groupby("scan_id", sort=False), "scans"):
        size = settings.view.size
        drawn = drawn_masks(by_scan.get(scan_id, none), own["slice_id"].tolist(), size, settings.boxes.drawn_score)
        geometry = own.iloc[0][["rows", "columns", "row_mm", "column_mm"]]
        pixel_mm = cached_pixel_mm(size, settings.view.pixel_mm, *geometry)
        z_mm = own["z_mm"].to_numpy(dtype=np.float64)
        yield DrawnScan(scan_id, own, drawn, _true_masks(own, size), *pixel_mm, z_mm)


def _true_masks(rows: pd.DataFrame, size_px: int) -> np.ndarray | None:
    is_clear = (rows["any"] == 0).fillna(False).to_numpy(dtype=bool)
    if (rows["mask"].isna() & ~is_clear).any():
        return None
    empty = np.zeros((size_px, size_px), dtype=np.uint8)
    return class_masks(np.stack([empty if pd.isna(path) else read_mask(Path(path)) for path in rows["mask"]]))


def measure(rows: pd.DataFrame, detections: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return one row a lesion: scan_id, source (`drawn`, or `true` where that is known), type, its number among the
    scan's of that type from the largest, volume_ml and abc2_ml; arguments as `drawn_scans`.

    Both are NaN in a scan of a single slice.
    """
    found = []
    for scan in drawn_scans(rows, detections, settings):
        for source, masks in (("drawn", scan.drawn), ("true", scan.true)):
            if masks is not None:
                sizes = scan_lesions(masks, scan.row_mm, scan.column_mm, scan.z_mm)
                found += [(scan.scan_id, source, *size) for size in sizes]
    return pd.DataFrame(found, columns=MEASURED).astype(
        {"lesion": "int32", "volume_ml": "float64", "abc2_ml": "float64"}
    )


def scan_overlaps(rows: pd.DataFrame, detections: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return a row for each scan whose truth is known and each type that is drawn or true there: Dice and both volumes.

    Columns: SCAN_OVERLAPS; arguments as `drawn_scans`.
    """
    found = []
    for scan in drawn_scans(rows, detections, settings):
        if scan.true is None:
            continue
        volumes = zip(scan.volumes_ml(scan.drawn), scan.volumes_ml(scan.true), strict=True)
        for name, drawn, true, own in zip(CLASSES, scan.drawn, scan.true, volumes, strict=True):
            if drawn.any() or true.any():
                found.append((scan.scan_id, name, dice(true, drawn), *own))
    return pd.DataFrame(found, columns=SCAN_OVERLAPS)


def slice_overlaps(rows: pd.DataFrame, detections: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return a row for each slice and each type that is true there, and for `any` of them: the Dice of what is drawn.

    Columns: SLICE_OVERLAPS; arguments as `drawn_scans`. `threshold_dice` is, of `any`, the Dice of what a plain
    threshold draws on the same slice (core/plain_threshold.py), which knows no types: NaN of the others.
    """
    found = []
    for scan in drawn_scans(rows, detections, settings):
        if scan.true is None:
            continue
        for place in np.flatnonzero(scan.true.any(axis=(0, 2, 3))):
            drawn, true = scan.drawn[:, place], scan.true[:, place]
            own = scan.rows.iloc[place]
            plain = threshold_mask(read_hu(Path(own["png"])))
            named = [(name, true[i], drawn[i], np.nan) for i, name in enumerate(CLASSES) if true[i].any()]
            whole = true.any(axis=0)
            for name, is_true, is_drawn, beside in [*named, (ANY, whole, drawn.any(axis=0), dice(whole, plain))]:
                found.append((own["slice_id"], scan.scan_id, name, dice(is_true, is_drawn), beside))
    return pd.DataFrame(found, columns=SLICE_OVERLAPS)
