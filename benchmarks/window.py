"""One slice from DICOM to PNG, and many on all cores, beside the straightforward way: `python -m benchmarks.window`.

The slices are the phantom's, 512 x 512, written as RSNA's common files are. Four minutes, 4 GB of disk on two cores.
"""

import ctypes
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.baselines import straightforward_png, straightforward_window
from benchmarks.comparison import Comparison, Target, alternating, medians_in_turn, seconds_of
from benchmarks.cores import cores, processes_apart
from benchmarks.parts import run_part
from pipeline.config import BASE, View
from pipeline.core.hounsfield import is_wrapped, to_hu
from pipeline.core.phantom.plan import MIN_SCANS
from pipeline.core.windows import window_image
from pipeline.phantom import write_data_set
from pipeline.shell.dicom.headers import Header, read_headers
from pipeline.shell.dicom.pixels import decode_pixels
from pipeline.shell.parallel import parallel_map
from pipeline.shell.png import decode_png, write_png
from pipeline.shell.slice_images import Source, SourceFile, make_images

log = logging.getLogger(__name__)

VIEW: View = BASE.view
SIDE_PX = 512
SEED = 0

SLICES = 64
"""Different slices, each of which a call passes once."""
ROUNDS = 15
CACHED_SLICES = 8
"""Of which the arithmetic takes turns: their HU lie in the processor's cache, as in the stage, which has just made
them. From memory, its bandwidth is measured: 1.5 to 2 times as long."""

FILES_A_CORE = 3200
"""Of the rows on all cores: enough that what starting and ending costs is lost in them."""
SCAN_SLICES = 32
"""Images in a folder, as of a scan."""
SCALING_ROUNDS = 5
MOST_SHARING = 1.1
"""How many times what processes on their own need; a machine's cores do not always do twice what one does."""

MOST_DIFFERENT = 1e-3
"""Share of values that may lie one grey level apart: ties, which float64 does not always keep."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt (malloc.h)."""
KEPT_BYTES = 1 << 28

ARITHMETIC_NOTE = (
    "float64, three clipped windows, cv2.resize linear, rounded at the end; "
    "512 x 512 HU, in the processor's cache, to 256 x 256 x 3"
)
PNG_NOTE = "pydicom.dcmread and pixel_array, the arithmetic of the row above, cv2.imwrite with defaults"
FLOOR_NOTE = "read the bytes, encode the finished image and write it, by the same functions; nothing else"


def rows() -> list[Comparison]:
    """Return the rows of one core and those of all cores; raises ValueError where results differ that must not."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        log.info("drawing slices")
        headers = make_slices(folder / "raw")
        log.info("one core")
        one = _dicom_to_png(folder, headers)
        log.info("all cores")
        many = _scaling(folder, headers)
        log.info("arithmetic")  # last: from here on this process keeps its memory
        return [*_arithmetic(headers), *one, *many]


def make_slices(raw: Path) -> dict[Path, Header]:
    """Write a phantom data set; return files of it as RSNA's common ones, and their headers.

    512 x 512, explicit little endian, and not of those whose values wrapped round, which the baseline cannot read.
    """
    write_data_set(raw, MIN_SCANS, SEED, cores())
    read = ((path, read_headers(path)[0]) for path in sorted(raw.glob("stage_2_*/*.dcm")))
    return dict(islice(((path, header) for path, header in read if _is_common(header)), SLICES))


def _is_common(header: Header) -> bool:
    is_plain = header.reason == "" and header.transfer_syntax == ExplicitVRLittleEndian
    is_square = (header.rows, header.columns) == (SIDE_PX, SIDE_PX)
    return is_plain and is_square and not is_wrapped(header.bits, header.signed, header.intercept)


def _arithmetic(headers: dict[Path, Header]) -> list[Comparison]:
    slices = [
        to_hu(decode_pixels(path.read_bytes()), header.slope, header.intercept, header.bits, header.signed)
        for path, header in islice(headers.items(), CACHED_SLICES)
    ]
    slices *= SLICES // len(slices)
    keep_memory()
    ways = [partial(window, windows=VIEW.windows, size=VIEW.size) for window in (window_image, straightforward_window)]
    check_images(*([way(hu) for hu in slices[:CACHED_SLICES]] for way in ways))
    ours, baseline = (partial(_each, way, slices) for way in ways)
    return [_per_slice("window arithmetic, one core", ours, baseline, Target("times", 20), ARITHMETIC_NOTE)]


def _dicom_to_png(folder: Path, headers: dict[Path, Header]) -> list[Comparison]:
    numbers = count()

    def targets() -> list[str]:
        """Return the files of another pass: each image is new, as in a stage's first run."""
        target = folder / f"pass {next(numbers)}"
        target.mkdir()
        return [f"{target}/{path.stem}.png" for path in headers]

    def ours() -> list[str]:
        images = targets()
        for file in sources(headers, images):
            made = make_images(file, VIEW, force=True)
            if made[0].reason:
                raise ValueError(f"{file.path}: {made[0].detail}")
        return images

    def baseline() -> list[str]:
        images = targets()
        for path, image in zip(headers, images, strict=True):
            straightforward_png(str(path), image, VIEW.windows, VIEW.size)
        return images

    found, expected = ([decode_png(Path(image).read_bytes()) for image in way()] for way in (ours, baseline))
    check_images(found, expected)

    def floor() -> None:
        for path, target, image in zip(headers, targets(), found, strict=True):
            path.read_bytes()
            write_png(target, image)

    name = "DICOM to PNG"
    return [
        _per_slice(f"{name}, one core", ours, baseline, Target("times", 4), PNG_NOTE),
        _per_slice(f"{name} beside reading, encoding and writing alone", ours, floor, Target("share", 1.5), FLOOR_NOTE),
    ]


