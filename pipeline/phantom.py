"""Stage `phantom`: make a data set of made-up head scans in RSNA 2019's layout, with masks and the test set's truth."""

import functools
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from pipeline.config import LABELS, UserError
from pipeline.core.phantom.masks import labels_from_mask
from pipeline.core.phantom.plan import MIN_SCANS, ScanPlan, make_plan
from pipeline.core.phantom.scan import build_scan, draw_slices
from pipeline.core.phantom.storage import STORAGES
from pipeline.job import Job
from pipeline.paths import record_of
from pipeline.shell.dicom.write import SliceHeader, write_slice
from pipeline.shell.parallel import parallel_map
from pipeline.shell.provenance import Provenance

FORMAT = 1
"""Raised when the same settings come to mean other files."""

MARKER = "phantom.json"
"""The file by which this stage knows a raw/ of its own."""

SLICE_DIGITS, PATIENT_DIGITS, SERIES_DIGITS = 9, 8, 10
"""Hex digits after `ID_` in RSNA's identifiers."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A written slice: its name, its six labels, and whether the label file repeats it."""

    slice_id: str
    split: str
    labels: tuple[int, ...]
    repeated: bool


def main(job: Job) -> None:
    """Make the data set that the job asks for, and the record beside it."""
    raw, settings = job.paths.raw, job.phantom
    provenance = Provenance("phantom", asdict(settings), [], job.threads)
    tables = [job.paths.labels, job.paths.sample_submission, job.paths.truth]
    with provenance.recorded(record_of(raw), *tables):
        write_data_set(raw, settings.scans, settings.seed, job.n_jobs)


def write_data_set(raw: Path, scans: int, seed: int, n_jobs: int) -> None:
    """Write a data set of `scans` scans to the folder `raw`, replacing one that this stage made before.

    Files depend on `scans` and `seed` alone. All is made beside `raw` and then renamed, so that `raw` is whole or is
    what it was. Raises UserError for too few scans, or where `raw` is not this stage's own.
    """
    if scans < MIN_SCANS:
        raise UserError(f"PHANTOM_SCANS={scans}: at least {MIN_SCANS}, to hold every kind of file")
    if seed < 0:
        raise UserError(f"PHANTOM_SEED={seed}: give 0 or more")
    if raw.is_symlink() or (raw.exists() and not _is_own(raw)):
        raise UserError(f"{raw} holds data that the phantom did not make: move it away, or choose another DATASET")
    partial, old = raw.with_name(raw.name + ".partial"), raw.with_name(raw.name + ".old")
    for leftover in (partial, old):  # of a run that was killed
        if leftover.exists():
            shutil.rmtree(leftover)
    for name in ("stage_2_train", "stage_2_test", "masks"):
        (partial / name).mkdir(parents=True)
    plans = make_plan(scans, seed)
    write = functools.partial(_write_scan, partial, seed=seed)
    rows = [row for written in parallel_map(write, plans, n_jobs, "scans", chunk_items=1) for row in written]
    _write_tables(partial, rows)
    settings = {"format": FORMAT, "scans": scans, "seed": seed}
    (partial / MARKER).write_text(json.dumps(settings, sort_keys=True) + "\n", encoding="utf-8")
    if raw.exists():
        raw.rename(old)
    partial.rename(raw)
    if old.exists():
        shutil.rmtree(old)
    for split in ("train", "test"):
        found = [row.labels for row in rows if row.split == split]
        counts = ", ".join(
            f"{label} {sum(column)}" for label, column in zip(LABELS, zip(*found, strict=True), strict=True)
        )
        log.info("phantom: %s has %d slices; with %s", split, len(found), counts)


def _is_own(raw: Path) -> bool:
    return raw.is_dir() and ((raw / MARKER).is_file() or not any(raw.iterdir()))


def identifier(digits: int, *what: object) -> str:
    """Return an identifier in RSNA's style that says nothing of what it names: `ID_` and hex digits of a hash."""
    text = "/".join(str(part) for part in what)
    return "ID_" + hashlib.sha256(text.encode()).hexdigest()[:digits]


def _write_scan(folder: Path, plan: ScanPlan, seed: int) -> list[Row]:
    """Draw and write one scan: its slices and their masks."""
    scan = build_scan(plan, seed)
    storage = STORAGES[plan.storage]
    geometry = scan.geometry
    count = len(geometry.origins_mm)
    rows = []
    for drawn in draw_slices(scan):
        slice_id = identifier(SLICE_DIGITS, seed, "slice", plan.number, drawn.index)
        header = SliceHeader(
            slice_id=slice_id,
            patient_id=identifier(PATIENT_DIGITS, seed, "patient", plan.patient),
            study_id=identifier(SERIES_DIGITS, seed, "study", plan.number),
            series_id=identifier(SERIES_DIGITS, seed, "series", plan.number),
            origin_mm=tuple(drawn.origin_mm),
            orientation=(*geometry.row, *geometry.column),
            pixel_mm=geometry.pixel_mm,
            bits=storage.bits,
            intercept=storage.intercept,
            window_centre=plan.windows[0],
            window_width=plan.windows[1],
            implicit_vr=plan.implicit_vr,
        )
        truncated = plan.truncated and drawn.index == count // 3
        write_slice(folder / f"stage_2_{plan.split}" / f"{slice_id}.dcm", header, drawn.stored, truncated)
        done, png = cv2.imencode(".png", drawn.mask)
        if not done:
            raise OSError(f"{slice_id}: the mask could not be encoded")
        (folder / "masks" / f"{slice_id}.png").write_bytes(png.tobytes())
        repeated = plan.repeated_rows and drawn.index == count // 2
        rows.append(Row(slice_id, plan.split, labels_from_mask(drawn.mask), repeated))
    return rows


def _write_tables(folder: Path, rows: list[Row]) -> None:
    """Write the label file, the sample submission and the test set's truth, all sorted by name: by chance, that is."""
    train = sorted((row for row in rows if row.split == "train"), key=lambda row: row.slice_id)
    test = sorted((row for row in rows if row.split == "test"), key=lambda row: row.slice_id)
    repeated = [row for row in train if row.repeated]
    _write_long(folder / "stage_2_train.csv", ((row.slice_id, row.labels) for row in [*train, *repeated]))
    _write_long(folder / "stage_2_sample_submission.csv", ((row.slice_id, (0.5,) * len(LABELS)) for row in test))
    _write_long(folder / "truth.csv", ((row.slice_id, row.labels) for row in test))


def _write_long(path: Path, rows: Iterable[tuple[str, tuple[float, ...]]]) -> None:
    """Write `ID,Label` with six rows a slice."""
    lines = ["ID,Label"]
    for slice_id, values in rows:
        lines += [f"{slice_id}_{label},{value}" for label, value in zip(LABELS, values, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
