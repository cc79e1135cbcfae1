"""Stage `window`: each slice's cached image as PNG: its Hounsfield units, or these through windows, and its mask."""

import logging
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, islice, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.config import UserError, View
from pipeline.core.rows import whole_scans
from pipeline.job import Job
from pipeline.paths import Paths, record_of, require
from pipeline.plan import stage_settings
from pipeline.schema import IMAGES, REJECTED
from pipeline.shell.atomic import remove_leftovers, temporary_path
from pipeline.shell.parallel import parallel_map
from pipeline.shell.progress import progress, tracked
from pipeline.shell.provenance import Provenance
from pipeline.shell.slice_images import (
    MASK_SUFFIX,
    Made,
    MadeMask,
    Source,
    SourceFile,
    SourceMask,
    compile_kernels,
    make_images,
    mask_path,
)
from pipeline.shell.tables import fill_stream, read_batches, row_count, to_arrow, to_frame, write_table

log = logging.getLogger(__name__)

SLICE_COLUMNS = ("frame", "rows", "columns", "bits", "signed", "slope", "intercept")
COLUMNS = (
    *(
        "slice_id",
        "scan_id",
        "patient_id",
        "z_mm",
        "split",
        "path",
        "bytes",
        "padding_low",
        "padding_high",
        "pixel_offset",
    ),
    *SLICE_COLUMNS,
)
"""What is read of SLICES; of kind `hu` PLANE_COLUMNS too, and `mask` where the view has masks."""
PLANE_COLUMNS = ("row_mm", "column_mm")

LAST_COLUMNS = ("path", "source_bytes", "digest", "png_crc")
LAST_MASK_COLUMNS = ("mask", "mask_source_bytes", "mask_source_crc", "mask_crc")
"""What is read of IMAGES; the latter where the view has masks."""

NOTHING_REJECTED = pd.DataFrame(columns=REJECTED.schema().names)

PNG_CHANNELS = (1, 3)
SHOWN = 5


class Batch(NamedTuple):
    """Slices of whole scans, rows of SLICES, and their files."""

    slices: pd.DataFrame
    files: list[SourceFile]
    rows: np.ndarray
    """The row of each slice of the files, one file after the other."""


@dataclass
class Outcome:
    """What became of all slices, beside the rows of IMAGES."""

    new: int = 0
    rejected: list[pd.DataFrame] = field(default_factory=list)


def main(job: Job) -> None:
    """Write one PNG a slice, keeping those that are done; then what could not be decoded, the record, and IMAGES last.

    A view with masks has a second PNG beside it where the slice has a mask. Slices that no image can be made of are
    rejected, and REJECTED's rows of this stage stand beside the images. Tables are read and written in batches: memory
    does not grow with the number of slices.
    """
    paths = job.paths
    view = job.run.settings.view
    check_view(view)
    require(paths.slices, "index")
    if view.masks:
        _check_masks(paths)
    settings = stage_settings(paths, "window", job.folds, job.phantom)
    provenance = Provenance("window", settings, [paths.slices], job.threads)
    slices, left_out = row_count(paths.slices), row_count(require(paths.rejected, "index"))

    leftovers = sum(map(remove_leftovers, tracked(_scan_folders(paths.png), "folders")))
    compile_kernels(view)
    make = partial(make_images, view=view, force=job.force)
    outcome = Outcome()
    with temporary_path(paths.images) as unfinished:
        made = _made(_batches(paths, view), make, job.n_jobs, _file_count(paths.slices))
        tables = _image_tables(made, outcome, paths.png, view_digest=paths.view.rpartition("-")[2])
        images = fill_stream(unfinished, IMAGES, tables, provenance.facts, "slice_id")
        rejected = pd.concat(outcome.rejected, ignore_index=True) if outcome.rejected else NOTHING_REJECTED
        _check_rejected(rejected, slices + left_out, len(rejected) + left_out, job.max_rejected)
        orphans = _remove_orphans(paths.png, unfinished, view.masks)

        counts = {"images": images, "new": outcome.new, "rejected": len(rejected)}
        counts |= {f"rejected: {reason}": n for reason, n in sorted(Counter(rejected["reason"]).items())}
        with provenance.recorded(record_of(paths.images), paths.images_rejected, paths.images) as record:
            record["counts"] = counts
            write_table(paths.images_rejected, REJECTED, rejected, provenance.facts)
            unfinished.replace(paths.images)
    log.info("%s: %s", paths.images, ", ".join(f"{n} {what}" for what, n in counts.items()))
    if leftovers or orphans:
        log.info("removed %d unfinished files and %d images of slices that are gone", leftovers, orphans)


def check_view(view: View) -> None:
    """Check what a view's settings say together; raises UserError."""
    if view.size < 1:
        raise UserError(f"setting view.size: {view.size} px; an image has at least one")
    if view.kind == "hu":
        if not 0 <= view.pixel_mm < math.inf:
            raise UserError(f"setting view.pixel_mm: {view.pixel_mm:g} mm; give a spacing, or 0 for the whole slice")
        return
    if view.masks or view.pixel_mm:
        name = "masks" if view.masks else "pixel_mm"
        raise UserError(
            f"setting view.{name}={getattr(view, name)}: of kind `hu` alone, and view.kind is {view.kind!r}; "
            "say view.kind=hu too, or leave it out"
        )
    if len(view.windows) not in PNG_CHANNELS:
        raise UserError(f"setting view.windows: {len(view.windows)} windows; a PNG holds one or three channels")


