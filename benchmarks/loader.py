"""The training loader beside decoding and augmenting in the process that trains: `python -m benchmarks.loader`.

On a GPU also whether the loader keeps up with it. 30 seconds, and a minute more on a GPU.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.baselines import StraightforwardImages, straightforward_loader
from benchmarks.comparison import NO_GPU, Comparison, Target, alternating
from benchmarks.parts import THREADS, run_part
from benchmarks.phantom_pngs import write_pngs
from benchmarks.training_steps import TrainingSteps
from pipeline.config import LABELS, Settings
from pipeline.learn.devices import choose_gpu
from pipeline.learn.slice_data import SliceImages, augmentation, slice_loader
from pipeline.nets.build import build_slice_classifier
from pipeline.runs import recipe

SETTINGS = recipe("burduja2020").settings
SEED = (0, 0)

PNGS, REPEATS = 96, 12
"""Different images, and how often an epoch holds each: under another slice id, so each is augmented in its own way."""

ROUNDS = 5
GPU_STEPS = 96
SHARE_OF_CORES = 0.9
SHARE_OF_DEVICE = 0.95


def rows() -> list[Comparison]:
    """Measure the loader with as many workers as there are cores, and on a GPU the training that it feeds."""
    torch.set_num_threads(THREADS)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="loader-") as folder:
        paths = write_pngs(Path(folder), SETTINGS.view, PNGS)
        found = [loader_row(paths * REPEATS, SETTINGS, cores, ROUNDS)]
        if torch.cuda.is_available():
            choose_gpu(0)
            loader = loaders(paths * (1 + GPU_STEPS * SETTINGS.train.batch // PNGS), SETTINGS, cores)[0]
            network = build_slice_classifier(SETTINGS, pretrained=False)
            share = fed_share(TrainingSteps(network, SETTINGS.train, torch.device("cuda")), loader, ROUNDS)
            note = "of the rate of the same steps on batches that lie on the device"
        else:
            share, note = None, NO_GPU
    least = Target("least", SHARE_OF_DEVICE)
    found.append(Comparison("training steps fed by the loader", "of the device's rate", share, least, note=note))
    return found


def loaders(paths: list[str], settings: Settings, workers: int) -> tuple[DataLoader, DataLoader]:
    """Return the pipeline's training loader and the straightforward one, of the same images in the same order."""
    slice_ids = [f"{Path(path).stem}-{number}" for number, path in enumerate(paths)]
    labels = (np.random.default_rng(0).random((len(paths), len(LABELS))) < 0.3).astype(np.float32)
    ours = SliceImages(paths, slice_ids, labels, augmentation(settings.train), SEED)
    plain = StraightforwardImages(paths, slice_ids, labels, augmentation(settings.train), SEED)
    batch = settings.train.batch
    return slice_loader(ours, batch, workers, shuffle=True), straightforward_loader(plain, batch)


def loader_row(paths: list[str], settings: Settings, workers: int, rounds: int) -> Comparison:
    """Check that both loaders give the same, and return the row of their rates."""
    ours, plain = loaders(paths, settings, workers)
    check_same_batches(ours, plain)
    images = len(plain) * settings.train.batch
    seconds, plain_seconds = alternating(lambda: consume(ours), lambda: consume(plain), rounds)
    return Comparison(
        "training loader, 256 px",
        "images/s",
        images / seconds,
        Target("times", SHARE_OF_CORES * workers),
        images / plain_seconds,
        "PNG and augmentation one image after the other in the process that trains; "
        f"here {workers} {'process' if workers == 1 else 'processes'} of their own",
    )


def consume(loader: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Take all batches of an epoch."""
    for _batch in loader:
        pass


def check_same_batches(ours: DataLoader, plain: DataLoader) -> None:
    """Check that two loaders give the same images and labels in the same order; raises ValueError."""
    for number, (mine, other) in enumerate(zip(ours, plain, strict=True)):
        if not all(torch.equal(a, b) for a, b in zip(mine, other, strict=True)):
            raise ValueError(f"batch {number}: the loaders give different images or labels")


def fed_share(steps: TrainingSteps, loader: DataLoader, rounds: int) -> float:
    """Return the rate of training steps that a loader feeds, as a share of that on batches on the device.

    steps and loader stay what they are from one round to the next; the first of each does not count.
    """
    batch = next(iter(loader))
    on_device = [tuple(part.to(steps.device) for part in batch)] * len(loader)
    fed_seconds, seconds = alternating(lambda: steps.run(loader), lambda: steps.run(on_device), rounds)
    return seconds / fed_seconds


if __name__ == "__main__":
    run_part("loader", rows, __doc__.splitlines()[0])
