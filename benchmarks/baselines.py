"""The straightforward ways that stages are compared with, each written from its description and nothing cleverer."""

import torch
from torch import Tensor

from pipeline.nets.scan_bilstm import ScanBiLSTM


def straightforward_scan_logits(network: ScanBiLSTM, features: Tensor, probabilities: Tensor) -> Tensor:
    """Return logits (slices, 6) of one scan: torch's own LSTM on features (slices, features), then the head."""
    states, _ = network.lstm(features[None])
    states = states[0]
    if network.probabilities:
        states = torch.cat([states, probabilities], dim=1)
    return network.head(states)
