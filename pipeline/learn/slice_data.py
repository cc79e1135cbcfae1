"""Feeding cached PNGs to the network: decoding, augmentation, and an order that depends on the epoch alone."""

import os
import random
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipeline.config import Train
from pipeline.learn.loader_processes import item_loader
from pipeline.learn.sampler import EpochSampler
from pipeline.learn.seeds import seed_of
from pipeline.shell.png import decode_png

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
import albumentations as A


def augmentation(train: Train) -> A.Compose:
    """Return the training augmentation: flips, shift, scaling and rotation together, brightness.

    Sources for the kinds: Burduja et al. 2020, section 3.1; Murphy 2021, section 5.1 (vertical flips). The sizes are
    settings. A vertical flip that never happens draws no random numbers: recipes without it see what they always saw.
    """
    return A.Compose(
        [
            A.HorizontalFlip(p=train.flip),
            *([A.VerticalFlip(p=train.flip_vertical)] if train.flip_vertical else []),
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


def seed_augmentation(augment: A.Compose, seed: int) -> None:
    """Let an augmentation draw what belongs to a seed, its transforms one after the other from the same numbers.

    `set_random_seed` would begin the same numbers anew for each transform: what is flipped would always be brightened.
    """
    augment.set_random_state(np.random.default_rng(seed), random.Random(seed))


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
        self.labels = np.zeros((len(self.paths), 0), dtype=np.float32) if labels is None else labels
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([key])
        return images[0], labels[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Return images (slices, channels, y, x) and labels (slices, 6): one array a batch, nothing left to collate.

        Channels lie innermost in memory, as in a PNG and as the network wants them. A worker writes into the memory
        that it shares with the process that trains, so that sending a batch copies nothing.
        """
        first = self._image(*keys[0])
        batch = torch.empty((len(keys), *first.shape), dtype=torch.uint8)  # (slices, y, x, channels)
        if get_worker_info() is not None:
            batch.share_memory_()
        rows = batch.numpy()
        rows[0] = first
        for row, key in zip(rows[1:], keys[1:], strict=True):
            row[:] = self._image(*key)
        return batch.permute(0, 3, 1, 2), torch.from_numpy(self.labels[[index for _, index in keys]])

    def _image(self, epoch: int, index: int) -> np.ndarray:
        """Return the image (y, x, channels) of a slice as an epoch shows it."""
        image = read_png(Path(self.paths[index]))
        if self.augment is None:
            return image
        seed_augmentation(self.augment, seed_of(*self.seed, epoch, zlib.crc32(self.slice_ids[index].encode())))
        return self.augment(image=image)["image"]


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
    sampler = EpochSampler(len(images), images.seed if shuffle else None)
    drop_last = shuffle and len(images) > batch
    return item_loader(images, batch, sampler, workers, collate_fn=_as_it_is, drop_last=drop_last)


def loader_workers(n_jobs: int) -> int:
    """Return how many processes feed the network: all on a GPU; on a CPU one, which the network itself outpaces."""
    return n_jobs if torch.cuda.is_available() else 1


def _as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch
