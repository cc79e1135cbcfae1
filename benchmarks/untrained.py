"""Untrained slice classifiers that behave like trained ones, and batches for them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.nets.build import build_slice_classifier
from pipeline.nets.slice_classifier import SliceClassifier

PASSES, BATCH = 3, 16


def settled_classifier(settings: Settings, images: Tensor, device: torch.device) -> SliceClassifier:
    """Return an untrained slice classifier on a device, in evaluation mode, that has seen images in training mode.

    images: (slices, channels, y, x) uint8. Its batch normalisation has their statistics: with those of a new network,
    all slices would be much the same to it.
    """
    torch.manual_seed(0)
    network = build_slice_classifier(settings, pretrained=False).to(device).train()
    with torch.no_grad():
        for _ in range(PASSES):
            for part in images.split(BATCH):
                network(part.to(device))
    return network.eval()


def as_batch(images: Sequence[np.ndarray]) -> Tensor:
    """Return images (y, x, channels) as a batch (slices, channels, y, x), channels innermost as the loader's are."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
