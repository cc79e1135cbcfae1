"""Memory of stages at ten thousand and at a hundred thousand slices: `python -m benchmarks.memory`.

Lays out a data set of tiny slices of each size, runs the stages on it, each a process of its own, and compares the
peaks of their largest processes. Five minutes on two cores, 0.6 GB of disk.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.comparison import Comparison, Target
from benchmarks.measure import MB, measure
from benchmarks.parts import THREADS, run_part
from benchmarks.tiny_files import lay_out_raw, tiny_slices
from pipeline.__main__ import make_job, parser
from pipeline.job import Job
from pipeline.nets.build import build_sequence, build_slice_classifier
from pipeline.shell.network_files import save_network

log = logging.getLogger(__name__)

SMALL, LARGE = 10_000, 100_000
"""Slices."""

SEED = 0

CONSTANT = ("window", "embed", "reduce")
"""Stages whose memory does not depend on the number of slices."""
CONSTANT_SHARE = 1.1

PER_SLICE = ("index", "predict")
"""Stages that hold their tables."""
PER_SLICE_BYTES = 2048

STAGES = ("index", "split", "window", "embed", "reduce", "predict")
"""In the order of the pipeline; what `train` and `sequence` leave is made here: networks that learnt nothing."""
FOLD = 0
OF_FOLD = ("embed", "reduce", "predict")

SETTINGS = ("view.size=16", "train.encoder=test_efficientnet")
"""An encoder that is done with a hundred thousand images in two minutes."""


def rows() -> list[Comparison]:
    """Measure the stages at both sizes, and return a row each."""
    small, large = peaks_mb(SMALL), peaks_mb(LARGE)
    return compared(small, large, LARGE - SMALL)


def compared(small: Mapping[str, float], large: Mapping[str, float], more_slices: int) -> list[Comparison]:
    """Return a row a stage of its peak memory in MB at the smaller and at the larger size."""
    note = f"peak of the largest process at {LARGE:,} slices; straightforward: at {SMALL:,}"
    constant = [
        Comparison(f"memory: {stage}", "MB", large[stage], Target("share", CONSTANT_SHARE), small[stage], note)
        for stage in CONSTANT
    ]
    return constant + [
        Comparison(
            f"memory: {stage}",
            "bytes a slice",
            (large[stage] - small[stage]) * MB / more_slices,
            Target("most", PER_SLICE_BYTES),
            note=f"what {LARGE:,} slices take more than {SMALL:,}: peak {large[stage]:,.0f} MB, {small[stage]:,.0f} MB",
        )
        for stage in PER_SLICE
    ]


def peaks_mb(slices: int) -> dict[str, float]:
    """Return each stage's peak memory in MB on a data set of so many slices."""
    with tempfile.TemporaryDirectory(prefix="memory-") as scratch:
        return run(Path(scratch).resolve(), slices)


def run(folder: Path, slices: int) -> dict[str, float]:
    """Lay out a data set of so many slices in a folder, run the stages, and return their peak memory in MB.

    Raises RuntimeError where a stage fails.
    """
    arguments = ["--dataset", "tiny-slices", "--recipe", "tiny", "--threads", str(THREADS), "--set", *SETTINGS]
    job = make_job(parser().parse_args(["predict", *arguments]))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    log.info("%d slices: writing files", slices)
    lay_out_raw(folder, job.paths, tiny_slices(slices, SEED), SEED)
    lay_out_networks(folder, job)
    found = {}
    for stage in STAGES:
        fold = ["--fold", str(FOLD)] if stage in OF_FOLD else []
        command = [sys.executable, "-m", "pipeline", stage, *arguments, *fold]
        seconds, found[stage] = measure(command, folder, environment)
        log.info("%d slices: %s: %.1f s, %.0f MB", slices, stage, seconds, found[stage])
    return found


def lay_out_networks(folder: Path, job: Job) -> None:
    """Write the fold's untrained networks where `train` and `sequence` would."""
    settings = job.run.settings
    save_network(folder / job.paths.cnn(FOLD), build_slice_classifier(settings, pretrained=False))
    save_network(folder / job.paths.sequence(FOLD), build_sequence(settings, settings.reduce.count))


if __name__ == "__main__":
    run_part("memory", rows, __doc__.splitlines()[0])
