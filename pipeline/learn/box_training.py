"""Training the network that draws: slabs of slices with hemorrhage and without, the sum of torchvision's losses."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader

from pipeline.config import Settings, UserError
from pipeline.core.rows import scan_bounds
from pipeline.learn.modules import VALIDATION_LOSS, NetworkModule
from pipeline.learn.sampler import EpochSampler
from pipeline.learn.seeds import seed_of
from pipeline.learn.slab_data import SlabBatch, Slabs, slab_loader, slab_rows, slab_sampler
from pipeline.nets.build import build_mask_rcnn
from pipeline.nets.mask_rcnn import SlabDetector

EPOCH_LOSS = "train_loss_epoch"
"""The training loss, averaged over an epoch's images."""

PLATEAU_FACTOR = 0.1
"""What the learning rate is multiplied by where the training loss no longer falls."""


class BoxModule(NetworkModule):
    """Trains a detector on slabs by the sum of its losses: proposals, classes, boxes and masks at once.

    That is what Ren et al. 2015 (section 3.2) call approximate joint training. Adam with an L2 term; where
    `plateau_epochs` is not 0, the first learning rate is divided by ten whenever so many epochs brought no lower
    training loss. Source: Chang et al. 2018, Implementation.
    """

    def __init__(
        self,
        network: SlabDetector,
        learning_rates: Sequence[float],
        seed: tuple[int, ...],
        weight_decay: float,
        plateau_epochs: int,
    ) -> None:
        def adam(weights: list[nn.Parameter], rate: float) -> Optimizer:
            return Adam(weights, lr=rate, weight_decay=weight_decay, fused=weights[0].is_cuda or None)

        super().__init__(network, learning_rates, seed, adam)
        self.plateau_epochs = plateau_epochs

    def configure_optimizers(self) -> dict:
        """Return the optimiser, with rates an epoch or with one that follows the training loss."""
        configured = super().configure_optimizers()
        if self.plateau_epochs:
            # The scheduler of rates an epoch has left the optimiser at the first one.
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                configured["optimizer"], factor=PLATEAU_FACTOR, patience=self.plateau_epochs - 1
            )
            configured["lr_scheduler"] = {"scheduler": schedule, "interval": "epoch", "monitor": EPOCH_LOSS}
        return configured

    def training_step(self, batch: SlabBatch, batch_idx: int) -> Tensor:
        """Return the sum of a batch's losses."""
        slabs, targets = batch
        losses = self.network.losses(slabs, targets)
        loss = torch.stack(list(losses.values())).sum()
        self.log(EPOCH_LOSS, loss.detach(), on_step=False, on_epoch=True, batch_size=len(slabs))
        return loss

    def validation_step(self, batch: SlabBatch, batch_idx: int) -> None:
        """Log the same sum of the validation part; the regions that it samples are the same in each epoch."""
        torch.manual_seed(seed_of(*self.seed, batch_idx))
        slabs, targets = batch
        loss = torch.stack(list(self.network.losses(slabs, targets).values())).sum()
        self.log(VALIDATION_LOSS, loss, on_step=False, on_epoch=True, batch_size=len(slabs), prog_bar=True)


def prepare(
    rows: pd.DataFrame,
    train_mask: np.ndarray,
    validation_mask: np.ndarray,
    settings: Settings,
    seed: tuple[int, ...],
    workers: int,
) -> tuple[BoxModule, DataLoader, DataLoader]:
    """Return what is trained, and the loaders of its training and its validation.

    rows: one a slice, scan after scan in anatomical order: scan_id, slice_id, png, mask (a cached mask's path, null
    where the slice has none) and `any`; train_mask, validation_mask: (rows,), booleans. Raises UserError where a slice
    to learn from shows hemorrhage and has no mask: this network learns from masks alone; and for rates that contradict
    each other.
    """
    boxes, train = settings.boxes, settings.train
    if train.plateau_epochs and len(train.learning_rates) > 1:
        raise UserError(
            f"train.plateau_epochs={train.plateau_epochs} lowers the rate by itself, and train.learning_rates names "
            f"{len(train.learning_rates)}: give one rate, or train.plateau_epochs=0"
        )
    positive = (rows["any"] == 1).fillna(False).to_numpy(dtype=bool)
    drawn = rows["mask"].notna().to_numpy(dtype=bool)
    missing = positive & ~drawn & (train_mask | validation_mask)
    if missing.any():
        raise UserError(
            f"train.network=mask_rcnn learns from masks, and {missing.sum()} slices with hemorrhage have none, "
            f"{rows['slice_id'].to_numpy()[missing][0]} the first; it needs view.masks=true and a data set with masks "
            "(raw/masks/<slice_id>.png)"
        )
    slabs = slab_rows(scan_bounds(rows["scan_id"].to_numpy()), boxes.slab_slices)
    paths = rows["png"].tolist()
    masks = rows["mask"].astype(object).where(drawn, None).to_numpy()

    def items(part: np.ndarray, flip: float) -> Slabs:
        return Slabs(paths, slabs[part], masks[part].tolist(), boxes.least_px, flip, seed)

    loaders = (
        slab_loader(
            items(train_mask, train.flip),
            train.batch,
            workers,
            slab_sampler(positive[train_mask], boxes.negatives, seed),
            # Batch normalisation has little to say about what is left over.
            drop_last=int(train_mask.sum()) > train.batch,
        ),
        slab_loader(items(validation_mask, 0.0), train.batch, workers, EpochSampler(int(validation_mask.sum()))),
    )
    network = build_mask_rcnn(settings)
    module = BoxModule(network, train.learning_rates, seed, train.weight_decay, train.plateau_epochs)
    return module, *loaders
