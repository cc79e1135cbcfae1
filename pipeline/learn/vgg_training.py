"""Step 1 of Patel et al. 2019: the slice network on slice labels, before it is part of the whole."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from pipeline.config import Settings, UserError
from pipeline.core.cranial_cavity import shows_cranial_cavity
from pipeline.learn.binary_modules import BinarySliceModule
from pipeline.learn.hu_slices import HuSlices, filtered_slice, hu_loader
from pipeline.learn.modules import NetworkModule
from pipeline.learn.sampler import EpochSampler, balanced_sampler
from pipeline.learn.seeds import seed_of
from pipeline.nets.build import build_vgg
from pipeline.shell.progress import tracked

TARGET = "any"


def prepare(
    rows: pd.DataFrame,
    train_mask: np.ndarray,
    validation_mask: np.ndarray,
    settings: Settings,
    seed: tuple[int, ...],
    workers: int,
) -> tuple[NetworkModule, DataLoader, DataLoader]:
    """Return what trains the slice network, and loaders of the slices to train on and to validate on.

    rows: one a slice in the order of SLICES, with slice_id, scan_id, png and the labels; masks: (slices,). Of both
    parts only `usable_slices` are shown; in training they are balanced (`train.balance`) and augmented. workers:
    processes of a loader, and threads that look for the cranial cavity. Raises UserError where a part has nothing to
    show.
    """
    usable = usable_slices(rows, train_mask | validation_mask, settings, workers)
    torch.manual_seed(seed_of(*seed))
    network = build_vgg(settings).to(memory_format=torch.channels_last)
    loaders = []
    for mask, training in ((train_mask & usable, True), (validation_mask & usable, False)):
        part = rows[mask]
        if part.empty:
            name = "train" if training else "validate"
            raise UserError(
                f"no slice to {name} on: none is positive, none of a negative scan shows the cranial cavity"
            )
        targets = part[TARGET].to_numpy(dtype=np.float32)
        blocks = [(path,) for path in part["png"]]
        slices = HuSlices(blocks, part["slice_id"].tolist(), targets, settings, seed if training else None)
        if training and settings.train.balance:
            sampler = balanced_sampler(targets > 0, seed)
        else:
            sampler = EpochSampler(len(slices), seed if training else None)
        loaders.append(hu_loader(slices, settings.train.batch, sampler, workers))
    return BinarySliceModule(network, settings.train.learning_rates, seed), loaders[0], loaders[1]


def usable_slices(rows: pd.DataFrame, among: np.ndarray, settings: Settings, workers: int) -> np.ndarray:
    """Return a mask (slices,) of what step 1 shows: positive slices, and those of negative scans with cranial cavity.

    among: (slices,), which to consider. Negative slices of positive scans are left out, "to avoid erroneously
    presenting positive samples" (section III-C.1). A positive slice shows the cavity, or it could not be positive: only
    negative ones are looked at, as the network sees them.
    """
    is_positive = rows[TARGET].to_numpy(dtype=np.float32, na_value=0) > 0  # test slices have no labels
    scans = pd.Series(is_positive).groupby(rows["scan_id"].to_numpy()).transform("any").to_numpy()
    candidates = np.flatnonzero(among & ~scans)
    paths = rows["png"].to_numpy()[candidates]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        looked_at = pool.map(lambda path: shows_cranial_cavity(filtered_slice([path], settings)[0]), paths)
        has_cavity = [next(looked_at) for _ in tracked(paths, "slices")]
    usable = among & is_positive
    usable[candidates] = np.array(has_cavity, dtype=bool)
    return usable
