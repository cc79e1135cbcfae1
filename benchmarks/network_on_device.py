"""Training and embedding slices on a device, as the stages do it, as one would at first, and in other ways tried."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.baselines import straightforward_slice_logits
from benchmarks.comparison import Comparison, Target, alternating, median_seconds
from benchmarks.probabilities import check_probabilities
from benchmarks.training_steps import Batch, StraightforwardSteps, TrainingSteps, plain_convolutions
from pipeline.config import LABELS, Settings
from pipeline.learn.inference import embed_batches, inference_network
from pipeline.learn.modules import SliceModule
from pipeline.learn.slice_data import SliceImages, augmentation, slice_loader
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_slice_classifier
from pipeline.nets.slice_classifier import SliceClassifier

TOLERANCE = 2e-2
"""How far probabilities in mixed precision may lie from those in 32 bits."""
LEAST_SPEARMAN = 0.95
"""Untrained networks find slices more alike than trained ones do, and eight bits of mantissa change their order."""

TRAINING_TRIED: Mapping[str, Mapping[str, Any]] = {
    "Adam not fused": {"is_fused": False},
    "torch.compile": {"compile_mode": "default"},
    "torch.compile, reduce-overhead": {"compile_mode": "reduce-overhead"},
    "batches of 64": {"batch": 64},
    "batches of 128": {"batch": 128},
}
LARGE_BATCH = 256
LONGEST_NOTE = 120

log = logging.getLogger(__name__)


def training_rows(
    settings: Settings,
    images: Tensor,
    device: torch.device,
    steps: int,
    rounds: int,
    names: tuple[str, Target, Target],
) -> list[Comparison]:
    """Return the rows, by ratio and by rate, of the stage's training steps on batches that lie on the device."""
    batch, (name, times, least) = settings.train.batch, names
    batches = labelled_batches(images, batch, device, steps)
    ours = TrainingSteps(_new(settings), settings.train, device)
    plain = StraightforwardSteps(_new(settings), settings.train, device)
    seconds, plain_seconds = alternating(lambda: ours.run(batches), lambda: plain.run(batches), rounds)
    rate, plain_rate = steps * batch / seconds, steps * batch / plain_seconds
    note = f"batches of {batch} on the device; beside 32 bits without TF32, channels outermost, eager"
    return [
        Comparison(name, "images/s", rate, times, plain_rate, note),
        Comparison(f"{name}, rate", "images/s", rate, least),
    ]


def stage_row(settings: Settings, paths: list[str], folder: Path, workers: int, steps: tuple[int, int]) -> Comparison:
    """Return the row of the stage's own loop, loader and Lightning included: by how much longer more steps take."""
    seconds = []
    for count in (steps[0], *steps):  # the first one does not count
        names = [f"{step}-{path}" for step, path in enumerate(_round(paths, count * settings.train.batch))]
        labels = _labels(len(names))
        augment, seed = augmentation(settings.train), (settings.train.seed, 0)
        train = SliceImages(_round(paths, len(names)), names, labels, augment, seed)
        validation = SliceImages(paths[: settings.train.batch], names, labels[: settings.train.batch])
        loaders = [
            slice_loader(images, settings.train.batch, workers, shuffle)
            for images, shuffle in ((train, True), (validation, False))
        ]
        network = _new(settings).to(memory_format=torch.channels_last)
        module = SliceModule(network, settings.train.learning_rates, settings.train.loss_weights, seed)
        began = time.perf_counter()
        fit(module, *loaders, 1, folder, {}, force=True)
        seconds.append(time.perf_counter() - began)
    rate = settings.train.batch * (steps[1] - steps[0]) / (seconds[2] - seconds[1])
    return Comparison("CNN training by the stage's loop, loader included", "images/s", rate)


def training_variants(
    settings: Settings, images: Tensor, device: torch.device, steps: int, rounds: int
) -> list[Comparison]:
    """Return rows of other ways to train, beside nothing but the stage's own row."""

    def rate(batch: int, **way: Any) -> float:
        ours = TrainingSteps(_new(settings), settings.train, device, **way)
        batches = labelled_batches(images, batch, device, steps)
        return steps * batch / median_seconds(lambda: ours.run(batches), rounds)

    return [
        tried_row(f"training tried: {name}", lambda way=way: rate(**{"batch": settings.train.batch, **way}))
        for name, way in TRAINING_TRIED.items()
    ]


