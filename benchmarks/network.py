"""Embedding and training the slice classifiers beside the straightforward way: `python -m benchmarks.network`.

A minute and a half; on a GPU, where other ways of training and embedding are tried too, some eight minutes.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.comparison import NO_GPU, Comparison, Target, alternating
from benchmarks.network_on_device import (
    embed_row,
    embed_variants,
    stage_row,
    straightforward_probabilities,
    training_rows,
    training_variants,
)
from benchmarks.parts import THREADS, run_part
from benchmarks.phantom_pngs import phantom_images, write_pngs
from benchmarks.probabilities import check_probabilities
from benchmarks.untrained import as_batch, settled_classifier
from pipeline.config import Settings
from pipeline.learn.devices import choose_gpu
from pipeline.learn.inference import embed_batches, inference_network
from pipeline.runs import recipe

QUICKSTART, BURDUJA = recipe("quickstart").settings, recipe("burduja2020").settings

TRAINING = "CNN training, ResNeXt-101 32x8d, 256 px"
EMBEDDING = "embed, ResNeXt-101 32x8d, 256 px"
CPU_TIMES, GPU_TIMES = Target("times", 3), Target("times", 4)
TRAINING_RATE, EMBEDDING_RATE = Target("least", 1012), Target("least", 4000)

CPU_TOLERANCE = 1e-2
CPU_SPREAD, GPU_SPREAD = 1.0, 0.25
"""Standard deviation of the logits; smaller in mixed precision, which the depths of an untrained network magnify."""
QUICKSTART_IMAGES, BURDUJA_IMAGES = 96, 4

GPU_PNGS, GPU_REPEATS = 96, 32
"""Different images, and how often each is embedded."""
GPU_STEPS, STAGE_STEPS = 12, (32, 160)
ROUNDS = 5


def rows() -> list[Comparison]:
    """Measure both recipes' networks on the CPU, and burduja2020's on a GPU where there is one."""
    torch.set_num_threads(THREADS)
    found = [
        cpu_embed_row("embed on the CPU, ResNet-14-T, 96 px", QUICKSTART, QUICKSTART_IMAGES, ROUNDS, CPU_TIMES),
        cpu_embed_row("embed on the CPU, ResNeXt-101 32x8d, 256 px", BURDUJA, BURDUJA_IMAGES, ROUNDS, None),
    ]
    if torch.cuda.is_available():
        return found + gpu_rows()
    return found + [
        Comparison(name, "images/s", None, target, note=NO_GPU)
        for name, target in ((TRAINING, GPU_TIMES), (f"{TRAINING}, rate", TRAINING_RATE), (EMBEDDING, EMBEDDING_RATE))
    ]


def cpu_embed_row(name: str, settings: Settings, count: int, rounds: int, target: Target | None) -> Comparison:
    """Return the row of embedding so many phantom slices on the CPU, after checking the probabilities."""
    images, cpu = as_batch(phantom_images(settings.view, count)), torch.device("cpu")
    network = settled_classifier(settings, images, cpu, CPU_SPREAD)
    quick = inference_network(network, cpu)
    batches = [(part, torch.empty(0)) for part in images.split(settings.embed.batch)]

    def ours() -> np.ndarray:
        return np.concatenate([probabilities for _, probabilities in embed_batches(quick, batches, cpu)])

    def one_by_one() -> np.ndarray:
        return np.concatenate([straightforward_probabilities(network, image[None]) for image in images])

    check_probabilities(ours(), one_by_one(), CPU_TOLERANCE)
    seconds, plain_seconds = alternating(ours, one_by_one, rounds)
    note = "one image at a time, channels outermost; here as many as the cache holds"
    return Comparison(name, "ms an image", 1e3 * seconds / count, target, 1e3 * plain_seconds / count, note)


def gpu_rows() -> list[Comparison]:
    """Measure training and embedding on the GPU, and the ways tried beside them."""
    choose_gpu(0)
    device, workers = torch.device("cuda"), len(os.sched_getaffinity(0))
    images = as_batch(phantom_images(BURDUJA.view, GPU_PNGS))
    with tempfile.TemporaryDirectory(prefix="network-") as scratch:
        folder = Path(scratch)
        paths = write_pngs(folder, BURDUJA.view, GPU_PNGS)
        found = training_rows(BURDUJA, images, device, GPU_STEPS, ROUNDS, (TRAINING, GPU_TIMES, TRAINING_RATE))
        found.append(stage_row(BURDUJA, paths, folder / "runs", workers, STAGE_STEPS))
        found += training_variants(BURDUJA, images, device, GPU_STEPS, ROUNDS)
        network = settled_classifier(BURDUJA, images, device, GPU_SPREAD)
        paths *= GPU_REPEATS
        found.append(embed_row(EMBEDDING, network, BURDUJA, paths, device, workers, ROUNDS, EMBEDDING_RATE))
        return found + embed_variants(network, BURDUJA, paths, device, workers, ROUNDS)


if __name__ == "__main__":
    run_part("network", rows, __doc__.splitlines()[0])
