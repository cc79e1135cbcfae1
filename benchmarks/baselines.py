"""The straightforward ways that stages are compared with, each written from its description and nothing cleverer."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from torch import Tensor

from pipeline.nets.scan_bilstm import ScanBiLSTM


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
