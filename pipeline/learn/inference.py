"""Running trained networks: embeddings and probabilities of slices, probabilities of scans."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.learn.devices import device
from pipeline.nets.scan_bilstm import ScanBiLSTM

if TYPE_CHECKING:  # it brings timm, which predicting scans can do without
    from pipeline.nets.slice_classifier import SliceClassifier

CPU_CHUNK_PIXELS = 16 * 96 * 96
"""Pixels that go through a network together on a CPU: with more, what one layer leaves has gone from the cache before
the next layer reads it."""


def embed_slices(network: "SliceClassifier", loader: DataLoader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield embeddings (slices, width) float16 and probabilities (slices, 6) float64, batch by batch.

    One batch is under way while the one before it is handed out: a GPU does not wait for whoever writes them down.
    """
    where = device()
    yield from embed_batches(inference_network(network, where), loader, where)


def embed_batches(
    network: "SliceClassifier", batches: Iterable[tuple[Tensor, Tensor]], where: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what `embed_slices` does of batches of (images, labels), by a network that `inference_network` made."""
    underway = None
    for images, _labels in batches:
        started = _start(network, images.to(where, non_blocking=True))
        if underway is not None:
            yield _finish(*underway)
        underway = started
    if underway is not None:
        yield _finish(*underway)


def inference_network(network: "SliceClassifier", where: torch.device) -> "SliceClassifier":
    """Return a slice classifier as it runs fastest on a device: batch normalisation folded, channels last."""
    from pipeline.nets.folded import folded

    return folded(network).to(where, memory_format=torch.channels_last)


def run_slices(network: "SliceClassifier", images: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings (slices, width) and logits (slices, 6) of images (slices, channels, y, x) on their device.

    On a GPU in mixed precision and all at once; on a CPU in 32 bits, and as many at a time as its cache holds.
    """
    with torch.inference_mode(), _autocast(images.device):
        if images.device.type != "cpu":
            return network(images)
        count = max(1, CPU_CHUNK_PIXELS // images[0, 0].numel())
        embeddings, logits = zip(*(network(chunk) for chunk in images.split(count)), strict=True)
        return torch.cat(embeddings), torch.cat(logits)


def _start(network: "SliceClassifier", images: Tensor) -> tuple[Tensor, Tensor, torch.cuda.Event | None]:
    """Begin a batch; return what will be its embeddings and probabilities, and what tells that they are there."""
    embeddings, logits = run_slices(network, images)
    # float16's largest number: a runaway activation must not become infinity in a table.
    limit = torch.finfo(torch.float16).max
    half = embeddings.float().clamp(-limit, limit).to(torch.float16)
    # Into pinned memory, from a GPU: the copies are then made while this process goes on.
    half, probabilities = (found.to("cpu", non_blocking=True) for found in (half, _sigmoid(logits)))
    if images.device.type != "cuda":
        return half, probabilities, None
    event = torch.cuda.Event()
    event.record()
    return half, probabilities, event


def _finish(embeddings: Tensor, probabilities: Tensor, event: torch.cuda.Event | None) -> tuple[np.ndarray, np.ndarray]:
    if event is not None:
        event.synchronize()
    return embeddings.numpy(), probabilities.numpy()


def predict_scans(network: ScanBiLSTM, loader: DataLoader) -> np.ndarray:
    """Return probabilities (slices, 6) float64 of all scans of a loader, in its order."""
    where = device()
    network = network.to(where).eval()
    found = []
    for features, probabilities, _labels in loader:
        with torch.inference_mode():
            logits = network([f.to(where) for f in features], [p.to(where) for p in probabilities])
        found.append(_sigmoid(logits).cpu().numpy())
    return np.concatenate(found)


def _autocast(where: torch.device) -> AbstractContextManager:
    if where.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)


def _sigmoid(logits: Tensor) -> Tensor:
    """Return probabilities in float64: in float32 every logit above 17 would be exactly 1."""
    return logits.double().sigmoid()
