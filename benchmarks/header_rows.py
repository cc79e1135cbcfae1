"""The headers of a data set of RSNA's size through ordering, joining, checks and parquet: all of `index` but the files.

`measure_index` makes the headers and the CSVs, and measures `python -m benchmarks.header_rows` on them: that is the
stage itself, told the headers instead of reading them. Equal seed, equal headers.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.full_size_data import Part, make_slices
from benchmarks.label_files import write_label_files
from benchmarks.measure import measure
from benchmarks.results import Cost
from pipeline.__main__ import make_job, parser
from pipeline.config import LABELS
from pipeline.datasets.rsna import FOLDERS, listing_of
from pipeline.index import write_index
from pipeline.paths import record_of
from pipeline.shell.dicom.headers import Header
from pipeline.shell.provenance import Provenance, read_json
from pipeline.shell.tables import GROUP_ROWS, read_batches, read_table

NAME = "index: ordering, joining, checks, parquet of header rows"
ARGUMENTS = ("index", "--dataset", "header-rows", "--recipe", "burduja2020")
MOST_SECONDS, MOST_MB = 60.0, 4096.0
"""What two cores may take."""

TILTED_SCANS, STEEPEST_DEG = 2 / 3, 27.0
JITTERING_SCANS, JITTER_MM = 972 / 2214, 0.4
SCANS_WITH_GAP, GAP_SLICES = 152 / 2214, (2, 6)
DOUBLE_SCANS, DOUBLE_OFFSET_MM = 45 / 2214, 1.7
"""Series that hold a second acquisition over the same stretch; shares as counted in 2,214 of RSNA's scans."""


