"""The slice network and the network over the scan as one, trained together without keeping a scan's activations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.nets.summed_bilstm import SummedBiLSTM
from pipeline.nets.vgg import SliceVGG


class EndToEnd(nn.Module):
    """All slices of a scan through a SliceVGG, their vectors through a SummedBiLSTM.

    The slices run in chunks, and of each only its vectors are kept; its activations are computed again when the
    gradient comes to it, so that memory is that of one chunk, at the price of a second pass forward. Logits and
    gradients are those of the whole scan at once, whatever the size of a chunk, but for rounding: no layer looks across
    slices, and dropout is drawn for the whole scan. The slice network's own logit has no part in this and is not
    trained further.
    Source: Patel et al. 2019, section III-C.3.
    """

    def __init__(self, cnn: SliceVGG, sequence: SummedBiLSTM, chunk_slices: int) -> None:
        super().__init__()
        if chunk_slices < 1:
            raise ValueError(f"chunks of {chunk_slices} slices: give at least 1")
        self.cnn = cnn
        self.sequence = sequence
        self.chunk_slices = chunk_slices
        self.cnn.head.requires_grad_(False)

    def forward(self, scans: Sequence[Tensor]) -> Tensor:
        """Return logits (scans,) of scans, each (slices, 1, y, x) in HU."""
        return self.sequence([self._vectors(scan) for scan in scans])

    def _vectors(self, images: Tensor) -> Tensor:
        """Return the vectors (slices, width) of a scan (slices, 1, y, x)."""
        mask = self.cnn.draw_mask(len(images))
        if len(images) <= self.chunk_slices:
            return self.cnn.vectors(images, mask)
        chunks = images.split(self.chunk_slices)
        masks = [None] * len(chunks) if mask is None else mask.split(self.chunk_slices)
        # Nothing random happens inside of a chunk: there is no state to bring back for its second pass.
        return torch.cat(
            [
                checkpoint(self.cnn.vectors, chunk, own, use_reentrant=False, preserve_rng_state=False)
                for chunk, own in zip(chunks, masks, strict=True)
            ]
        )
