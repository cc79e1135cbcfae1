"""Cached images like those of a run: slices of phantom heads through a view's windows."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.config import View
from pipeline.core.phantom.plan import MIN_SCANS, make_plan
from pipeline.core.phantom.scan import build_scan, draw_slices
from pipeline.core.windows import window_image
from pipeline.shell.png import write_png

SEED = 0


def phantom_images(view: View, count: int) -> list[np.ndarray]:
    """Return so many images (y, x, windows) uint8, one phantom scan after the other."""
    return list(islice(_images(view), count))


def write_pngs(folder: Path, view: View, count: int) -> list[str]:
    """Write so many images into a folder as the stage `window` does, and return their paths."""
    paths = [folder / f"ID_{number:09x}.png" for number in range(count)]
    for path, image in zip(paths, phantom_images(view, count), strict=True):
        write_png(path, image)
    return list(map(str, paths))


def _images(view: View) -> Iterator[np.ndarray]:
    for plan in make_plan(MIN_SCANS, SEED):
        for drawn in draw_slices(build_scan(plan, SEED)):
            yield window_image(drawn.hu, view.windows, view.size)
