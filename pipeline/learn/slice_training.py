"""What trains a slice classifier: the module, and loaders of cached images."""

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from pipeline.config import Settings
from pipeline.core.rows import label_matrix
from pipeline.learn.modules import SliceModule
from pipeline.learn.slice_data import SliceImages, augmentation, slice_loader
from pipeline.nets.build import build_slice_classifier


def prepare(
    rows: pd.DataFrame,
    train_mask: np.ndarray,
    validation_mask: np.ndarray,
    settings: Settings,
    seed: tuple[int, ...],
    workers: int,
) -> tuple[SliceModule, DataLoader, DataLoader]:
    """Return the module and its loaders, training rows augmented and shuffled by the seed.

    rows: one a slice, with columns slice_id, png and the labels; masks: (slices,). Raises UserError where the
    encoder's weights cannot be had.
    """
    network = build_slice_classifier(settings, pretrained=True)
    network.to(memory_format=torch.channels_last)
    module = SliceModule(network, settings.train.learning_rates, settings.train.loss_weights, seed)
    train, validation = (
        slice_loader(
            SliceImages(
                rows["png"][mask].tolist(),
                rows["slice_id"][mask].tolist(),
                label_matrix(rows[mask]),
                augmentation(settings.train) if training else None,
                seed,
            ),
            settings.train.batch,
            workers,
            shuffle=training,
        )
        for mask, training in ((train_mask, True), (validation_mask, False))
    )
    return module, train, validation
