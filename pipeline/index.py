"""Stage `index`: which slices there are, where each lies in its scan, and which files are left out and why."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.config import LABELS, UserError
from pipeline.core.acquisitions import order_stacks
from pipeline.core.geometry import common_normal, slice_normals
from pipeline.datasets import reader
from pipeline.datasets.listing import Listing
from pipeline.job import Job
from pipeline.paths import record_of
from pipeline.plan import stage_settings
from pipeline.schema import REJECTED, SLICES
from pipeline.shell.dicom.headers import Header, read_headers
from pipeline.shell.parallel import parallel_map
from pipeline.shell.progress import tracked
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import holds, write_table

log = logging.getLogger(__name__)

FRAME_ROWS = 8192
"""Headers gathered as Python objects before they become columns: bounds the memory of a million headers."""

SIGNATURE = ("rows", "columns", "row_mm", "column_mm", "thickness_mm", "bits", "signed", "slope", "intercept", "x", "y")
"""What one acquisition's slices share; x and y are the first pixel's place, rounded to 0.1 mm."""

AXES = tuple(f"o{k}" for k in range(6))
"""Columns of ImageOrientationPatient."""

SHOWN = 5


def main(job: Job) -> None:
    """Read all headers, join the labels, order each scan; write REJECTED, SLICES, and the record last."""
    paths = job.paths
    listing = reader(paths.reader)(paths.raw)
    settings = stage_settings(paths, "index", job.folds, job.phantom)
    inputs = [path for path in (paths.labels, paths.sample_submission) if path.exists()]
    provenance = Provenance("index", settings, inputs, job.threads)

    headers = parallel_map(read_headers, listing.files["path"].unique().tolist(), job.n_jobs, "headers")
    write_index(job, listing, headers, provenance)


def write_index(job: Job, listing: Listing, headers: Iterable[list[Header]], provenance: Provenance) -> None:
    """Write REJECTED, SLICES and the record of a listing and its files' headers, in the listing's order.

    Tables that already say the same are left as they are: what was made of them stays fresh. Raises UserError where
    too much is rejected.
    """
    paths = job.paths
    slices, rejected = index_slices(listing, to_frame(headers))
    counts = summary(slices, rejected)
    check_rejected(rejected, len(slices) + len(rejected), job.max_rejected)
    if not (slices["split"] == "train").any():
        raise UserError(f"{paths.raw}: no training slice can be used; the first: {first_of(rejected)}")

    tables = ((paths.rejected, REJECTED, rejected), (paths.slices, SLICES, slices))
    is_new = not all(holds(*table, provenance.facts) for table in tables)
    with provenance.recorded(record_of(paths.slices), paths.rejected, paths.slices) as record:
        record["counts"] = counts
        if is_new:
            for table in tables:
                write_table(*table, provenance.facts)
    if is_new:
        os.utime(paths.slices)  # Make shall not find it older than the record
    log.info("%s: %s", paths.slices, ", ".join(f"{n} {what}" for what, n in counts.items()))


def to_frame(headers: Iterable[list[Header]]) -> pd.DataFrame:
    """Return the headers of each file as a frame, one row each; `file` is the file's number, from 0.

    position_mm and orientation become x, y, z and o0 to o5.
    """
    return pd.concat(list(_frames(headers)), ignore_index=True)


def _frames(headers: Iterable[list[Header]]) -> Iterator[pd.DataFrame]:
    batch: list[Header] = []
    numbers: list[int] = []
    for number, of_file in enumerate(headers):
        batch += of_file
        numbers += [number] * len(of_file)
        if len(batch) >= FRAME_ROWS:
            yield _frame(batch, numbers)
            batch, numbers = [], []
    yield _frame(batch, numbers)


def _frame(batch: list[Header], numbers: list[int]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(batch, columns=Header._fields, exclude=["position_mm", "orientation"])
    frame = frame.astype({"padding_low": "Int32", "padding_high": "Int32", "pixel_offset": "Int64"})
    frame["file"] = np.array(numbers, dtype=np.int64)
    places = np.array([h.position_mm + h.orientation for h in batch], dtype=np.float64).reshape(len(batch), 9)
    return frame.join(pd.DataFrame(places, columns=["x", "y", "z", *AXES]))


def index_slices(listing: Listing, headers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return SLICES and REJECTED of a listing and its files' headers, in the listing's order."""
    found, unusable = join_headers(listing.files, headers)
    is_usable = found["reason"] == ""
    unusable = pd.concat([found[~is_usable], unusable], ignore_index=True)
    usable = found[is_usable].sort_values(["series_id", "slice_id"], ignore_index=True)
    del found, headers  # of a million slices, each is half a gigabyte
    unusable["z_mm"] = _z_of_rejected(unusable, usable)
    slices = _order_scans(usable)
    unusable["scan_id"] = unusable["series_id"]
    rejected = pd.concat([unusable, listing.left_out], ignore_index=True).reindex(columns=REJECTED.schema().names)
    for column in ("scan_id", "patient_id"):
        rejected[column] = rejected[column].replace("", None)
    return slices, rejected.sort_values(["path", "slice_id"], ignore_index=True)