def _check_masks(paths: Paths) -> None:
    """Check that some slice has a mask, and that no slice's image is called as a mask is; raises UserError."""
    masks = 0
    for table in read_batches(paths.slices, ["slice_id", "mask"]):
        masks += len(table) - table.column("mask").null_count
        for slice_id in table.column("slice_id").to_pylist():
            if slice_id.endswith(MASK_SUFFIX):
                raise UserError(
                    f"slice {slice_id!r}: with view.masks a name may not end in {MASK_SUFFIX!r}, which marks cached "
                    "masks; rename its file, or leave view.masks out"
                )
    if not masks:
        raise UserError(
            f"setting view.masks=True: data set {paths.dataset!r} has no masks; they belong in {paths.raw}/masks/, "
            "<slice_id>.png each, before `make index`. The phantom has them, RSNA's data do not"
        )


def _batches(paths: Paths, view: View) -> Iterator[Batch]:
    """Yield all slices, a batch of whole scans after the other."""
    last = LastImages(paths.images, view.masks)
    columns = [*COLUMNS, *(PLANE_COLUMNS if view.kind == "hu" else ()), *(["mask"] if view.masks else ())]
    for slices in _scans(paths.slices, columns):
        made_of = last.made_of(set(slices["scan_id"]))
        yield Batch(slices, *_sources(slices, paths.png, made_of))


