"""A bidirectional LSTM whose directions are summed: a scan's vectors in anatomical order in, one logit a scan out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

GATES = 4


class SummedBiLSTM(nn.Module):
    """LSTM layers in both directions, their outputs summed slice by slice between layers; a linear layer at the end.

    The scan's vector is the sum of the last layer's last states: of the direction that ends at the last slice, and of
    the one that ends at the first. One logit with a sigmoid is the same model as the paper's softmax over two classes:
    of those, only the difference of the two logits counts.

    The paper's gates have one bias each, torch's two that are added: one of them stays at 0, so that a gate's bias
    learns at the rate that it is given, and is counted once. Input weights begin as Glorot's uniform ones, recurrent
    ones as orthogonal matrices, gate by gate; biases at 0, but for the forget gate's, at 1.
    Source: Patel et al. 2019, sections III-A, III-B and III-C.2.
    """

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.hidden = hidden
        widths = [features] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(width, hidden, bidirectional=True) for width in widths)
        self.head = nn.Linear(hidden, 1)
        for layer in self.layers:
            _initialise(layer)

    def forward(self, scans: Sequence[Tensor]) -> Tensor:
        """Return logits (scans,) of scans, each (slices, features); each runs by itself, whatever stands beside it."""
        return self.head(torch.stack([self._scan_vector(scan) for scan in scans]))[:, 0]

    def _scan_vector(self, states: Tensor) -> Tensor:
        """Return the vector (hidden,) of a scan (slices, features)."""
        for layer in self.layers:
            both, (last, _) = layer(states)  # (slices, 2 * hidden); (2, hidden)
            states = both[:, : self.hidden] + both[:, self.hidden :]
        return last.sum(dim=0)


def _initialise(layer: nn.LSTM) -> None:
    for name, weights in layer.named_parameters():
        if name.startswith("weight"):
            begin = nn.init.xavier_uniform_ if "_ih_" in name else nn.init.orthogonal_
            for gate in weights.detach().chunk(GATES):
                begin(gate)
            continue
        nn.init.zeros_(weights)
        if name.startswith("bias_hh"):
            weights.requires_grad_(False)
        else:
            forget = weights.detach().chunk(GATES)[1]  # torch's order: input, forget, cell, output
            nn.init.ones_(forget)
