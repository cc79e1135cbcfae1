"""Feeding slabs of neighbouring slices, and what is to be drawn on the middle one, to the network that draws."""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.core.lesions import slice_parts
from pipeline.learn.hu_images import read_hu, read_mask
from pipeline.learn.loader_processes import item_loader
from pipeline.learn.sampler import GroupSampler
from pipeline.learn.seeds import seed_of

KEPT_IMAGES = 64
"""Images that a process keeps decoded: in the order of a scan, each slice is read once for all slabs that hold it."""

SlabBatch = tuple[Tensor, list[dict[str, Tensor]]]
"""Slabs (images, slices, y, x) int16 in HU, and a dictionary an image as torchvision's detectors want it."""

_kept_hu = lru_cache(maxsize=KEPT_IMAGES)(read_hu)


def slab_rows(bounds: np.ndarray, slab_slices: int) -> np.ndarray:
    """Return the rows (slices, slab_slices) of each slice's slab, from caudal to cranial; beyond its ends, a scan's end
    slice is repeated.

    bounds: (scans + 1,), where each scan begins, and the end, in rows that lie in anatomical order.
    """
    rows = np.arange(bounds[-1])
    scan = np.searchsorted(bounds, rows, side="right") - 1
    places = rows[:, None] + np.arange(slab_slices) - slab_slices // 2
    return np.clip(places, bounds[scan][:, None], bounds[scan + 1][:, None] - 1)


class Slabs(Dataset):
    """Slabs of cached slices and the lesions of their middle slices; asked for (epoch, index).

    paths: images of all rows; slabs: (items, slices), rows of each item; masks: a path an item, None where the slice is
    known, or may be taken, to show no hemorrhage; flip: chance of a horizontal flip.
    """

    def __init__(
        self,
        paths: Sequence[str],
        slabs: np.ndarray,
        masks: Sequence[str | None],
        least_px: int = 1,
        flip: float = 0.0,
        seed: tuple[int, ...] = (),
    ) -> None:
        self.paths = list(paths)
        self.slabs = slabs
        self.masks = list(masks)
        self.least_px = least_px
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return len(self.slabs)

    def __getitem__(self, key: tuple[int, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, index, *_ = key
        rows = self.slabs[index]
        slab = np.stack([_kept_hu(Path(self.paths[row])) for row in rows])
        path = self.masks[index]
        mask = np.zeros(slab.shape[1:], dtype=np.uint8) if path is None else read_mask(Path(path))
        if self.flip and self._chance(epoch, self.paths[rows[len(rows) // 2]]) < self.flip:
            slab, mask = slab[:, :, ::-1], mask[:, ::-1]
        parts = slice_parts(mask, self.least_px)
        return torch.from_numpy(slab.copy()), {
            "boxes": torch.from_numpy(parts.boxes),
            "labels": torch.from_numpy(parts.classes),
            "masks": torch.from_numpy(parts.masks.astype(np.uint8)),
        }

    def _chance(self, epoch: int, path: str) -> float:
        """Return a number in [0, 1) that belongs to the seed, the epoch and the slice."""
        return seed_of(*self.seed, epoch, zlib.crc32(Path(path).stem.encode())) / 2**32


def slab_sampler(positive: np.ndarray, negatives: float, seed: tuple[int, ...]) -> GroupSampler:
    """Return a sampler of all positive items and of some negative ones, drawn anew each epoch.

    positive: (items,), booleans; negatives: how many for each positive item, all of them at 0, or without a positive
    item.
    """
    groups = np.flatnonzero(positive), np.flatnonzero(~positive)
    found, others = map(len, groups)
    return GroupSampler(groups, [found, min(round(negatives * found) or others, others)], seed)


def slab_loader(slabs: Slabs, batch: int, workers: int, sampler: Sampler, drop_last: bool = False) -> DataLoader:
    """Return a loader of SlabBatch, in the order of a sampler of (epoch, index)."""
    return item_loader(slabs, batch, sampler, workers, collate_fn=_collate, drop_last=drop_last)


def _collate(items: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> SlabBatch:
    slabs, targets = zip(*items, strict=True)
    return torch.stack(slabs), list(targets)