def keep_memory() -> None:
    """Let this process keep what it frees, where glibc allows it.

    Else either way may, by what lies on the heap, ask the system anew for the memory of each array: arithmetic that
    takes 1.2 ms then takes 1.3 or 4.7.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            libc.mallopt(option, KEPT_BYTES)


def _each(function: Callable[[np.ndarray], np.ndarray], arrays: Sequence[np.ndarray]) -> None:
    for array in arrays:
        function(array)


def _per_slice(
    name: str, ours: Callable[[], object], baseline: Callable[[], object], target: Target, note: str
) -> Comparison:
    """Return the row of two ways to pass all slices once."""
    seconds = alternating(ours, baseline, ROUNDS)
    value, compared = (1e3 * each / SLICES for each in seconds)
    return Comparison(name, "ms a slice", value, target, compared, note)


def check_images(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Check that images agree but for a few values that lie one grey level apart; raises ValueError."""
    apart = np.abs(np.stack(found).astype(np.int16) - np.stack(expected))
    if apart.max() > 1 or (apart > 0).mean() >= MOST_DIFFERENT:
        raise ValueError(
            f"images differ by up to {apart.max()} grey levels, in {(apart > 0).mean():.2%} of all values; "
            f"expected 1, in less than {MOST_DIFFERENT:.2%}"
        )


def sources(headers: dict[Path, Header], images: Sequence[str]) -> list[SourceFile]:
    """Return what `make_images` is to make of files."""
    return [
        SourceFile(
            str(path),
            header.bytes,
            [
                Source(
                    header.frame,
                    header.rows,
                    header.columns,
                    header.bits,
                    header.signed,
                    header.slope,
                    header.intercept,
                    None,
                    image,
                    pixel_offset=header.pixel_offset,
                )
            ],
        )
        for (path, header), image in zip(headers.items(), images, strict=True)
    ]


def _scaling(folder: Path, headers: dict[Path, Header]) -> list[Comparison]:
    """Return the rows of the stages' own loops on all cores."""
    files = _copied(folder / "copies", headers, FILES_A_CORE * cores())
    target = folder / "many"
    images = [f"{target}/{i // SCAN_SLICES}/{path.stem}.png" for i, path in enumerate(files)]
    make = partial(make_images, view=VIEW, force=True)
    return [
        *_on_all_cores("index", read_headers, [str(path) for path in files], target),
        *_on_all_cores("window", make, sources(files, images), target),
    ]


def _on_all_cores(name: str, function: Callable[[Any], Any], items: Sequence[Any], target: Path) -> list[Comparison]:
    """Return the rows of a stage's loop on all cores: beside one process, and beside processes on their own.

    Before each pass what the last one wrote to `target` is removed: images are new, as in a stage's first run.
    """

    def stage(n_jobs: int) -> list[Any]:
        return list(parallel_map(function, items, n_jobs, name))

    def seconds(n_jobs: int) -> float:
        shutil.rmtree(target, ignore_errors=True)
        return seconds_of(partial(stage, n_jobs))

    check_same(name, stage(1), stage(cores()))
    share = len(items) // cores()
    parts = [items[i * share : (i + 1) * share] for i in range(cores())]
    with processes_apart(function, parts) as work_once:

        def seconds_apart() -> float:
            shutil.rmtree(target, ignore_errors=True)
            return work_once()

        measures = (partial(seconds, cores()), partial(seconds, 1), seconds_apart)
        all_, one, apart = medians_in_turn(measures, SCALING_ROUNDS)
    rates, times = [len(items) / each for each in (all_, one)], [1e3 * each / len(items) for each in (all_, apart)]
    note = f"one process; plain processes with files of their own do {one / apart:.2f} times as much"
    return [
        Comparison(f"{name}, all cores", "slices/s", rates[0], Target("times", 0.9 * cores()), rates[1], note),
        Comparison(
            f"{name}, all cores, beside processes on their own", "ms a slice", times[0], Target("share", MOST_SHARING),
            times[1], "as many plain processes, each with its own files: nothing is handed out or gathered",
        ),
    ]  # fmt: skip


def check_same(name: str, one: Sequence[object], all_: Sequence[object]) -> None:
    """Raise ValueError where all cores do not give what one process gives; NaN is equal to NaN."""
    apart = [pair for pair in zip(one, all_, strict=True) if repr(pair[0]) != repr(pair[1])]
    if apart:
        raise ValueError(f"{name}: {len(apart)} of {len(one)} results differ on all cores; the first: {apart[0]}")


def _copied(folder: Path, headers: dict[Path, Header], files: int) -> dict[Path, Header]:
    """Return copies of these files, so many.

    Not links: processes that open one file at once wait for each other in the kernel, as no stage's processes do.
    """
    folder.mkdir()
    copies = {}
    for number, (path, header) in enumerate(islice(cycle(headers.items()), files)):
        copy = folder / f"{number:06d}.dcm"
        shutil.copyfile(path, copy)
        copies[copy] = header
    os.sync()  # else writing them to the disk goes on while others are timed
    return copies


if __name__ == "__main__":
    run_part("window", rows, __doc__.splitlines()[0])
