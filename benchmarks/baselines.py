"""The straightforward ways that the pipeline's stages are measured against."""

import zlib
from collections.abc import Sequence

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.learn.sampler import EpochSampler
from pipeline.learn.seeds import seed_of
from pipeline.nets.slice_classifier import SliceClassifier


class PlainImages(Dataset):
    """A PNG decoded by cv2, augmented and made a tensor of its own, each when it is asked for by (epoch, index)."""

    def __init__(
        self,
        paths: Sequence[str],
        slice_ids: Sequence[str],
        labels: np.ndarray,
        augment: A.Compose,
        seed: tuple[int, ...],
    ) -> None:
        self.paths, self.slice_ids, self.labels, self.augment, self.seed = paths, slice_ids, labels, augment, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = cv2.cvtColor(cv2.imread(self.paths[index]), cv2.COLOR_BGR2RGB)
        self.augment.set_random_seed(seed_of(*self.seed, epoch, zlib.crc32(self.slice_ids[index].encode())))
        image = self.augment(image=image)["image"]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(self.labels[index])


def plain_loader(images: PlainImages, batch: int) -> DataLoader:
    """Return a loader that does all in the process that trains, in the order of the pipeline's."""
    return DataLoader(images, batch_size=batch, sampler=EpochSampler(len(images), images.seed), drop_last=True)


def plain_forward(network: SliceClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings (slices, width) and logits (slices, 6), channels outermost all the way."""
    normalised = (images.contiguous().float() - network.mean) / network.std
    embeddings = network.encoder(normalised)
    return embeddings, network.head(embeddings)
