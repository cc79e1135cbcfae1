"""Steps 2 and 3 of Patel et al. 2019: on scan labels, the network over vectors, then both networks end to end."""

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
from pipeline.learn.binary_modules import BinaryModule, rmsprop
from pipeline.learn.hu_images import read_hu
from pipeline.learn.hu_slices import filter_kernel, shift_px
from pipeline.learn.loader_processes import item_loader
from pipeline.learn.modules import NetworkModule
from pipeline.learn.sampler import EpochSampler, balanced_sampler
from pipeline.learn.seeds import seed_of
from pipeline.nets.build import build_end_to_end, build_summed_bilstm
from pipeline.shell.network_files import load_network

TARGET = "any"

ScanBatch = tuple[list[Tensor], Tensor]
"""Scans, one tensor each, and targets (scans,)."""


class ScanVectors(Dataset):
    """Scans as vectors (slices, features) float32 and their targets (); asked for (epoch, index).

    vectors: (slices, features) of all scans; where the maximum filter joins slices, one vector of each block is taken.
    """

    def __init__(self, vectors: np.ndarray, bounds: np.ndarray, targets: np.ndarray, along_z: int) -> None:
        self.vectors = vectors
        self.bounds = bounds
        self.targets = torch.from_numpy(np.asarray(targets, dtype=np.float32))
        self.along_z = along_z

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        first, end = self.bounds[key[1]], self.bounds[key[1] + 1]
        vectors = self.vectors[first : end : self.along_z].astype(np.float32)
        return torch.from_numpy(vectors), self.targets[key[1]]


