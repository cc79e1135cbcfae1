"""Embedding and training the slice classifiers beside the straightforward way: `python -m benchmarks.network`.

A minute and a half; on a GPU, where the training is measured too and other ways of it are tried, some eight minutes.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.baselines import straightforward_slice_logits
from benchmarks.comparison import NO_GPU, Comparison, Target, alternating, median_seconds
from benchmarks.parts import THREADS, run_part
from benchmarks.phantom_pngs import phantom_images, write_pngs
from benchmarks.training_steps import Batch, PlainSteps, TrainingSteps, plain_convolutions
from benchmarks.untrained import as_batch, settled_classifier
from pipeline.config import LABELS, Settings, recipe
from pipeline.learn.devices import choose_gpu
from pipeline.learn.inference import embed_batches, inference_network
from pipeline.learn.slice_data import SliceImages, slice_loader
from pipeline.nets.build import build_slice_classifier
from pipeline.nets.slice_classifier import SliceClassifier

QUICKSTART, BURDUJA = recipe("quickstart").settings, recipe("burduja2020").settings

CPU_TIMES, GPU_TIMES = 3.0, 4.0
TRAIN_RATE, EMBED_RATE = 1012.0, 4000.0
"""Images a second."""

CPU_TOLERANCE, GPU_TOLERANCE, LEAST_SPEARMAN = 1e-2, 2e-2, 0.999
"""How far probabilities may lie from those in 32 bits, and how alike their order is at least."""

TRAINING, EMBEDDING = "CNN training, ResNeXt-101 32x8d, 256 px", "embed, ResNeXt-101 32x8d, 256 px"
GPU_STEPS, GPU_ROUNDS = 12, 5
GPU_PNGS, GPU_REPEATS = 96, 64

log = logging.getLogger(__name__)


def rows() -> list[Comparison]:
    """Measure both recipes' networks on the CPU, and burduja2020's on a GPU where there is one."""
    torch.set_num_threads(THREADS)
    note = "one image at a time, channels outermost, nothing folded"
    found = [
        cpu_embed_row("embed on the CPU, ResNet-14-T, 96 px", QUICKSTART, 96, 5, Target("times", CPU_TIMES), note),
        cpu_embed_row("embed on the CPU, ResNeXt-101 32x8d, 256 px", BURDUJA, 4, 3, None, note),
    ]
    return found + (gpu_rows() if torch.cuda.is_available() else unmeasured())


def unmeasured() -> list[Comparison]:
    """Return the rows that need a GPU, without figures."""
    return [
        Comparison(TRAINING, "images/s", None, Target("times", GPU_TIMES), note=NO_GPU),
        Comparison(f"{TRAINING}, rate", "images/s", None, Target("least", TRAIN_RATE), note=NO_GPU),
        Comparison(EMBEDDING, "images/s", None, Target("least", EMBED_RATE), note=NO_GPU),
    ]


def cpu_embed_row(
    name: str, settings: Settings, count: int, rounds: int, target: Target | None, note: str
) -> Comparison:
    """Return the row of embedding so many phantom slices on the CPU, after checking the probabilities."""
    images = as_batch(phantom_images(settings.view, count))
    cpu = torch.device("cpu")
    network = settled_classifier(settings, images, cpu)
    quick = inference_network(network, cpu)
    batches = [(part, torch.zeros(len(part), 0)) for part in images.split(settings.embed.batch)]

    def ours() -> np.ndarray:
        return np.concatenate([probabilities for _, probabilities in embed_batches(quick, batches, cpu)])

    def plain() -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate(
                [probabilities_of(straightforward_slice_logits(network, image[None])) for image in images]
            )

    check_probabilities(ours(), plain(), CPU_TOLERANCE)
    seconds, plain_seconds = alternating(ours, plain, rounds)
    return Comparison(name, "ms an image", 1e3 * seconds / count, target, 1e3 * plain_seconds / count, note)


def gpu_rows() -> list[Comparison]:
    """Measure training and embedding on the GPU, and the ways tried beside them."""
    choose_gpu(0)
    device, workers = torch.device("cuda"), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="network-") as folder:
        paths = write_pngs(Path(folder), BURDUJA.view, GPU_PNGS)
        images = as_batch(phantom_images(BURDUJA.view, GPU_PNGS))
        return [
            *training_rows(BURDUJA, images, device, GPU_STEPS, GPU_ROUNDS),
            *training_variants(BURDUJA, images, device, GPU_STEPS, GPU_ROUNDS),
            *embed_rows(BURDUJA, paths * GPU_REPEATS, images, device, workers, GPU_ROUNDS),
        ]


def training_rows(
    settings: Settings, images: Tensor, device: torch.device, steps: int, rounds: int
) -> list[Comparison]:
    """Return the rows of the stage's training steps on batches that lie on the device."""
    batches = labelled_batches(images, settings.train.batch, device, steps)
    ours = TrainingSteps(build_slice_classifier(settings, pretrained=False), settings.train, device)
    plain = PlainSteps(build_slice_classifier(settings, pretrained=False), settings.train, device)
    seconds, plain_seconds = alternating(lambda: ours.run(batches), lambda: plain.run(batches), rounds)
    rate, plain_rate = (steps * settings.train.batch / spent for spent in (seconds, plain_seconds))
    note = f"batches of {settings.train.batch} on the device, 32 bits without TF32, channels outermost, eager"
    return [
        Comparison(TRAINING, "images/s", rate, Target("times", GPU_TIMES), plain_rate, note),
        Comparison(f"{TRAINING}, rate", "images/s", rate, Target("least", TRAIN_RATE)),
    ]


