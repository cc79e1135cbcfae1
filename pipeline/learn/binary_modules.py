"""What Lightning trains where there is one label: a slice's or a scan's hemorrhage, by the binary cross entropy."""

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from pipeline.learn.modules import VALIDATION_LOSS, NetworkModule

KERAS_DECAY = 0.9
"""Of RMSprop's running average; torch's own is 0.99, and the paper's networks were trained with Keras."""


def rmsprop(weights: list[Parameter], rate: float) -> Optimizer:
    """Return RMSprop as Keras has it. Source: Patel et al. 2019, section III-C.2."""
    return torch.optim.RMSprop(weights, lr=rate, alpha=KERAS_DECAY)


class BinaryModule(NetworkModule):
    """Trains a network that gives a logit a scan on (scans, targets (scans,))."""

    _validation: list[tuple[Tensor, Tensor]]

    def logits(self, inputs: list[Tensor]) -> Tensor:
        """Return logits (scans,)."""
        return self.network(inputs)

    def training_step(self, batch: tuple, batch_idx: int) -> Tensor:
        """Return the binary cross entropy of a batch."""
        inputs, targets = batch
        loss = binary_cross_entropy_with_logits(self.logits(inputs).float(), targets)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(targets))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget what another epoch left."""
        self._validation = []

    def validation_step(self, batch: tuple, batch_idx: int) -> None:
        """Keep logits and targets for the end of the epoch: the loss is a mean over all, not over batches."""
        inputs, targets = batch
        self._validation.append((self.logits(inputs).double(), targets.double()))

    def on_validation_epoch_end(self) -> None:
        """Log the binary cross entropy of all that is validated on."""
        logits, targets = (torch.cat(parts) for parts in zip(*self._validation, strict=True))
        self.log(VALIDATION_LOSS, binary_cross_entropy_with_logits(logits, targets), prog_bar=True)


class BinarySliceModule(BinaryModule):
    """Trains a network that gives embeddings and logits (slices, 1) on (images, targets (slices,))."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits (slices,)."""
        return self.network(inputs)[1][:, 0]
