"""Training and running the dense network: class, masks and LSTM jointly, and each slice out of its neighbours."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from pipeline.config import Dense, Settings, Train, UserError
from pipeline.core.slice_runs import centred_runs
from pipeline.learn.dense_data import RunBatch, SliceRuns, run_augmentation, run_loader, whole_scan_loader
from pipeline.learn.devices import device
from pipeline.learn.inference import CPU_CHUNK_PIXELS
from pipeline.learn.modules import VALIDATION_LOSS, NetworkModule
from pipeline.learn.seeds import seed_of
from pipeline.nets.build import build_densenet
from pipeline.nets.densenet import DenseNet
from pipeline.shell.progress import tracked

GPU_CHUNK_SLICES = 64
"""Slices that go through the dense part together on a GPU; a scan may have hundreds."""


def prepare(
    rows: pd.DataFrame,
    train_mask: np.ndarray,
    validation_mask: np.ndarray,
    settings: Settings,
    seed: tuple[int, ...],
    workers: int,
) -> tuple[NetworkModule, DataLoader, DataLoader]:
    """Return what `trainer.fit` takes: a module with a new network, a loader to train on, one to validate on.

    rows: one a slice in the order of SLICES (scan after scan, each in anatomical order), with `slice_id`, `scan_id`,
    `png`, the labels and, for settings that learn from masks, `mask` (path or None). seed: such as (seed, fold); the
    network's weights are drawn by it. Raises UserError for settings that contradict each other, and where a positive
    slice to train on has no mask.
    """
    dense, training = settings.dense, rows[train_mask]
    if dense.mask_weight:
        _require_masks(training, dense.mask_weight)
    torch.manual_seed(seed_of(*seed))
    network = build_densenet(settings).to(memory_format=torch.channels_last)
    augment = run_augmentation(settings.train)
    runs = SliceRuns(training, dense.run_slices, dense.mask_weight > 0, augment, seed)
    module = DenseModule(network, settings.train, dense, seed)
    return module, run_loader(runs, settings, workers), whole_scan_loader(rows[validation_mask], workers)


def predict_slices(network: DenseNet, rows: pd.DataFrame, settings: Settings, workers: int) -> np.ndarray:
    """Return the probability of hemorrhage (slices,) float64 of each slice; rows as in `prepare`, labels unused.

    A slice's probability is that of the run of neighbours around it, see `scan_logits`.
    """
    where = device()
    network = network.to(where, memory_format=torch.channels_last).eval()
    found = [np.empty(0)]
    with torch.inference_mode():
        for hu, _labels in tracked(whole_scan_loader(rows, workers), "scans"):
            logits = scan_logits(network, hu.to(where, non_blocking=True), settings.dense.run_slices)
            found.append(logits.double().sigmoid().cpu().numpy())
    return np.concatenate(found)


def scan_logits(network: DenseNet, hu: Tensor, run_slices: int) -> Tensor:
    """Return the logits (slices,) of a scan's slices, HU (slices, y, x).

    Each comes from the run that the slice is in the middle of (at a scan's ends: nearest to it), so that a slice has
    context on both sides: the paper predicts "for single slice" out of "a small neighborhood" (Grewal et al. 2018,
    section 2.2.2). The mean over all runs that hold a slice would smooth along the scan by itself, and the rule of
    three consecutive slices would find other scans than the network means. The dense part sees each slice once, for in
    inference it does not depend on what goes through beside it.
    """
    chunk = GPU_CHUNK_SLICES if hu.is_cuda else max(1, CPU_CHUNK_PIXELS // hu[0].numel())
    pooled = torch.cat([network.pooled(part) for part in hu.split(chunk)])  # (slices, width)
    runs, places = (torch.from_numpy(found).to(hu.device) for found in centred_runs(len(hu), run_slices))
    return network.classify(pooled[runs]).gather(1, places[:, None])[:, 0]


class DenseModule(NetworkModule):
    """Trains a DenseNet on RunBatch by stochastic gradient descent, masks and LSTM jointly with the rest."""

    def __init__(self, network: DenseNet, train: Train, dense: Dense, seed: tuple[int, ...]) -> None:
        super().__init__(network, train.learning_rates, seed, descent(train))
        self.dense = dense
        self.register_buffer("blood_weight", torch.tensor(dense.blood_weight), persistent=False)
        self._validation: list[tuple[Tensor, Tensor]] = []

    def losses(self, batch: RunBatch) -> tuple[Tensor, Tensor]:
        """Return the loss of the class, and the sum of the three masks' losses (0 without masks).

        Source: Grewal et al. 2018, section 2.2.2, a weighted sum of cross entropy for the class and a loss a mask. The
        paper does not name the masks' loss; it is binary cross entropy too, averaged over pixels: most slices have an
        empty mask, of which overlap measures such as Dice say nothing, and it is in the same unit as the class's.
        Few pixels are blood: they weigh `blood_weight`.
        """
        hu, labels, masks = batch
        logits, drawn = self.network(hu)
        of_masks = [
            binary_cross_entropy_with_logits(found.float(), masks, pos_weight=self.blood_weight) for found in drawn
        ]
        return binary_cross_entropy_with_logits(logits.float(), labels), sum(of_masks, start=labels.new_zeros(()))

    def training_step(self, batch: RunBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        of_class, of_masks = self.losses(batch)
        loss = of_class + self.dense.mask_weight * of_masks
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Keep logits and labels of a scan for the end of the epoch: the loss is a mean over slices."""
        hu, labels = batch
        self._validation.append((scan_logits(self.network, hu, self.dense.run_slices), labels))

    def on_validation_epoch_end(self) -> None:
        """Log the class's cross entropy of the validation slices: with masks or without, the same figure."""
        logits, labels = (torch.cat(parts).double() for parts in zip(*self._validation, strict=True))
        self._validation.clear()
        loss = binary_cross_entropy_with_logits(logits, labels)
        self.log(VALIDATION_LOSS, loss.float(), prog_bar=True, batch_size=len(labels))


def descent(train: Train) -> Callable[[list[nn.Parameter], float], Optimizer]:
    """Return what makes stochastic gradient descent with the settings' momentum and weight decay."""

    def optimizer(weights: list[nn.Parameter], rate: float) -> Optimizer:
        return SGD(weights, lr=rate, momentum=train.momentum, weight_decay=train.weight_decay)

    return optimizer


def _require_masks(rows: pd.DataFrame, mask_weight: float) -> None:
    """Raise UserError where a positive slice has no mask: an empty one would teach that there is nothing."""
    lacking = rows[(rows["any"] > 0) & rows["mask"].isna()]
    if len(lacking):
        positive = int((rows["any"] > 0).sum())
        raise UserError(
            f"dense.mask_weight={mask_weight:g}: {len(lacking)} of {positive} positive slices to train on have no "
            f"mask, {lacking['slice_id'].iloc[0]} the first; put masks into raw/masks/ (the phantom has them), or "
            f"train without: grewal2018-densenet"
        )
