"""Feeding the dense network: runs of neighbouring slices with their masks, balanced or not, and whole scans."""

import math
import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.config import Settings, Train
from pipeline.core.rows import scan_bounds
from pipeline.core.slice_runs import centred_runs
from pipeline.learn.hu_images import read_hu, read_mask
from pipeline.learn.loader_processes import item_loader
from pipeline.learn.sampler import EpochSampler, GroupSampler, both_classes
from pipeline.learn.seeds import seed_of
from pipeline.learn.slice_data import seed_augmentation

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
import albumentations as A

RunBatch = tuple[Tensor, Tensor, Tensor]
"""HU (runs, slices, y, x), hemorrhage (runs, slices), masks (runs, slices, y, x) or (runs, slices, 0, 0)."""


def run_augmentation(train: Train) -> A.Compose:
    """Return what the settings' augmentation does to where pixels lie: flip, rotation, shift, scale.

    What comes into the image from outside is air, or the darkest that the network sees. Source for flip and rotation:
    Grewal et al. 2018, section 2.2.3; the sizes are settings.
    """
    return A.Compose(
        [
            A.HorizontalFlip(p=train.flip),
            *([A.VerticalFlip(p=train.flip_vertical)] if train.flip_vertical else []),
            A.Affine(
                translate_percent=(-train.shift, train.shift),
                scale=(1 - train.scale, 1 + train.scale),
                rotate=(-train.rotate_deg, train.rotate_deg),
                fill=train.hu_range[0],
                fill_mask=0,
                p=train.affine_chance,
            ),
        ]
    )


class SliceRuns(Dataset):
    """The run around each slice; asked for (epoch, slice, time), so that a worker keeps no state of its own.

    rows: one a slice, scan after scan in anatomical order, with `slice_id`, `scan_id`, `png`, `any` and, where masks
    are wanted, `mask` (path, or None for a slice without hemorrhage). Gives HU (slices, y, x) float32, hemorrhage
    (slices,) float32, masks (slices, y, x) float32 of 0 and 1, or (slices, 0, 0) where none are wanted.
    """

    def __init__(
        self, rows: pd.DataFrame, run_slices: int, masks: bool, augment: A.Compose, seed: tuple[int, ...]
    ) -> None:
        self.slice_ids = rows["slice_id"].tolist()
        self.pngs = rows["png"].tolist()
        self.masks = [path if isinstance(path, str) else None for path in rows["mask"]] if masks else None
        self.labels = rows["any"].to_numpy(dtype=np.float32)
        self.augment = augment
        self.seed = seed
        bounds = scan_bounds(rows["scan_id"].to_numpy())
        scans = zip(bounds[:-1], np.diff(bounds), strict=True)
        self.runs = np.concatenate([start + centred_runs(length, run_slices)[0] for start, length in scans])
        """The slices of each run, (slices, run_slices)."""

    def __len__(self) -> int:
        return len(self.runs)

    def is_positive(self) -> np.ndarray:
        """Return (slices,), whether the run around each slice shows hemorrhage anywhere."""
        return (self.labels[self.runs] > 0).any(axis=1)

    def __getitem__(self, key: tuple[int, int, int]) -> RunBatch:
        epoch, index, time = key
        run = self.runs[index]
        seed_augmentation(self.augment, seed_of(*self.seed, epoch, zlib.crc32(self.slice_ids[index].encode()), time))
        images = np.stack([read_hu(Path(self.pngs[k])) for k in run]).astype(np.float32)
        if self.masks is None:
            moved = self.augment(images=images[..., None])
            masks = np.zeros((len(run), 0, 0), dtype=np.float32)
        else:
            drawn = np.stack([self._mask(k, images.shape[1:]) for k in run])
            moved = self.augment(images=images[..., None], masks=drawn)
            masks = np.asarray(moved["masks"], dtype=np.float32)
        hu = np.ascontiguousarray(np.asarray(moved["images"])[..., 0])
        return torch.from_numpy(hu), torch.from_numpy(self.labels[run]), torch.from_numpy(masks)

    def _mask(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        """Return the mask (y, x) of a slice, 1 where any kind of hemorrhage is."""
        path = self.masks[index]
        if path is None:
            return np.zeros(shape, dtype=np.uint8)
        return (read_mask(Path(path)) > 0).astype(np.uint8)


def run_loader(runs: SliceRuns, settings: Settings, workers: int) -> DataLoader:
    """Return a loader of RunBatch to train on, of `train.batch` slices or what whole runs give of them.

    With `train.balance` positive and negative runs are drawn equally often, the rarer ones anew, otherwise augmented.
    An epoch shows about as many slices as there are (balanced: as many of each kind as the more frequent kind has).
    Raises UserError where there is only one kind to balance.
    """
    run_slices = runs.runs.shape[1]
    groups = both_classes(runs.is_positive()) if settings.train.balance else (np.arange(len(runs)),)
    each = math.ceil(max(map(len, groups)) / run_slices)
    sampler = GroupSampler(groups, [each] * len(groups), runs.seed)
    batch = max(1, settings.train.batch // run_slices)
    # Batch normalisation has nothing to say about one slice.
    return item_loader(runs, batch, sampler, workers, drop_last=len(sampler) > batch)


class WholeScans(Dataset):
    """The slices of each scan as they are; asked for (epoch, scan).

    rows as in SliceRuns. Gives HU (slices, y, x) int16 and hemorrhage (slices,) float32.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.pngs = rows["png"].tolist()
        self.labels = rows["any"].to_numpy(dtype=np.float32)
        self.bounds = scan_bounds(rows["scan_id"].to_numpy())

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        own = slice(self.bounds[key[1]], self.bounds[key[1] + 1])
        hu = np.stack([read_hu(Path(path)) for path in self.pngs[own]])
        return torch.from_numpy(hu), torch.from_numpy(self.labels[own])


def whole_scan_loader(rows: pd.DataFrame, workers: int) -> DataLoader:
    """Return a loader of (HU (slices, y, x), hemorrhage (slices,)), scan after scan."""
    scans = WholeScans(rows)
    return item_loader(scans, None, EpochSampler(len(scans)), workers)