def _scans(slices: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    return whole_scans(map(to_frame, read_batches(slices, columns)))


def _file_count(slices: Path) -> int:
    """Return how many files all batches have together; one that several batches share counts in each of them."""
    return sum(of_scans["path"].nunique() for of_scans in _scans(slices, ["scan_id", "path"]))


class Last(NamedTuple):
    """What is known of a slice's image and mask that are there: the CRC-32 of the image and of its source."""

    made_of: str = ""
    png_crc: str = ""
    mask: MadeMask | None = None


class LastImages:
    """What the last IMAGES knows, where there is one: scan by scan, in the order of the scans."""

    def __init__(self, images: Path, masks: bool) -> None:
        self.scans = _images_by_scan(images, masks) if images.exists() else iter(())
        self.ahead = next(self.scans, None)

    def made_of(self, scans: set[str]) -> dict[tuple[str, int], Last]:
        """Return what is known by image and bytes of its source; scans come behind those asked for before."""
        found = {}
        while self.ahead is not None and self.ahead[0] <= max(scans):
            scan, rows = self.ahead
            if scan in scans:
                for path, size, digest, crc, *of_mask in rows:
                    mask = MadeMask(*of_mask[1:]) if of_mask and of_mask[0] else None
                    found[path, size] = Last(digest.rpartition("-")[2], crc, mask)
            self.ahead = next(self.scans, None)
        return found


def _images_by_scan(images: Path, masks: bool) -> Iterator[tuple[str, list[tuple]]]:
    """Yield each scan's name and its rows of IMAGES: LAST_COLUMNS, and where asked for LAST_MASK_COLUMNS."""
    columns = [*LAST_COLUMNS, *(LAST_MASK_COLUMNS if masks else ())]
    tables = ([table.column(name).to_pylist() for name in columns] for table in read_batches(images, columns))
    rows = chain.from_iterable(zip(*table, strict=True) for table in tables)
    for folder, of_scan in groupby(rows, key=lambda row: row[0].rpartition("/")[0]):
        yield folder.rpartition("/")[2], list(of_scan)


def _sources(
    slices: pd.DataFrame, png: Path, made_of: Mapping[tuple[str, int], Last]
) -> tuple[list[SourceFile], np.ndarray]:
    """Return each file with its slices, files in order of their first row of SLICES, and the rows of all the slices.

    made_of: what is known of the images that are there, as LastImages gives it.
    """
    codes, _ = pd.factorize(slices["path"])
    rows = np.lexsort((slices["frame"], codes))
    ordered = slices.iloc[rows]
    paddings = [
        None if pd.isna(low) else (int(low), int(high))
        for low, high in zip(ordered["padding_low"], ordered["padding_high"], strict=True)
    ]
    offsets = [None if pd.isna(offset) else int(offset) for offset in ordered["pixel_offset"]]
    sources: list[SourceFile] = []
    targets = _png_paths(ordered, png)
    columns = [ordered[column].tolist() for column in ("path", "bytes", *SLICE_COLUMNS)]
    planes = [ordered[column].tolist() for column in PLANE_COLUMNS] if "row_mm" in ordered else []
    masks = ordered["mask"].tolist() if "mask" in ordered else repeat(None, len(ordered))
    plane_of = zip(*planes, strict=True) if planes else repeat((), len(ordered))
    facts = zip(*columns, paddings, targets, offsets, plane_of, masks, strict=True)
    for path, size, *values, padding, target, offset, plane, mask in facts:
        if not sources or sources[-1].path != path:
            sources.append(SourceFile(path, size, []))
        last = made_of.get((target, size), Last())
        source = Source(*values, padding, target, last.made_of, last.png_crc, offset, *plane)
        if isinstance(mask, str):  # null otherwise
            source = source._replace(mask=SourceMask(mask, last.mask))
        sources[-1].slices.append(source)
    return sources, rows


def _made(
    batches: Iterable[Batch], make: Callable[[SourceFile], list[Made]], n_jobs: int, files: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the slices of each batch and what became of each of them: rows of SLICES, and as many of Made."""
    waiting: deque[tuple[pd.DataFrame, np.ndarray, int]] = deque()

    def files_of_batches() -> Iterator[SourceFile]:
        for batch in batches:
            waiting.append((batch.slices, batch.rows, len(batch.files)))
            yield from batch.files

    made = parallel_map(make, files_of_batches(), n_jobs, "files", total=files)
    for first in made:
        slices, rows, count = waiting.popleft()
        found = chain(first, *islice(made, count - 1))
        yield slices, pd.DataFrame(found, columns=Made._fields, index=rows).sort_index()


def _image_tables(
    batches: Iterable[tuple[pd.DataFrame, pd.DataFrame]], outcome: Outcome, png: Path, view_digest: str
) -> Iterator[pa.Table]:
    """Yield IMAGES, a table a batch; what else became of the slices is put into `outcome`."""
    for slices, made in batches:
        is_made = (made["reason"] == "").to_numpy()
        outcome.new += int(made["is_new"].sum())
        if not is_made.all():
            outcome.rejected.append(_rejected(slices[~is_made], made[~is_made]))
        if is_made.any():
            yield to_arrow(IMAGES, _images(slices[is_made], made[is_made], png, view_digest))


def _png_paths(slices: pd.DataFrame, png: Path) -> list[str]:
    folder = png.as_posix()
    return [
        f"{folder}/{scan}/{slice_id}.png" for scan, slice_id in zip(slices["scan_id"], slices["slice_id"], strict=True)
    ]


def _images(slices: pd.DataFrame, made: pd.DataFrame, png: Path, view_digest: str) -> pd.DataFrame:
    paths = _png_paths(slices, png)
    masks = made["mask"].tolist()
    paths_of_masks = [mask and mask_path(path) for path, mask in zip(paths, masks, strict=True)]
    return pd.DataFrame(
        {
            "slice_id": slices["slice_id"].to_numpy(),
            "path": paths,
            "mask": pd.Series(paths_of_masks, dtype=object),
            "source_bytes": slices["bytes"].to_numpy(),
            "digest": [f"{view_digest}-{crc}" for crc in made["crc"]],
            "png_crc": made["png_crc"].to_numpy(),
            "mask_source_bytes": pd.array([mask and mask.source_bytes for mask in masks], dtype="Int64"),
            "mask_source_crc": pd.Series([mask and mask.source_crc for mask in masks], dtype=object),
            "mask_crc": pd.Series([mask and mask.crc for mask in masks], dtype=object),
        }
    )


def _rejected(slices: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    known = slices.reindex(columns=["path", "slice_id", "scan_id", "patient_id", "z_mm", "split"])
    return known.assign(reason=made["reason"].to_numpy(), detail=made["detail"].to_numpy())


def _check_rejected(rejected: pd.DataFrame, files: int, all_rejected: int, max_rejected: float) -> None:
    if len(rejected) and all_rejected > max_rejected * files:
        rows = rejected.head(SHOWN)[["path", "detail"]].itertuples(index=False)
        first = "; ".join(f"{path} ({detail})" for path, detail in rows)
        raise UserError(
            f"{all_rejected} of {files} files are rejected, {len(rejected)} of them by `window`, more than "
            f"MAX_REJECTED={max_rejected:g}; the first: {first}"
        )


def _scan_folders(png: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(png) if entry.is_dir()] if png.is_dir() else []


def _remove_orphans(png: Path, images: Path, masks: bool) -> int:
    """Remove images and masks that no row of IMAGES names, and folders left empty; return how many files.

    masks: whether the view has any.
    """
    removed, unnamed = 0, {folder.name for folder in _scan_folders(png)}
    with progress(len(unnamed), "folders") as bar:
        for scan, rows in _images_by_scan(images, masks):
            unnamed.discard(scan)
            named = {path for path, *_ in rows} | {row[len(LAST_COLUMNS)] for row in rows if masks}
            removed += _remove_others(png / scan, named)
            bar.update()
        for scan in unnamed:
            removed += _remove_others(png / scan, set())
            bar.update()
    return removed


def _remove_others(folder: Path, wanted: set[str]) -> int:
    names = os.listdir(folder)
    others = [name for name in names if f"{folder.as_posix()}/{name}" not in wanted]
    for name in others:
        (folder / name).unlink()
    if len(others) == len(names):
        folder.rmdir()
    return len(others)