def join_headers(asked: pd.DataFrame, headers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the slices asked for that a header speaks of, and what is rejected besides, with the headers' columns.

    The latter: slices of files that are rejected as a whole, slices that their file does not have, and frames that
    nobody asked for.
    """
    asked = asked.assign(file=pd.factorize(asked["path"])[0])
    files = asked.drop_duplicates("file")[["file", "path", "stem", "split"]].reset_index(drop=True)
    is_whole = headers["frame"] == 0
    frames = headers[~is_whole]
    ids = files["stem"].to_numpy(dtype=object)[frames["file"]]
    for i in np.flatnonzero(frames["frames"] > 1):
        ids[i] = f"{ids[i]}.{frames['frame'].array[i]}"
    frames = frames.assign(slice_id=ids, row=np.arange(len(frames)))

    found = asked.merge(frames, on=["file", "slice_id"])
    whole = asked.merge(headers[is_whole], on="file")
    unread = asked[~asked["slice_id"].isin(found["slice_id"]) & ~asked["file"].isin(whole["file"])]
    absent = unread.merge(frames.drop_duplicates("file").drop(columns="slice_id"), on="file")
    absent["reason"] = "no such frame"
    absent["detail"] = [
        f"the file has {count} frames" if count > 1 else f"the file has one frame, {stem}"
        for count, stem in zip(absent["frames"], absent["stem"], strict=True)
    ]
    absent[["x", "y", "z"]] = np.nan
    unasked = frames[~frames["row"].isin(found["row"])].merge(files, on="file")
    unasked["reason"] = np.where(unasked["split"] == "train", "no label", "not in the sample submission")
    unasked["detail"] = ""
    return found, pd.concat([whole, absent, unasked], ignore_index=True)


def _order_scans(usable: pd.DataFrame) -> pd.DataFrame:
    """Return SLICES of usable files in order of series and slice id; rows in order of scan and position."""
    places = usable[["x", "y", "z"]].to_numpy()
    orientation = usable[list(AXES)].to_numpy()
    normals = slice_normals(orientation)
    signatures = _signatures(usable)
    slice_ids = usable["slice_id"].to_numpy(dtype=object)
    series, first = np.unique(usable["series_id"].to_numpy(dtype=object), return_index=True)
    taken = set(series)
    columns = {"position": np.empty(len(usable), np.int32), "scan_id": np.empty(len(usable), dtype=object)}
    columns |= {name: np.empty(len(usable)) for name in ("z_mm", "spacing_mm", "tilt_deg")}
    bounds = np.append(first, len(usable))
    for name, rows in tracked(list(zip(series, map(slice, bounds[:-1], bounds[1:]), strict=True)), "series"):
        order = order_stacks(slice_ids[rows], places[rows], normals[rows], signatures[rows].tolist())
        names = np.array(_scan_names(name, int(order.run.max()) + 1, taken), dtype=object)
        columns["scan_id"][rows] = names[order.run]
        for column in ("position", "z_mm", "spacing_mm", "tilt_deg"):
            columns[column][rows] = getattr(order, column)
    # As Arrow holds them: a Python object a row would take more memory than all other columns together.
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(orientation.reshape(-1)), len(AXES))
    columns["orientation"] = pd.arrays.ArrowExtensionArray(vectors)
    kept = [name for name in usable.columns if name in SLICES.schema().names]
    return usable[kept].assign(**columns).sort_values(["scan_id", "position"], ignore_index=True)


def _signatures(usable: pd.DataFrame) -> np.ndarray:
    """Return numbers (slices, fields) that are equal where the fields of SIGNATURE are."""
    signatures = np.empty((len(usable), len(SIGNATURE)), dtype=np.int32)
    for k, name in enumerate(SIGNATURE):
        values = usable[name].round(1) if name in ("x", "y") else usable[name]
        signatures[:, k], _ = pd.factorize(values, use_na_sentinel=False)
    return signatures


def _scan_names(series_id: str, runs: int, taken: set[str]) -> list[str]:
    """Return a name for each acquisition of a series: its UID, then the UID with .2, .3, ... that no series has."""
    names, number = [series_id], 2
    while len(names) < runs:
        name = f"{series_id}.{number}"
        if name not in taken:
            names.append(name)
        number += 1
    return names


def _z_of_rejected(unusable: pd.DataFrame, usable: pd.DataFrame) -> np.ndarray:
    """Return z_mm along the normal of the slice's series, or along its own; NaN where its place is not known.

    The rejected slice is to be filled from its neighbours, so it must be measured along the same line as they are.
    """
    by_series = {
        name: common_normal(slice_normals(group[list(AXES)].to_numpy()))
        for name, group in usable[usable["series_id"].isin(unusable["series_id"])].groupby("series_id")
    }
    z_mm = np.full(len(unusable), np.nan)
    places, orientation = unusable[["x", "y", "z"]].to_numpy(), unusable[list(AXES)].to_numpy()
    for i, name in enumerate(unusable["series_id"]):
        if name in by_series:
            z_mm[i] = places[i] @ by_series[name]
        elif np.isfinite(orientation[i]).all():
            z_mm[i] = places[i] @ slice_normals(orientation[i : i + 1])[0]
    return z_mm


def summary(slices: pd.DataFrame, rejected: pd.DataFrame) -> dict[str, int]:
    """Return counts of slices, scans, patients, positives and rejected files by reason."""
    counts = {
        "train slices": int((slices["split"] == "train").sum()),
        "test slices": int((slices["split"] == "test").sum()),
        "scans": int(slices["scan_id"].nunique()),
        "patients": int(slices["patient_id"].nunique()),
        "positive slices": int((slices[LABELS[-1]] == 1).sum()),
        "rejected": len(rejected),
    }
    return counts | {f"rejected: {reason}": n for reason, n in sorted(Counter(rejected["reason"]).items())}


def check_rejected(rejected: pd.DataFrame, files: int, max_rejected: float) -> None:
    """Raise UserError where the share of rejected files is above `max_rejected`."""
    if len(rejected) > max_rejected * files:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(rejected["reason"]).most_common())
        raise UserError(
            f"{len(rejected)} of {files} files are rejected, more than MAX_REJECTED={max_rejected:g}: {reasons}; "
            f"the first: {first_of(rejected)}"
        )


def first_of(rejected: pd.DataFrame) -> str:
    """Return the paths and reasons of the first few rejected files."""
    rows = rejected.head(SHOWN)[["path", "reason", "detail"]].itertuples(index=False)
    return "; ".join(f"{path} ({reason}{': ' if detail else ''}{detail})" for path, reason, detail in rows)