def training_variants(
    settings: Settings, images: Tensor, device: torch.device, steps: int, rounds: int
) -> list[Comparison]:
    """Return rows of other ways to train, each beside nothing but the stage's own row above."""
    tried = {
        "plain Adam": {"is_fused": False},
        "torch.compile": {"compile_mode": "default"},
        "torch.compile, reduce-overhead": {"compile_mode": "reduce-overhead"},
        "batches of 64": {"batch": 64},
        "batches of 128": {"batch": 128},
    }
    found = []
    for name, way in tried.items():
        options = dict(way)
        batch = options.pop("batch", settings.train.batch)

        def measured(batch: int = batch, options: dict = options) -> float:
            network = build_slice_classifier(settings, pretrained=False)
            stepper = TrainingSteps(network, settings.train, device, **options)
            batches = labelled_batches(images, batch, device, steps)
            return steps * batch / median_seconds(lambda: stepper.run(batches), rounds)

        found.append(tried_row(f"training tried: {name}", measured))
    return found


def embed_rows(
    settings: Settings, paths: list[str], images: Tensor, device: torch.device, workers: int, rounds: int
) -> list[Comparison]:
    """Return the rows of the stage's embedding, loader included, and of other ways."""
    network = settled_classifier(settings, images, device)
    quick = inference_network(network, device)
    loader = slice_loader(SliceImages(paths, paths), settings.embed.batch, workers, shuffle=False)
    loader_of_256 = slice_loader(SliceImages(paths, paths), 256, workers, shuffle=False)

    def ours() -> None:
        for _batch in embed_batches(quick, loader, device):
            pass

    def plain() -> None:
        for batch, _labels in loader:
            plain_probabilities(network, batch.to(device))

    few = images[: settings.embed.batch]
    found = np.concatenate([p for _, p in embed_batches(quick, [(few, torch.zeros(len(few), 0))], device)])
    check_probabilities(found, plain_probabilities(network, few.to(device)), GPU_TOLERANCE, least_spearman=0)
    seconds, plain_seconds = alternating(ours, plain, rounds)
    rate, plain_rate = len(paths) / seconds, len(paths) / plain_seconds
    note = f"loader included; batches of {settings.embed.batch}, 32 bits without TF32, channels outermost"

    def tried(way: nn.Module, batches: object = loader) -> Callable[[], float]:
        return lambda: len(paths) / median_seconds(lambda: list(embed_batches(way, batches, device)), rounds)

    unfolded = network.to(memory_format=torch.channels_last)
    return [
        Comparison(EMBEDDING, "images/s", rate, Target("least", EMBED_RATE), plain_rate, note),
        tried_row("embed tried: batch normalisation not folded", tried(unfolded)),
        tried_row("embed tried: batches of 256", tried(quick, loader_of_256)),
        tried_row("embed tried: torch.compile", tried(torch.compile(quick, dynamic=False))),
        tried_row("embed tried: torch.compile, reduce-overhead", tried(torch.compile(quick, mode="reduce-overhead"))),
    ]


def tried_row(name: str, rate: Callable[[], float]) -> Comparison:
    """Return the row of a way that is tried, with what it fails with where this machine cannot go it."""
    log.info("%s", name)
    try:
        return Comparison(name, "images/s", rate())
    except RuntimeError as error:  # out of memory, no compiler: no reason to lose the other rows
        return Comparison(name, "images/s", None, note=" ".join(str(error).split())[:120])
    finally:
        torch.cuda.empty_cache()


def plain_probabilities(network: SliceClassifier, images: Tensor) -> np.ndarray:
    """Return probabilities (slices, 6) in 32 bits."""
    with torch.inference_mode(), plain_convolutions():
        return probabilities_of(straightforward_slice_logits(network, images))


def probabilities_of(logits: Tensor) -> np.ndarray:
    """Return probabilities (slices, 6) float64."""
    return logits.double().sigmoid().cpu().numpy()


def check_probabilities(
    found: np.ndarray, expected: np.ndarray, tolerance: float, least_spearman: float = LEAST_SPEARMAN
) -> None:
    """Check probabilities (slices, 6) against those in 32 bits; raises ValueError where they or their order differ."""
    worst = np.abs(found - expected).max()
    alike = min(spearmanr(found[:, k], expected[:, k]).statistic for k in range(len(LABELS)))
    if not worst <= tolerance or not alike >= least_spearman:
        raise ValueError(f"probabilities differ by {worst:.2g}, at most {tolerance:g}; Spearman {alike:.5f}")


def labelled_batches(images: Tensor, batch: int, device: torch.device, count: int) -> list[Batch]:
    """Return so many batches on the device: the images round and round, with labels drawn at random."""
    rng = np.random.default_rng(0)
    picks = np.arange(count * batch).reshape(count, batch) % len(images)
    labels = (rng.random((count, batch, len(LABELS))) < 0.3).astype(np.float32)
    return [
        (images[torch.from_numpy(pick)].to(device), torch.from_numpy(own).to(device))
        for pick, own in zip(picks, labels, strict=True)
    ]


if __name__ == "__main__":
    run_part("network", rows, __doc__.splitlines()[0])
