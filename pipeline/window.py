"""Stage `window`: each slice's cached image, in Hounsfield units through the view's windows, resized, as PNG."""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import chain, groupby, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from isal import isal_zlib

from pipeline.config import UserError, View
from pipeline.core.hounsfield import to_hu
from pipeline.core.rows import whole_scans
from pipeline.core.windows import window_image
from pipeline.plan import Job, Paths, record_of, require, stage_settings
from pipeline.schema import IMAGES, REJECTED
from pipeline.shell.atomic import remove_leftovers, temporary_path
from pipeline.shell.dicom.bounded_file import open_regular
from pipeline.shell.dicom.file import BROKEN_DICOM, one_line
from pipeline.shell.dicom.pixels import PixelFile, stored_at
from pipeline.shell.parallel import parallel_map
from pipeline.shell.png import write_png
from pipeline.shell.progress import progress, tracked
from pipeline.shell.provenance import Provenance
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
"""What is read of SLICES."""

NOTHING_REJECTED = pd.DataFrame(columns=REJECTED.schema().names)

PNG_CHANNELS = (1, 3)
SHOWN = 5

WHOLE_BYTES = 1 << 26
"""Files up to this size are read at once; of larger ones, which hold many frames, a frame at a time."""
CHUNK_BYTES = 1 << 20


class Source(NamedTuple):
    """A slice: which frame of its file it is, how to read that, and the image to make of it."""

    frame: int
    rows: int
    columns: int
    bits: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    """The least and the greatest stored value that is padding."""
    png: str
    made_of: str = ""
    """CRC-32 of the file that the present image was made of, 8 hex digits; empty where that is not known."""
    png_crc: str = ""
    """CRC-32 of the present image; empty where that is not known."""
    pixel_offset: int | None = None
    """Where the slice begins in its file, in bytes; None where its header must be read to know."""


class SourceFile(NamedTuple):
    """A file, and its slices in order of their frames."""

    path: str
    bytes: int
    slices: list[Source]


class Made(NamedTuple):
    """What became of a slice: the CRC-32 of its file and of its image, or a reason and detail why there is none."""

    crc: str = ""
    png_crc: str = ""
    is_new: bool = False
    reason: str = ""
    detail: str = ""


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

    Slices that no image can be made of are rejected, and REJECTED's rows of this stage stand beside the images. Tables
    are read and written in batches: memory does not grow with the number of slices.
    """
    paths = job.paths
    view = job.run.settings.view
    if len(view.windows) not in PNG_CHANNELS:
        raise UserError(f"setting view.windows: {len(view.windows)} windows; a PNG holds one or three channels")
    require(paths.slices, "index")
    settings = stage_settings(paths, "window", job.folds, job.phantom)
    provenance = Provenance("window", settings, [paths.slices], job.threads)
    slices, left_out = row_count(paths.slices), row_count(require(paths.rejected, "index"))

    leftovers = sum(map(remove_leftovers, tracked(_scan_folders(paths.png), "folders")))
    _compile(view)
    make = partial(make_images, view=view, force=job.force)
    outcome = Outcome()
    with temporary_path(paths.images) as unfinished:
        made = _made(_batches(paths), make, job.n_jobs, _file_count(paths.slices))
        tables = _image_tables(made, outcome, paths.png, view_digest=paths.view.rpartition("-")[2])
        images = fill_stream(unfinished, IMAGES, tables, provenance.facts, "slice_id")
        rejected = pd.concat(outcome.rejected, ignore_index=True) if outcome.rejected else NOTHING_REJECTED
        _check_rejected(rejected, slices + left_out, len(rejected) + left_out, job.max_rejected)
        orphans = _remove_orphans(paths.png, unfinished)

        counts = {"images": images, "new": outcome.new, "rejected": len(rejected)}
        counts |= {f"rejected: {reason}": n for reason, n in sorted(Counter(rejected["reason"]).items())}
        with provenance.recorded(record_of(paths.images), paths.images_rejected, paths.images) as record:
            record["counts"] = counts
            write_table(paths.images_rejected, REJECTED, rejected, provenance.facts)
            unfinished.replace(paths.images)
    log.info("%s: %s", paths.images, ", ".join(f"{n} {what}" for what, n in counts.items()))
    if leftovers or orphans:
        log.info("removed %d unfinished files and %d images of slices that are gone", leftovers, orphans)


def _compile(view: View) -> None:
    """Compile the kernels, once: the processes then find the code in numba's cache."""
    window_image(np.zeros((1, 1), dtype=np.int16), view.windows, view.size)
    for stored_type in (np.int16, np.uint16):
        # As a file's bytes are, it may not be written to: that makes a type of its own.
        stored = np.frombuffer(bytes(8 * view.size**2), stored_type).reshape(2 * view.size, 2 * view.size)
        hu = to_hu(stored, slope=1.0, intercept=-1024.0, bits=16, signed=stored_type is np.int16)
        window_image(hu, view.windows, view.size)


