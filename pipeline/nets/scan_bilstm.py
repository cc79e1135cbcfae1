"""A bidirectional LSTM over all slices of a scan: features in anatomical order in, six logits a slice out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence

from pipeline.config import LABELS

SIDE_BY_SIDE = 16
"""Scans that a CPU works on at a time: enough to be fast, and few enough to be of about one length."""


class ScanBiLSTM(nn.Module):
    """LSTM layers in both directions, outputs concatenated, optionally joined by the CNN's probabilities, linear head.

    Source: Burduja et al. 2020, section 3.2 and Fig. 3. Scans of different length run side by side, but what one scan
    gives does not depend on the scans beside it.
    """

    def __init__(self, features: int, hidden: int, layers: int, drop: float, probabilities: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            features,
            hidden,
            num_layers=layers,
            bidirectional=True,
            batch_first=True,
            # torch warns about dropout on a single layer, where there is nothing between layers to drop.
            dropout=drop if layers > 1 else 0.0,
        )
        self.probabilities = probabilities
        self.head = nn.Linear(2 * hidden + (len(LABELS) if probabilities else 0), len(LABELS))

    def forward(self, features: Sequence[Tensor], probabilities: Sequence[Tensor]) -> Tensor:
        """Return logits (slices of all scans, 6), scan after scan.

        `features` holds one tensor (slices, features) a scan, `probabilities` one (slices, 6) a scan.
        """
        states = self._packed(features) if features[0].is_cuda else self._grouped(features)
        if self.probabilities:
            states = torch.cat([states, torch.cat(list(probabilities))], dim=1)
        return self.head(states)

    def _packed(self, features: Sequence[Tensor]) -> Tensor:
        """Return the states (slices of all scans, 2 * hidden) by the way that cuDNN is fast at."""
        packed, _ = self.lstm(pack_sequence(list(features), enforce_sorted=False))
        padded, lengths = pad_packed_sequence(packed, batch_first=True)  # (scans, longest, 2 * hidden)
        return torch.cat([scan[:length] for scan, length in zip(padded, lengths.tolist(), strict=True)])

    def _grouped(self, features: Sequence[Tensor]) -> Tensor:
        """Return the same states, scans of about one length side by side: of all at once a third would be padding."""
        if len(features) <= SIDE_BY_SIDE:
            return self._padded(features)
        by_length = sorted(range(len(features)), key=lambda scan: len(features[scan]))
        states: list[Tensor] = [features[0]] * len(features)
        for start in range(0, len(features), SIDE_BY_SIDE):
            scans = by_length[start : start + SIDE_BY_SIDE]
            own = self._padded([features[scan] for scan in scans])
            for scan, part in zip(scans, own.split([len(features[scan]) for scan in scans]), strict=True):
                states[scan] = part
        return torch.cat(states)

    def _padded(self, features: Sequence[Tensor]) -> Tensor:
        """Return the same states by one call a layer and direction: oneDNN is fast at these, and not at packed ones.

        The padding stands behind each scan, also where a scan is turned round for the backward direction: it is read
        after all that counts.
        """
        lengths = torch.tensor([len(scan) for scan in features])
        places = torch.arange(int(lengths.max()))
        turned = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)[:, :, None]
        states = pad_sequence(list(features), batch_first=True)  # (scans, longest, features)
        start = states.new_zeros(1, len(features), self.lstm.hidden_size)
        for layer in range(self.lstm.num_layers):
            if layer:
                states = dropout(states, self.lstm.dropout, self.training)
            forward = self._direction(states, start, f"_l{layer}")
            backward = self._direction(_take(states, turned), start, f"_l{layer}_reverse")
            states = torch.cat([forward, _take(backward, turned)], dim=2)  # (scans, longest, 2 * hidden)
        return torch.cat([scan[: len(own)] for scan, own in zip(states, features, strict=True)])

    def _direction(self, states: Tensor, start: Tensor, suffix: str) -> Tensor:
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self.lstm, kind + suffix) for kind in kinds]
        return torch.lstm(states, (start, start), weights, True, 1, 0.0, self.training, False, True)[0]


def _take(states: Tensor, places: Tensor) -> Tensor:
    """Return states (scans, slices, features) in each scan's order of places (scans, slices, 1)."""
    return states.gather(1, places.expand_as(states))
