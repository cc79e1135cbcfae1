"""Training steps of a slice classifier, as the stage `train` makes them and as one would at first."""

from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.baselines import straightforward_slice_logits
from pipeline.config import Train
from pipeline.learn.modules import SliceModule
from pipeline.nets.slice_classifier import SliceClassifier

Batch = tuple[Tensor, Tensor]
"""Images (slices, channels, y, x) uint8 and labels (slices, 6) float32."""


class TrainingSteps:
    """The stage's steps without Lightning around them: mixed precision, channels last, the stage's loss and Adam."""

    def __init__(
        self,
        network: SliceClassifier,
        train: Train,
        device: torch.device,
        compile_mode: str | None = None,
        is_fused: bool = True,
    ) -> None:
        """Take the network to the device, and let torch compile it in that mode if there is one."""
        self.device = device
        self.module = SliceModule(
            network.to(device, memory_format=torch.channels_last).train(),
            train.learning_rates,
            train.loss_weights,
            (train.seed,),
        ).to(device)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        if not is_fused:
            self.optimizer = torch.optim.Adam(network.parameters(), lr=train.learning_rates[0])
        self._forward = network if compile_mode is None else torch.compile(network, mode=compile_mode)

    def run(self, batches: Iterable[Batch]) -> Tensor:
        """Make a step of each batch and return the last loss once the device is done."""
        for images, labels in batches:
            loss = self._step(images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return loss.detach()

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = self.module.loss(self._forward(images)[1], labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


class StraightforwardSteps(TrainingSteps):
    """The same steps in 32 bits, without TF32, channels outermost, Adam as torch gives it."""

    def __init__(self, network: SliceClassifier, train: Train, device: torch.device) -> None:
        """Take the network to the device."""
        super().__init__(network, train, device, is_fused=False)
        network.to(memory_format=torch.contiguous_format)
        self.network = network

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        with plain_convolutions():
            loss = self.module.loss(straightforward_slice_logits(self.network, images), labels)
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        return loss


def plain_convolutions() -> torch.backends.cudnn.flags:
    """Return a context in which cuDNN neither tries ways nor shortens numbers to TF32."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
