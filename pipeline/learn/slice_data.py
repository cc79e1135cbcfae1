"""Feeding cached PNGs to the network: decoding, augmentation, and an order that depends on the epoch alone."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.config import Train
from pipeline.learn.sampler import EpochSampler
from pipeline.learn.seeds import seed_of
from pipeline.shell.png import decode_png

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
import albumentations as A


def augmentation(train: Train) -> A.Compose:
    """Return the training augmentation: horizontal flip, shift, scaling and rotation together, brightness.

    Source: Burduja et al. 2020, section 3.1, for the kinds; the sizes are settings.
    """
    return A.Compose(
        [
            A.HorizontalFlip(p=train.flip),
            A.Affine(
                translate_percent=(-train.shift, train.shift),
                scale=(1 - train.scale, 1 + train.scale),
                rotate=(-train.rotate_deg, train.rotate_deg),
                p=train.affine_chance,
            ),
            A.RandomBrightnessContrast(
                brightness_limit=train.brightness, contrast_limit=0.0, p=train.brightness_chance
            ),
        ]
    )


class SliceImages(Dataset):
    """Cached images and their labels; asked for (epoch, index), so that a worker keeps no state of its own.

    Gives uint8 images (channels, y, x), R, G, B being the view's first, second, third window, and float32 labels (6,).
    """

    def __init__(
        self,
        paths: Sequence[str],
        slice_ids: Sequence[str],
        labels: np.ndarray | None = None,
        augment: A.Compose | None = None,
        seed: tuple[int, ...] = (),
    ) -> None:
        self.paths = list(paths)
        self.slice_ids = list(slice_ids)
        self.labels = labels
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = read_png(Path(self.paths[index]))  # (y, x, channels)
        if self.augment is not None:
            self.augment.set_random_seed(seed_of(*self.seed, epoch, zlib.crc32(self.slice_ids[index].encode())))
            image = self.augment(image=image)["image"]
        labels = torch.zeros(0) if self.labels is None else torch.from_numpy(self.labels[index])
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), labels


def read_png(path: Path) -> np.ndarray:
    """Return a cached image (y, x, 3) uint8 in the file's R, G, B; raises FileNotFoundError or OSError."""
    try:
        return decode_png(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: a cached image is missing; redo it with `make window FORCE=1`") from error
    except ValueError as error:
        raise OSError(f"{path}: a cached image cannot be decoded; redo it with `make window FORCE=1`") from error


def slice_loader(images: SliceImages, batch: int, workers: int, shuffle: bool) -> DataLoader:
    """Return a loader of (images (slices, channels, y, x) uint8, labels (slices, 6)).

    A shuffled loader drops a last batch that is not full: batch normalisation has nothing to say about one slice.
    """
    return DataLoader(
        images,
        batch_size=batch,
        sampler=EpochSampler(len(images), images.seed if shuffle else None),
        num_workers=workers,
        drop_last=shuffle and len(images) > batch,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        worker_init_fn=_one_thread,
    )


def loader_workers(n_jobs: int) -> int:
    """Return how many processes feed the network: all on a GPU; on a CPU one, which the network itself outpaces."""
    return n_jobs if torch.cuda.is_available() else 1


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
