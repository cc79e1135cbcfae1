"""Training the model over whole scans: 64 scans a step beside one scan a step: `python -m benchmarks.sequence`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines import straightforward_scan_logits
from benchmarks.comparison import NO_GPU, Comparison, Target, alternating
from benchmarks.full_size_data import RSNA_TRAIN, SCAN_SLICES, SCAN_SLICES_SD
from benchmarks.parts import THREADS, run_part
from pipeline.config import variant
from pipeline.learn.devices import device
from pipeline.learn.modules import ScanModule
from pipeline.learn.scan_data import ScanBatch, Scans, scan_loader
from pipeline.nets.build import build_sequence
from pipeline.runs import recipe

SETTINGS = variant(recipe("burduja2020").settings, **{"sequence.batch_scans": 64})
SAMPLE_SCANS = 640
ROUNDS = 3
TOLERANCE = 1e-5
"""How far the logits of a scan may lie apart, whether it runs alone or among others."""

Step = Callable[[ScanBatch], tuple[Tensor, Tensor]]


def sample_scans(count: int, seed: int) -> Scans:
    """Return so many scans with RSNA's numbers of slices: random features, probabilities and labels."""
    rng = np.random.default_rng(seed)
    mean = RSNA_TRAIN.slices / RSNA_TRAIN.scans
    lengths = np.clip(np.round(rng.normal(mean, SCAN_SLICES_SD, count)), *SCAN_SLICES).astype(int)
    rows = int(lengths.sum())
    features = rng.standard_normal((rows, SETTINGS.reduce.count), dtype=np.float32)
    labels = (rng.random((rows, 6)) < 0.1).astype(np.float32)
    return Scans(features, rng.random((rows, 6), dtype=np.float32), labels, np.append(0, np.cumsum(lengths)))


def check(scans: Scans) -> None:
    """Raise ValueError where a scan's logits among others are not the straightforward way's of that scan alone."""
    network = build_sequence(SETTINGS, scans.features.shape[1]).to(device()).eval()
    features, probabilities, _ = (
        [t.to(device()) for t in ts] for ts in next(iter(scan_loader(scans, SETTINGS.sequence.batch_scans, None)))
    )
    with torch.inference_mode():
        together = network(features, probabilities)
        alone = [straightforward_scan_logits(network, f, p) for f, p in zip(features, probabilities, strict=True)]
    apart = (together - torch.cat(alone)).abs().max().item()
    if apart > TOLERANCE:
        raise ValueError(f"logits of {len(features)} scans lie up to {apart:g} from those of one scan at a time")


def epoch(scans: Scans, batch_scans: int, straightforward: bool) -> Callable[[], None]:
    """Return a function that trains on all scans once, in float32."""
    network = build_sequence(SETTINGS, scans.features.shape[1])
    if straightforward:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    module = ScanModule(network, [1e-4], SETTINGS.sequence.loss_weights, (0,)).to(device()).train()
    if not straightforward:
        optimizer = module.configure_optimizers()["optimizer"]
    loader = scan_loader(scans, batch_scans, None)

    def run() -> None:
        for batch in loader:
            features, probabilities, labels = ([t.to(device()) for t in tensors] for tensors in batch)
            if straightforward:
                logits = straightforward_scan_logits(network, features[0], probabilities[0])
            else:
                logits = module.logits_and_labels((features, probabilities, labels))[0]
            optimizer.zero_grad()
            module.loss(logits, torch.cat(labels)).backward()
            optimizer.step()
        if device().type == "cuda":
            torch.cuda.synchronize()

    return run


def rows() -> list[Comparison]:
    """Return the rows of an epoch on the CPU and on a GPU, scaled from a sample to all of RSNA's scans."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    torch.backends.cudnn.allow_tf32 = False
    scans = sample_scans(SAMPLE_SCANS, seed=0)
    check(scans)
    ours, baseline = alternating(epoch(scans, SETTINGS.sequence.batch_scans, False), epoch(scans, 1, True), ROUNDS)
    scale = RSNA_TRAIN.scans / SAMPLE_SCANS
    note = f"float32, 64 scans a step beside one by torch's LSTM; scaled from {SAMPLE_SCANS} scans of 20 to 60 slices"
    measured = {"value": ours * scale, "baseline": baseline * scale, "note": note}
    absent = {"value": None, "note": NO_GPU}
    on_gpu = device().type == "cuda"
    return [
        Comparison(f"sequence, an epoch over {RSNA_TRAIN.scans:,} scans, {where}", "s", target=target, **figures)
        for where, target, figures in (
            ("CPU", Target("times", 4), {**absent, "note": "on a GPU machine"} if on_gpu else measured),
            ("GPU", Target("times", 30), measured if on_gpu else absent),
        )
    ]


if __name__ == "__main__":
    run_part("sequence", rows, __doc__.splitlines()[0])
