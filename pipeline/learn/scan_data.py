"""Feeding whole scans to the sequence model: reduced features, probabilities and labels, slices in anatomical order."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.learn.sampler import EpochSampler

ScanBatch = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Features (slices, features), probabilities (slices, 6) and labels (slices, 6), one tensor a scan."""


class Scans(Dataset):
    """Scans cut from arrays over slices at `bounds` (scans + 1,); asked for (epoch, index)."""

    def __init__(self, features: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, bounds: np.ndarray) -> None:
        self.features = features
        self.probabilities = probabilities
        self.labels = labels
        self.bounds = bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        rows = slice(self.bounds[key[1]], self.bounds[key[1] + 1])
        features, probabilities, labels = (
            torch.from_numpy(array[rows].astype(np.float32))
            for array in (self.features, self.probabilities, self.labels)
        )
        return features, probabilities, labels


def scan_loader(scans: Scans, batch_scans: int, seed: tuple[int, ...] | None) -> DataLoader:
    """Return a loader of ScanBatch; shuffled where a seed is given. The data lie in memory: no workers."""
    return DataLoader(scans, batch_size=batch_scans, sampler=EpochSampler(len(scans), seed), collate_fn=_collate)


def _collate(scans: Sequence[tuple[Tensor, Tensor, Tensor]]) -> ScanBatch:
    features, probabilities, labels = zip(*scans, strict=True)
    return list(features), list(probabilities), list(labels)
