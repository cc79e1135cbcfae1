"""Untrained slice classifiers that behave like trained ones, and batches for them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.nets.build import build_slice_classifier
from pipeline.nets.slice_classifier import SliceClassifier

PASSES, BATCH = 3, 16


def settled_classifier(settings: Settings, images: Tensor, device: torch.device, spread: float) -> SliceClassifier:
    """Return an untrained slice classifier on a device, in evaluation mode, that tells the images apart.

    images: (slices, channels, y, x) uint8. Its batch normalisation has their statistics, and its head is such that each
    label's logits have mean 0 and standard deviation `spread` over them. Without that all slices would be much the same
    to it, and all ways of running it too.
    """
    torch.manual_seed(0)
    network = build_slice_classifier(settings, pretrained=False).to(device).train()
    with torch.no_grad():
        for _ in range(PASSES):
            for part in images.split(BATCH):
                network(part.to(device))
        network.eval()
        logits = torch.cat([network(part.to(device))[1] for part in images.split(BATCH)])
        gain = spread / logits.std(dim=0)
        network.head.bias.sub_(logits.mean(dim=0)).mul_(gain)
        network.head.weight.mul_(gain[:, None])
    return network


def as_batch(images: Sequence[np.ndarray]) -> Tensor:
    """Return images (y, x, channels) as a batch (slices, channels, y, x), channels innermost as the loader's are."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
