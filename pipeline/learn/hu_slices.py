"""Feeding slices in Hounsfield units to a network: decoding, the maximum filter, augmentation by one of four."""

import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.config import Settings
from pipeline.core.hounsfield import PADDING_HU
from pipeline.core.maximum_filter import maximum_filter
from pipeline.core.one_of_four import apply_change, draw_change
from pipeline.core.rows import scan_bounds
from pipeline.learn.hu_images import read_hu
from pipeline.learn.loader_processes import item_loader
from pipeline.learn.sampler import EpochSampler
from pipeline.learn.seeds import seed_of

NO_SPACING = (1.0, 1.0, 1.0)
"""A slice turns in its own plane, where pixels are square."""


class HuSlices(Dataset):
    """Slices behind the maximum filter and their targets; asked for (epoch, index).

    Gives int16 images (1, y, x) in HU and float32 targets (). A slice is the maximum of the images of its block, which
    mostly is its own image alone. Without `seed` nothing is augmented.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[str]],
        slice_ids: Sequence[str],
        targets: np.ndarray,
        settings: Settings,
        seed: tuple[int, ...] | None = None,
    ) -> None:
        self.blocks = [tuple(block) for block in blocks]
        self.slice_ids = list(slice_ids)
        self.targets = torch.from_numpy(np.asarray(targets, dtype=np.float32))
        self.settings = settings
        self.seed = seed

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        epoch, index, *_ = key
        image = filtered_slice(self.blocks[index], self.settings)
        train = self.settings.train
        if self.seed is not None and train.one_of:
            name = zlib.crc32(self.slice_ids[index].encode())
            rng = np.random.default_rng(seed_of(*self.seed, epoch, name))
            most = shift_px(self.settings)
            change = draw_change(rng, train.rotate_deg, (0, most, most), axes=(0,))
            image = np.ascontiguousarray(apply_change(image, change, NO_SPACING, PADDING_HU))
        return torch.from_numpy(image), self.targets[index]


def filter_kernel(settings: Settings) -> tuple[int, int, int]:
    """Return the maximum filter's kernel in voxels (z, y, x)."""
    along_z, along_y, along_x = (int(size) for size in settings.volume.maximum_filter)
    return along_z, along_y, along_x


def shift_px(settings: Settings) -> int:
    """Return the largest shift in pixels behind the maximum filter: the settings' share of the image's side."""
    return round(settings.train.shift * settings.view.size / filter_kernel(settings)[1])


def filtered_slice(paths: Sequence[str], settings: Settings) -> np.ndarray:
    """Return the image (1, y, x) int16 in HU that a block's cached images give."""
    images = np.stack([read_hu(Path(path)) for path in paths])
    return maximum_filter(images, (len(images), *filter_kernel(settings)[1:]))


def slice_blocks(scan_ids: np.ndarray, paths: Sequence[str], along_z: int) -> list[tuple[str, ...]]:
    """Return the images of each slice's block: the `along_z` neighbours of its scan that the maximum filter joins.

    scan_ids, paths: of slices, scan after scan, in anatomical order. All slices of a block have the same.
    """
    blocks: list[tuple[str, ...]] = []
    bounds = scan_bounds(scan_ids)
    for first, end in pairwise(bounds):
        for start in range(first, end, along_z):
            block = tuple(paths[start : min(start + along_z, end)])
            blocks += [block] * len(block)
    return blocks


def embedding_loader(rows: pd.DataFrame, settings: Settings, workers: int) -> DataLoader:
    """Return a loader of (images (slices, 1, y, x) int16 in HU, zeros), in the order of `rows`: what `embed` shows.

    rows: scan_id, slice_id and png, scan after scan in anatomical order. Where the maximum filter joins slices, those
    of a block are all shown the block.
    """
    blocks = slice_blocks(rows["scan_id"].to_numpy(), rows["png"].tolist(), filter_kernel(settings)[0])
    slices = HuSlices(blocks, rows["slice_id"].tolist(), np.zeros(len(rows)), settings)
    return hu_loader(slices, settings.embed.batch, EpochSampler(len(slices)), workers)


def hu_loader(slices: HuSlices, batch: int, sampler: Sampler, workers: int) -> DataLoader:
    """Return a loader of (images (slices, 1, y, x) int16 in HU, targets (slices,))."""
    return item_loader(slices, batch, sampler, workers)
