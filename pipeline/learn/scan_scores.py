"""Running networks that speak of scans: a probability of hemorrhage for each."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.learn.devices import device, precision
from pipeline.shell.progress import tracked


def scan_scores(network: nn.Module, loader: DataLoader) -> np.ndarray:
    """Return probabilities (scans,) float64 of all scans of a loader, in its order.

    network: a SummedBiLSTM with `vectors_loader`, or an EndToEnd with `volumes_loader`.
    """
    where = device()
    network = network.to(where).eval()
    is_mixed = where.type == "cuda"
    half = torch.bfloat16 if precision().startswith("bf16") else torch.float16
    found = []
    for inputs, _targets in tracked(loader, "scans"):
        scans = [scan.to(where, non_blocking=True) for scan in inputs]
        with torch.inference_mode(), torch.autocast(where.type, dtype=half, enabled=is_mixed):
            logits = network(scans)
        # In float32 every logit above 17 would be exactly 1.
        found.append(logits.double().sigmoid().cpu().numpy())
    return np.concatenate(found)
