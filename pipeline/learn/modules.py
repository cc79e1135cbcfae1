"""What Lightning trains: a network, a loss, an optimiser with a rate an epoch, a score in validation."""

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from pipeline.core.metrics import weighted_log_loss
from pipeline.learn.scan_data import ScanBatch
from pipeline.learn.seeds import seed_of

VALIDATION_SCORE = "val_weighted_log_loss"
VALIDATION_LOSS = "val_loss"
"""Of modules whose networks do not give six labels."""


def adam(weights: list[nn.Parameter], rate: float) -> Optimizer:
    """Return Adam for these weights; fused where they lie on a GPU."""
    # On a CPU the fused one rounds otherwise, and trainings of before would not come out the same.
    return torch.optim.Adam(weights, lr=rate, fused=weights[0].is_cuda or None)


class NetworkModule(pl.LightningModule):
    """Trains a network by an optimiser with a rate an epoch; subclasses say what a training step's loss is."""

    def __init__(
        self,
        network: nn.Module,
        learning_rates: Sequence[float],
        seed: tuple[int, ...],
        optimizer: Callable[[list[nn.Parameter], float], Optimizer] = adam,
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rates = tuple(learning_rates)
        self.seed = seed
        self.optimizer = optimizer
        self.epochs_run = 0
        """In this process: a training that went on has run fewer than it has."""

    def on_train_epoch_start(self) -> None:
        """Count the epoch."""
        self.epochs_run += 1

    def on_train_batch_start(self, batch: tuple, batch_idx: int) -> None:
        """Reseed dropout by (seed, fold, step): a run that was resumed goes on as if it had not been cut off."""
        torch.manual_seed(seed_of(*self.seed, self.global_step))

    def configure_optimizers(self) -> dict:
        """Return the optimiser with the settings' learning rate of each epoch; the last one holds for those beyond."""
        rates = self.learning_rates
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        optimizer = self.optimizer(weights, rates[0])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: rates[min(epoch, len(rates) - 1)] / rates[0]
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


class LabelModule(NetworkModule):
    """Trains a network on six labels a slice by Adam; subclasses say how a batch becomes logits and labels."""

    def __init__(
        self,
        network: nn.Module,
        learning_rates: Sequence[float],
        loss_weights: Sequence[float],
        seed: tuple[int, ...],
    ) -> None:
        super().__init__(network, learning_rates, seed)
        self.register_buffer("loss_weights", torch.tensor(loss_weights), persistent=False)
        self._validation: list[tuple[Tensor, Tensor]] = []

    def logits_and_labels(self, batch: tuple) -> tuple[Tensor, Tensor]:
        """Return logits and labels, both (slices, 6)."""
        raise TypeError(f"{type(self).__name__} does not say how a batch becomes logits")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the binary cross entropy, summed over weighted labels, averaged over slices.

        Source: Burduja et al. 2020, equation 1 (all weights 1).
        """
        each = binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")  # (slices, 6)
        return (each * self.loss_weights).sum(dim=1).mean()

    def training_step(self, batch: tuple, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        logits, labels = self.logits_and_labels(batch)
        loss = self.loss(logits, labels)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple, batch_idx: int) -> None:
        """Keep logits and labels for the end of the epoch: the score is a mean over slices, not over batches."""
        logits, labels = self.logits_and_labels(batch)
        self._validation.append((logits.float(), labels))  # on their device: to fetch them would be to wait for it

    def on_validation_epoch_end(self) -> None:
        """Log the weighted log loss of the validation fold, by the function that scores submissions."""
        logits, labels = (torch.cat(parts).cpu() for parts in zip(*self._validation, strict=True))
        self._validation.clear()
        score = weighted_log_loss(labels.double().numpy(), logits.double().sigmoid().numpy())
        self.log(VALIDATION_SCORE, score, prog_bar=True)


class SliceModule(LabelModule):
    """Trains a slice classifier on (images, labels)."""

    def logits_and_labels(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits and labels, both (slices, 6), of uint8 images (slices, channels, y, x)."""
        images, labels = batch
        return self.network(images)[1], labels


class ScanModule(LabelModule):
    """Trains a sequence model on whole scans."""

    def logits_and_labels(self, batch: ScanBatch) -> tuple[Tensor, Tensor]:
        """Return logits and labels, both (slices of all scans, 6)."""
        features, probabilities, labels = batch
        return self.network(features, probabilities), torch.cat(labels)
