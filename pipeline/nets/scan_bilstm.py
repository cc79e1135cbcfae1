"""A bidirectional LSTM over all slices of a scan: features in anatomical order in, six logits a slice out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from pipeline.config import LABELS


class ScanBiLSTM(nn.Module):
    """LSTM layers in both directions, outputs concatenated, optionally joined by the CNN's probabilities, linear head.

    Source: Burduja et al. 2020, section 3.2 and Fig. 3. Scans of different length are packed, so that what one scan
    gives does not depend on the scans beside it.
    """

    def __init__(self, features: int, hidden: int, layers: int, dropout: float, probabilities: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            features,
            hidden,
            num_layers=layers,
            bidirectional=True,
            batch_first=True,
            # torch warns about dropout on a single layer, where there is nothing between layers to drop.
            dropout=dropout if layers > 1 else 0.0,
        )
        self.probabilities = probabilities
        self.head = nn.Linear(2 * hidden + (len(LABELS) if probabilities else 0), len(LABELS))

    def forward(self, features: Sequence[Tensor], probabilities: Sequence[Tensor]) -> Tensor:
        """Return logits (slices of all scans, 6), scan after scan.

        `features` holds one tensor (slices, features) a scan, `probabilities` one (slices, 6) a scan.
        """
        packed, _ = self.lstm(pack_sequence(list(features), enforce_sorted=False))
        padded, lengths = pad_packed_sequence(packed, batch_first=True)  # (scans, longest, 2 * hidden)
        states = torch.cat([scan[:length] for scan, length in zip(padded, lengths.tolist(), strict=True)])
        if self.probabilities:
            states = torch.cat([states, torch.cat(list(probabilities))], dim=1)
        return self.head(states)