def embed_row(
    name: str,
    network: SliceClassifier,
    settings: Settings,
    paths: list[str],
    device: torch.device,
    workers: int,
    rounds: int,
    target: Target,
) -> Comparison:
    """Return the row of the stage's embedding, loader included, after checking the probabilities."""
    quick = inference_network(network, device)
    loader = _loader(paths, settings.embed.batch, workers)
    images, labels = next(iter(loader))
    ((_, found),) = embed_batches(quick, [(images, labels)], device)
    check_probabilities(found, straightforward_probabilities(network, images.to(device)), TOLERANCE, LEAST_SPEARMAN)

    def plain() -> None:
        for batch, _labels in loader:
            straightforward_probabilities(network, batch.to(device))

    seconds, plain_seconds = alternating(lambda: _embed(quick, loader, device), plain, rounds)
    note = f"loader included, batches of {settings.embed.batch}; beside 32 bits without TF32, channels outermost"
    return Comparison(name, "images/s", len(paths) / seconds, target, len(paths) / plain_seconds, note)


def embed_variants(
    network: SliceClassifier, settings: Settings, paths: list[str], device: torch.device, workers: int, rounds: int
) -> list[Comparison]:
    """Return rows of other ways to embed, loader included."""
    quick = inference_network(network, device)
    loader = _loader(paths, settings.embed.batch, workers)
    tried = {
        "batch normalisation not folded": lambda: (network.to(memory_format=torch.channels_last), loader),
        f"batches of {LARGE_BATCH}": lambda: (quick, _loader(paths, LARGE_BATCH, workers)),
        "torch.compile": lambda: (torch.compile(quick), loader),
        "torch.compile, reduce-overhead": lambda: (torch.compile(quick, mode="reduce-overhead"), loader),
    }

    def rate(way: Callable[[], tuple[Any, DataLoader]]) -> float:
        slices, batches = way()
        return len(paths) / median_seconds(lambda: _embed(slices, batches, device), rounds)

    return [tried_row(f"embed tried: {name}", lambda way=way: rate(way)) for name, way in tried.items()]


def tried_row(name: str, rate: Callable[[], float]) -> Comparison:
    """Return the row of a way that is tried, or what it fails with where this machine cannot go it."""
    log.info("%s", name)
    try:
        return Comparison(name, "images/s", rate())
    except RuntimeError as error:  # out of memory, no compiler: no reason to lose the other rows
        return Comparison(name, "images/s", None, note=" ".join(str(error).split())[:LONGEST_NOTE])
    finally:
        torch.cuda.empty_cache()


def straightforward_probabilities(network: SliceClassifier, images: Tensor) -> np.ndarray:
    """Return probabilities (slices, 6) float64 in 32 bits of images (slices, channels, y, x)."""
    with torch.inference_mode(), plain_convolutions():
        return straightforward_slice_logits(network, images).double().sigmoid().cpu().numpy()


def labelled_batches(images: Tensor, batch: int, device: torch.device, count: int) -> list[Batch]:
    """Return so many batches on the device: the images round and round, with labels drawn at random."""
    indices = torch.arange(count * batch) % len(images)
    labels = torch.from_numpy(_labels(count * batch))
    return [
        (images[pick].to(device), own.to(device))
        for pick, own in zip(indices.split(batch), labels.split(batch), strict=True)
    ]


def _labels(count: int) -> np.ndarray:
    return (np.random.default_rng(0).random((count, len(LABELS))) < 0.3).astype(np.float32)


def _round(paths: list[str], count: int) -> list[str]:
    return [paths[index % len(paths)] for index in range(count)]


def _loader(paths: list[str], batch: int, workers: int) -> DataLoader:
    return slice_loader(SliceImages(paths, paths), batch, workers, shuffle=False)


def _embed(network: SliceClassifier, loader: Iterable[Batch], device: torch.device) -> None:
    for _embeddings, _probabilities in embed_batches(network, loader, device):
        pass


def _new(settings: Settings) -> SliceClassifier:
    return build_slice_classifier(settings, pretrained=False)
