"""Running trained networks: embeddings and probabilities of slices, probabilities of scans."""

from collections.abc import Iterator
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


def embed_slices(network: "SliceClassifier", loader: DataLoader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield embeddings (slices, width) float16 and probabilities (slices, 6) float64, batch by batch."""
    where = device()
    network = network.to(where, memory_format=torch.channels_last).eval()
    for images, _labels in loader:
        with torch.inference_mode(), _autocast(where):
            embeddings, logits = network(images.to(where, non_blocking=True))
        yield _half(embeddings), _sigmoid(logits)


def predict_scans(network: ScanBiLSTM, loader: DataLoader) -> np.ndarray:
    """Return probabilities (slices, 6) float64 of all scans of a loader, in its order."""
    where = device()
    network = network.to(where).eval()
    found = []
    for features, probabilities, _labels in loader:
        with torch.inference_mode():
            logits = network([f.to(where) for f in features], [p.to(where) for p in probabilities])
        found.append(_sigmoid(logits))
    return np.concatenate(found)


def _autocast(where: torch.device) -> AbstractContextManager:
    if where.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)


def _half(embeddings: Tensor) -> np.ndarray:
    # float16's largest number: a runaway activation must not become infinity in a table.
    limit = torch.finfo(torch.float16).max
    return embeddings.float().clamp(-limit, limit).to(torch.float16).cpu().numpy()


def _sigmoid(logits: Tensor) -> np.ndarray:
    """Return probabilities in float64: in float32 every logit above 17 would be exactly 1."""
    return logits.double().sigmoid().cpu().numpy()