def make_images(file: SourceFile, view: View, force: bool) -> list[Made]:
    """Write the images of a file's slices, but those that are done: they exist and their source did not change since.

    The file is opened once, and one frame is decoded at a time.
    """
    try:
        is_done = [not force and _is_done(source, file) for source in file.slices]
        if all(is_done) and all(source.made_of for source in file.slices):
            return [Made(source.made_of, source.png_crc) for source in file.slices]
        content, size, crc = _open(file.path)
    except OSError as error:
        return _rejects(file, "unreadable", f"{type(error).__name__}: {error.strerror or error}")
    with content:
        if all(is_done):
            return [Made(crc, _crc_of(source.png)) for source in file.slices]
        if size != file.bytes:
            return _rejects(file, "unreadable", f"has {size} bytes, had {file.bytes} when indexed")
        try:
            frame = _frames(file, content, size)
        except BROKEN_DICOM as error:
            return _rejects(file, "undecodable pixel data", one_line(error))
        return [
            Made(crc, _crc_of(source.png)) if done else _make_image(source, frame, crc, view)
            for source, done in zip(file.slices, is_done, strict=True)
        ]


def _frames(file: SourceFile, content: BinaryIO, size: int) -> Callable[[int], np.ndarray]:
    """Return what gives the stored values of a frame; raises one of BROKEN_DICOM."""
    first = file.slices[0]
    if first.pixel_offset is not None and isinstance(content, BytesIO):
        stored = stored_at(content.getvalue(), first.pixel_offset, first.rows, first.columns, first.signed)
        if stored is not None:
            return lambda _: stored  # the only frame
    return PixelFile(content, size).frame


def _make_image(source: Source, frame: Callable[[int], np.ndarray], crc: str, view: View) -> Made:
    try:
        stored = frame(source.frame)
        if stored.shape != (source.rows, source.columns):
            raise ValueError(f"{stored.shape} pixels, expected {source.rows} x {source.columns}")
    except BROKEN_DICOM as error:
        return Made(reason="undecodable pixel data", detail=one_line(error))
    hu = to_hu(stored, source.slope, source.intercept, source.bits, source.signed, source.padding)
    return Made(crc, write_png(source.png, window_image(hu, view.windows, view.size)), is_new=True)


def _crc_of(png: str) -> str:
    return f"{isal_zlib.crc32(Path(png).read_bytes()):08x}"


def _rejects(file: SourceFile, reason: str, detail: str) -> list[Made]:
    return [Made(reason=reason, detail=detail)] * len(file.slices)