class ScanVolumes(Dataset):
    """Whole scans behind the maximum filter and their targets; asked for (epoch, index).

    Gives int16 volumes (slices, 1, y, x) in HU and float32 targets ().

    rows: scan_id, png, spacing_mm, rows and row_mm, scan after scan in anatomical order. Without `seed` nothing is
    augmented.
    """

    def __init__(
        self, rows: pd.DataFrame, targets: np.ndarray, settings: Settings, seed: tuple[int, ...] | None = None
    ) -> None:
        self.bounds = scan_bounds(rows["scan_id"].to_numpy())
        self.scan_ids = rows["scan_id"].to_numpy()[self.bounds[:-1]].tolist()
        self.paths = rows["png"].tolist()
        self.spacings = [voxel_mm(rows.iloc[first:end], settings) for first, end in pairwise(self.bounds)]
        self.targets = torch.from_numpy(np.asarray(targets, dtype=np.float32))
        self.settings = settings
        self.seed = seed

    def __len__(self) -> int:
        return len(self.scan_ids)

    def __getitem__(self, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        epoch, index, *_ = key
        paths = self.paths[self.bounds[index] : self.bounds[index + 1]]
        volume = maximum_filter(np.stack([read_hu(Path(path)) for path in paths]), filter_kernel(self.settings))
        train = self.settings.train
        if self.seed is not None and train.one_of:
            name = zlib.crc32(self.scan_ids[index].encode())
            rng = np.random.default_rng(seed_of(*self.seed, epoch, name))
            spacing = self.spacings[index]
            most = shift_px(self.settings)
            # The same length along z, in slices: fifteen slices of 5 mm would be half the head.
            change = draw_change(rng, train.rotate_deg, (int(most * spacing[1] / spacing[0]), most, most))
            volume = np.ascontiguousarray(apply_change(volume, change, spacing, PADDING_HU))
        return torch.from_numpy(volume)[:, None], self.targets[index]


def voxel_mm(rows: pd.DataFrame, settings: Settings) -> tuple[float, float, float]:
    """Return a scan's spacing behind the maximum filter, in mm along z, y and x.

    rows: its slices' spacing_mm, rows and row_mm. A single slice has no spacing; it counts as thick as its pixels are.
    """
    along_z, along_y, _ = filter_kernel(settings)
    view, first = settings.view, rows.iloc[0]
    pixel_mm = along_y * float(view.pixel_mm or first["row_mm"] * first["rows"] / view.size)
    spacing = float(rows["spacing_mm"].median())
    return (along_z * spacing if spacing > 0 else pixel_mm), pixel_mm, pixel_mm


def prepare_sequence(
    rows: pd.DataFrame,
    vectors: np.ndarray,
    train_mask: np.ndarray,
    validation_mask: np.ndarray,
    settings: Settings,
    seed: tuple[int, ...],
) -> tuple[NetworkModule, DataLoader, DataLoader]:
    """Return what trains the network over the scan on a fixed slice network's vectors, and loaders of both parts.

    rows: one a slice in the order of SLICES, with scan_id and the labels; vectors: (slices, features) in that order;
    masks: (slices,), whole scans. As many positive scans as negative ones, in epochs of twice the rarer ones.
    """
    torch.manual_seed(seed_of(*seed))
    network = build_summed_bilstm(settings, vectors.shape[1])
    loaders = []
    for mask, training in ((train_mask, True), (validation_mask, False)):
        part = rows[mask]
        targets = scan_targets(part)
        bounds = scan_bounds(part["scan_id"].to_numpy())
        scans = ScanVectors(vectors[mask], bounds, targets, filter_kernel(settings)[0])
        sampler = balanced_sampler(targets > 0, seed) if training else EpochSampler(len(scans))
        loaders.append(_loader(scans, settings.sequence.batch_scans, sampler, 0))
    module = BinaryModule(network, settings.sequence.learning_rates, seed, rmsprop)
    return module, loaders[0], loaders[1]


def prepare_end_to_end(
    rows: pd.DataFrame,
    train_mask: np.ndarray,
    validation_mask: np.ndarray,
    settings: Settings,
    seed: tuple[int, ...],
    workers: int,
    cnn: Path,
    sequence: Path,
) -> tuple[NetworkModule, DataLoader, DataLoader]:
    """Return what trains both networks on whole scans, and loaders of both parts.

    rows: one a slice in the order of SLICES, with scan_id, png, spacing_mm, rows, row_mm and the labels; masks:
    (slices,), whole scans; cnn, sequence: the weights that steps 1 and 2 left, which are read where the settings ask
    for them (`endtoend.pretrained_cnn`, `endtoend.pretrained_sequence`). One scan a step, balanced, augmented.
    """
    torch.manual_seed(seed_of(*seed))
    network = build_end_to_end(settings)
    if settings.endtoend.pretrained_cnn:
        load_network(cnn, network.cnn)
    if settings.endtoend.pretrained_sequence:
        load_network(sequence, network.sequence)
    network.cnn.to(memory_format=torch.channels_last)
    loaders = []
    for mask, training in ((train_mask, True), (validation_mask, False)):
        targets = scan_targets(rows[mask])
        scans = ScanVolumes(rows[mask], targets, settings, seed if training else None)
        sampler = balanced_sampler(targets > 0, seed) if training else EpochSampler(len(scans))
        loaders.append(_loader(scans, 1, sampler, workers))
    module = BinaryModule(network, settings.endtoend.learning_rates, seed, rmsprop)
    return module, loaders[0], loaders[1]


def vectors_loader(rows: pd.DataFrame, vectors: np.ndarray, settings: Settings) -> DataLoader:
    """Return a loader of all scans' vectors, in order, for `scan_scores`; rows: scan_id of each slice."""
    bounds = scan_bounds(rows["scan_id"].to_numpy())
    scans = ScanVectors(vectors, bounds, np.zeros(len(bounds) - 1), filter_kernel(settings)[0])
    return _loader(scans, settings.sequence.batch_scans, EpochSampler(len(scans)), 0)


def volumes_loader(rows: pd.DataFrame, settings: Settings, workers: int) -> DataLoader:
    """Return a loader of all scans' volumes, in order, for `scan_scores`; rows as `ScanVolumes` takes them."""
    scans = ScanVolumes(rows, np.zeros(rows["scan_id"].nunique()), settings)
    return _loader(scans, 1, EpochSampler(len(scans)), workers)


def scan_targets(rows: pd.DataFrame) -> np.ndarray:
    """Return whether any slice of a scan is positive, (scans,) float32, in the order of the scans."""
    bounds = scan_bounds(rows["scan_id"].to_numpy())
    return np.maximum.reduceat(rows[TARGET].to_numpy(dtype=np.float32), bounds[:-1])


def _loader(scans: Dataset, batch: int, sampler: Sampler, workers: int) -> DataLoader:
    return item_loader(scans, batch, sampler, workers, collate_fn=_collate)


def _collate(scans: Sequence[tuple[Tensor, Tensor]]) -> ScanBatch:
    inputs, targets = zip(*scans, strict=True)
    return list(inputs), torch.stack(targets)
