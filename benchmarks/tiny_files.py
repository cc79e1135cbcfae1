"""A raw folder of tiny slices in RSNA's layout, of any number: real files, made in seconds. Equal seed, equal bytes."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.full_size_data import RSNA_TEST, RSNA_TRAIN, make_slices, scaled
from benchmarks.label_files import write_label_files
from pipeline.paths import Paths
from pipeline.shell.dicom.write import SliceHeader, write_slice

SIZE_PX = 32

FOOT_MM = 100.0
"""Where scans begin: places have three digits before the point, so that one can stand for another in a file."""


def tiny_slices(count: int, seed: int) -> pd.DataFrame:
    """Return about `count` slices of scans, patients and parts like RSNA's, as `make_slices` does."""
    share = count / (RSNA_TRAIN.slices + RSNA_TEST.slices)
    return make_slices(scaled(RSNA_TRAIN, share), scaled(RSNA_TEST, share), seed)


def lay_out_raw(folder: Path, paths: Paths, slices: pd.DataFrame, seed: int) -> None:
    """Write raw/ of a data set: a file of SIZE_PX x SIZE_PX pixels a slice, and the CSVs.

    slices: as `tiny_slices` returns them.
    """
    for split in ("train", "test"):
        (folder / paths.raw / f"stage_2_{split}").mkdir(parents=True)
    write_label_files(folder, paths, slices)
    rng = np.random.default_rng(seed)
    template = folder / "template.dcm"
    for _, scan in slices.groupby("scan_id"):
        first = scan.iloc[0]
        stored = rng.integers(1000, 1160, (SIZE_PX, SIZE_PX)).astype(np.int16)
        write_slice(template, _header(first, FOOT_MM + first["z_mm"]), stored)
        content = template.read_bytes()
        for row in scan.itertuples():
            # Only its name and its place tell a slice from its scan's first: both as long as there.
            own = content.replace(first["slice_id"].encode(), row.slice_id.encode())
            own = own.replace(_text(FOOT_MM + first["z_mm"]), _text(FOOT_MM + row.z_mm))
            (folder / paths.raw / f"stage_2_{row.split}" / f"{row.slice_id}.dcm").write_bytes(own)
    template.unlink()


def _header(row: pd.Series, z_mm: float) -> SliceHeader:
    return SliceHeader(
        slice_id=row["slice_id"],
        patient_id=row["patient_id"],
        study_id=row["study_id"],
        series_id=row["scan_id"],
        origin_mm=(-125.0, -130.5, z_mm),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_mm=7.0,
        bits=16,
        intercept="-1024",
        window_centre=("40",),
        window_width=("80",),
        implicit_vr=False,
    )


def _text(z_mm: float) -> bytes:
    """Return a place as the file holds it."""
    return f"{z_mm:.6f}".encode()