def _open(path: str) -> tuple[BinaryIO, int, str]:
    """Return a file as its pixels are to be read, its size in bytes, and the CRC-32 of what it holds.

    Raises OSError.
    """
    file, size = open_regular(path)
    if size <= WHOLE_BYTES:
        with file:
            data = file.read()
        return BytesIO(data), len(data), f"{isal_zlib.crc32(data):08x}"
    crc = 0
    while chunk := file.read(CHUNK_BYTES):
        crc = isal_zlib.crc32(chunk, crc)
    file.seek(0)
    return file, size, f"{crc:08x}"


def _is_done(source: Source, file: SourceFile) -> bool:
    """Return whether the image is there, and its source has the size it had and did not change since."""
    status = os.stat(file.path)
    try:
        made_ns = os.stat(source.png).st_mtime_ns
    except FileNotFoundError:
        return False
    return status.st_mtime_ns <= made_ns and status.st_size == file.bytes


def _batches(paths: Paths) -> Iterator[Batch]:
    """Yield all slices, a batch of whole scans after the other."""
    last = LastImages(paths.images)
    for slices in _scans(paths.slices, COLUMNS):
        made_of = last.made_of(set(slices["scan_id"]))
        yield Batch(slices, *_sources(slices, paths.png, made_of))


def _scans(slices: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    return whole_scans(map(to_frame, read_batches(slices, columns)))


def _file_count(slices: Path) -> int:
    """Return how many files all batches have together; one that several batches share counts in each of them."""
    return sum(of_scans["path"].nunique() for of_scans in _scans(slices, ["scan_id", "path"]))


class LastImages:
    """What the last IMAGES knows, where there is one: scan by scan, in the order of the scans."""

    def __init__(self, images: Path) -> None:
        self.scans = _images_by_scan(images) if images.exists() else iter(())
        self.ahead = next(self.scans, None)

    def made_of(self, scans: set[str]) -> dict[tuple[str, int], tuple[str, str]]:
        """Return by image and bytes of its source the CRC-32 of both; scans come behind those asked for before."""
        found = {}
        while self.ahead is not None and self.ahead[0] <= max(scans):
            scan, rows = self.ahead
            if scan in scans:
                found |= {(path, size): (digest.rpartition("-")[2], crc) for path, size, digest, crc in rows}
            self.ahead = next(self.scans, None)
        return found


def _images_by_scan(images: Path) -> Iterator[tuple[str, list[tuple[str, int, str, str]]]]:
    """Yield each scan's name and its rows of IMAGES: path, source_bytes, digest, png_crc."""
    columns = ["path", "source_bytes", "digest", "png_crc"]
    tables = ([table.column(name).to_pylist() for name in columns] for table in read_batches(images, columns))
    rows = chain.from_iterable(zip(*table, strict=True) for table in tables)
    for folder, of_scan in groupby(rows, key=lambda row: row[0].rpartition("/")[0]):
        yield folder.rpartition("/")[2], list(of_scan)


def _sources(
    slices: pd.DataFrame, png: Path, made_of: Mapping[tuple[str, int], tuple[str, str]]
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
    for path, size, *values, padding, target, offset in zip(*columns, paddings, targets, offsets, strict=True):
        if not sources or sources[-1].path != path:
            sources.append(SourceFile(path, size, []))
        sources[-1].slices.append(Source(*values, padding, target, *made_of.get((target, size), ("", "")), offset))
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
    return pd.DataFrame(
        {
            "slice_id": slices["slice_id"].to_numpy(),
            "path": _png_paths(slices, png),
            "source_bytes": slices["bytes"].to_numpy(),
            "digest": [f"{view_digest}-{crc}" for crc in made["crc"]],
            "png_crc": made["png_crc"].to_numpy(),
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


def _remove_orphans(png: Path, images: Path) -> int:
    """Remove images that no row of IMAGES names, and folders left empty; return how many images."""
    removed, unnamed = 0, {folder.name for folder in _scan_folders(png)}
    with progress(len(unnamed), "folders") as bar:
        for scan, rows in _images_by_scan(images):
            unnamed.discard(scan)
            removed += _remove_others(png / scan, {path for path, *_ in rows})
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