def make_headers(slices: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return a row a slice with the fields of Header that differ from file to file, and `split` and `slice_id`.

    slices: as `full_size_data.make_slices` returns them. position_mm becomes x, y, z; orientation is told by tilt_deg.
    """
    rng = np.random.default_rng(seed)
    codes, scans = pd.factorize(slices["scan_id"])
    count, position = len(scans), slices["position"].to_numpy()
    lengths = np.bincount(codes)
    chance = rng.random((4, count))
    tilt = np.where(chance[0] < TILTED_SCANS, rng.uniform(1, STEEPEST_DEG, count), 0.0)
    spacing = np.where(rng.random(count) < 0.7, 5.0, rng.uniform(5.0, 5.4, count)).round(3)
    is_second = (chance[3] < DOUBLE_SCANS)[codes] & (position >= (lengths // 2)[codes])
    z = spacing[codes] * np.where(is_second, position - (lengths // 2)[codes], position)
    z += np.where(is_second, DOUBLE_OFFSET_MM, 0)
    z += np.where((chance[1] < JITTERING_SCANS)[codes], rng.uniform(-JITTER_MM, JITTER_MM, len(z)), 0)
    is_above = position > (lengths * rng.uniform(0.2, 0.8, count))[codes]
    has_gap = (chance[2] < SCANS_WITH_GAP) & (chance[3] >= DOUBLE_SCANS)
    z += np.where(has_gap[codes] & is_above, (spacing * rng.integers(*GAP_SLICES, count))[codes], 0)
    is_signed, pixel = rng.random(count) < 0.5, rng.uniform(0.4, 0.55, count).round(6)
    return pd.DataFrame(
        {
            **{name: slices[name] for name in ("slice_id", "split", "patient_id", "study_id", "scan_id")},
            "x": rng.uniform(-140, -110, count).round(6)[codes],
            "y": rng.uniform(-150, 20, count).round(6)[codes],
            "z": (rng.uniform(-200, 900, count)[codes] + z).round(6),
            "tilt_deg": tilt.round(1)[codes],
            "pixel_mm": pixel[codes],
            "signed": is_signed[codes],
        }
    )


def lay_out_headers(folder: Path, train: Part, test: Part, seed: int) -> None:
    """Write the CSVs of a data set of that size below a folder, and its headers, in order of the files' paths."""
    slices = make_slices(train, test, seed)
    paths = make_job(parser().parse_args(ARGUMENTS)).paths
    write_label_files(folder, paths, slices)
    headers = make_headers(slices, seed).sort_values(["split", "slice_id"])
    table = pa.Table.from_pandas(headers, preserve_index=False)
    pq.write_table(table, folder / "headers.parquet", row_group_size=GROUP_ROWS)


def read_made_headers(path: Path) -> Iterator[list[Header]]:
    """Yield the headers that were laid out as `read_headers` would, file by file."""
    for table in read_batches(path):
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        tilts = np.radians(columns["tilt_deg"])
        orientation = zip([1.0] * len(tilts), *[[0.0] * len(tilts)] * 3, np.cos(tilts), -np.sin(tilts), strict=True)
        rows = zip(
            *(columns[name] for name in ("patient_id", "study_id", "scan_id", "pixel_mm", "signed")), strict=True
        )
        places = zip(columns["x"], columns["y"], columns["z"], strict=True)
        for row, place, axes in zip(rows, places, orientation, strict=True):
            patient_id, study_id, series_id, pixel_mm, signed = row
            header = Header(
                frame=1,
                frames=1,
                patient_id=patient_id,
                study_id=study_id,
                series_id=series_id,
                position_mm=place,
                orientation=tuple(map(float, axes)),
                rows=512,
                columns=512,
                row_mm=pixel_mm,
                column_mm=pixel_mm,
                bits=16 if signed else 12,
                signed=signed,
                slope=1.0,
                intercept=-1024.0,
                transfer_syntax="1.2.840.10008.1.2.1",
                bytes=526_000,
            )
            yield [header]


def index_headers(headers: Path) -> None:
    """Do all that `index` does behind the reading of headers, in the present folder, with those laid out."""
    job = make_job(parser().parse_args(ARGUMENTS))
    of_files = read_table(headers, ["split", "slice_id"])
    names = {split: (of_files["slice_id"][of_files["split"] == split] + ".dcm").tolist() for split in FOLDERS}
    del of_files
    provenance = Provenance("index", {}, [job.paths.labels, job.paths.sample_submission], job.threads)
    write_index(job, listing_of(job.paths.raw, names), read_made_headers(headers), provenance)


def check_index(folder: Path, train: Part, test: Part) -> None:
    """Check that all slices, scans and positive slices came through, each in its place; raises ValueError."""
    paths = make_job(parser().parse_args(ARGUMENTS)).paths
    counts = read_json(folder / record_of(paths.slices))["counts"]
    slices = read_table(folder / paths.slices, ["slice_id", "scan_id", "position", "z_mm", *LABELS])
    expected = {"train slices": train.slices, "test slices": test.slices, "positive slices": train.positive[-1]}
    found = {name: counts[name] for name in expected}
    if found != expected or counts["rejected"]:
        raise ValueError(f"index: {counts}, expected {expected}")
    scans = train.scans + test.scans
    if not scans < counts["scans"] < scans * (1 + 2 * DOUBLE_SCANS):
        raise ValueError(f"index: {counts['scans']} scans of {scans} series, some of which hold two")
    same_scan = slices["scan_id"].to_numpy()[1:] == slices["scan_id"].to_numpy()[:-1]
    if not (np.diff(slices["z_mm"])[same_scan] > 0).all() or (np.diff(slices["position"])[same_scan] != 1).any():
        raise ValueError("index: slices of a scan are not in order")


def measure_index(folder: Path, train: Part, test: Part, seed: int, runs: int) -> Cost:
    """Lay out headers below a folder, index them in a process of its own, check what came out; return the row."""
    lay_out_headers(folder, train, test, seed)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "benchmarks.header_rows", "headers.parquet"]
    measured = [measure(command, folder, environment) for _ in range(runs)]
    check_index(folder, train, test)
    seconds, peak_mb = min(seconds for seconds, _ in measured), max(peak_mb for _, peak_mb in measured)
    return Cost(NAME, seconds, peak_mb, MOST_SECONDS, MOST_MB)


if __name__ == "__main__":
    command_line = argparse.ArgumentParser(prog="python -m benchmarks.header_rows", description=__doc__.splitlines()[0])
    command_line.add_argument("headers", type=Path, help="table of headers, beside which the data set lies")
    index_headers(command_line.parse_args().headers)
