"""The straightforward ways that stages are compared with, each written from its description and nothing cleverer."""

import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pydicom
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.learn.sampler import EpochSampler
from pipeline.learn.seeds import seed_of
from pipeline.nets.scan_bilstm import ScanBiLSTM

if TYPE_CHECKING:  # they take seconds and memory, which not every part has to spare
    from albumentations import Compose

    from pipeline.nets.slice_classifier import SliceClassifier


class StraightforwardImages(Dataset):
    """PNGs decoded by cv2, augmented and made a tensor one by one, when they are asked for by (epoch, index)."""

    def __init__(
        self,
        paths: Sequence[str],
        slice_ids: Sequence[str],
        labels: np.ndarray,
        augment: "Compose",
        seed: tuple[int, ...],
    ) -> None:
        self.paths, self.slice_ids, self.labels, self.augment, self.seed = paths, slice_ids, labels, augment, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = cv2.cvtColor(cv2.imread(self.paths[index]), cv2.COLOR_BGR2RGB)
        seed = seed_of(*self.seed, epoch, zlib.crc32(self.slice_ids[index].encode()))
        self.augment.set_random_state(np.random.default_rng(seed), random.Random(seed))
        image = self.augment(image=image)["image"]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(self.labels[index])


def straightforward_loader(images: StraightforwardImages, batch: int) -> DataLoader:
    """Return a loader that does all in the process that trains, in the order of the pipeline's."""
    return DataLoader(images, batch_size=batch, sampler=EpochSampler(len(images), images.seed), drop_last=True)


def straightforward_slice_logits(network: "SliceClassifier", images: Tensor) -> Tensor:
    """Return logits (slices, 6) of uint8 images (slices, channels, y, x), channels outermost all the way."""
    normalised = (images.contiguous().float() - network.mean) / network.std
    return network.head(network.encoder(normalised))


def straightforward_window(hu: np.ndarray, windows: Sequence[tuple[float, float]], size: int) -> np.ndarray:
    """Return the uint8 image (size, size, windows) of a slice (rows, columns) in HU, each window (centre, width).

    float64: three clipped windows, cv2.resize with linear interpolation, rounded to uint8 at the end.
    """
    greys = []
    for centre, width in windows:
        low, high = centre - width / 2, centre + width / 2
        windowed = (np.clip(hu.astype(np.float64), low, high) - low) / width * 255
        greys.append(cv2.resize(windowed, (size, size), interpolation=cv2.INTER_LINEAR))
    return np.floor(np.stack(greys, axis=-1) + 0.5).astype(np.uint8)


def straightforward_png(dicom: str, png: str, windows: Sequence[tuple[float, float]], size: int) -> None:
    """Write the image of a DICOM file as PNG.

    pydicom.dcmread and pixel_array, rescaled to HU; `straightforward_window`; cv2.imwrite with its defaults.
    """
    dataset = pydicom.dcmread(dicom)
    hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    image = straightforward_window(hu, windows, size)
    if not cv2.imwrite(png, cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{Path(png).name}: cv2 could not write it")


def straightforward_scan_logits(network: ScanBiLSTM, features: Tensor, probabilities: Tensor) -> Tensor:
    """Return logits (slices, 6) of one scan: torch's own LSTM on features (slices, features), then the head."""
    states, _ = network.lstm(features[None])
    states = states[0]
    if network.probabilities:
        states = torch.cat([states, probabilities], dim=1)
    return network.head(states)
