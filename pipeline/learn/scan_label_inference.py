"""What the systems of Patel et al. 2019 say of scans: from slices, from vectors, and end to end."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import P_LABELS, Settings
from pipeline.core.rows import scan_bounds
from pipeline.core.scan_predictions import ScanScores
from pipeline.core.scan_rules import percentile_scores
from pipeline.core.stacked_svm import svm_scan_scores
from pipeline.learn.scan_label_training import scan_targets, vectors_loader, volumes_loader
from pipeline.learn.scan_scores import scan_scores
from pipeline.nets.build import build_end_to_end, build_summed_bilstm
from pipeline.shell.network_files import load_network

PERCENTILE = 95.0
"""Section IV-A."""


def scores_of_scans(
    rows: pd.DataFrame,
    vectors: np.ndarray,
    train: np.ndarray,
    wanted: np.ndarray,
    settings: Settings,
    workers: int,
    sequence: Path,
    endtoend: Path | None,
) -> ScanScores:
    """Return by predictor the wanted scans and the score of each, in [0, 1].

    rows: one a slice in the order of SLICES: scan_id, png, spacing_mm, rows, row_mm, p_any, `any`; vectors: (slices,
    features); train, wanted: masks (slices,) over whole scans; sequence, endtoend: weights, None where the recipe ends
    before that step. `cnn/percentile-95` is of slices' probabilities, `cnn/svm` a linear SVM on their vectors, its
    decision values through the sigmoid. Source: Patel et al. 2019, section IV.
    """
    own = rows[wanted]
    scans = own["scan_id"].to_numpy(object)[scan_bounds(own["scan_id"].to_numpy())[:-1]]
    network = build_summed_bilstm(settings, vectors.shape[1])
    load_network(sequence, network)
    p_any = own[P_LABELS[-1]].to_numpy(np.float64)
    of_svm = svm_scan_scores(
        _by_scan(rows, vectors, train), scan_targets(rows[train]) > 0, _by_scan(rows, vectors, wanted)
    )
    found = {
        f"cnn/percentile-{PERCENTILE:g}": percentile_scores(own["scan_id"].to_numpy(object), p_any, PERCENTILE),
        "cnn/svm": (scans, 1 / (1 + np.exp(-of_svm))),
        "sequence": (scans, scan_scores(network, vectors_loader(own, vectors[wanted], settings))),
    }
    if endtoend is not None:
        whole = build_end_to_end(settings)
        load_network(endtoend, whole)
        found["endtoend"] = (scans, scan_scores(whole, volumes_loader(own, settings, workers)))
    return found


def _by_scan(rows: pd.DataFrame, vectors: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    bounds = scan_bounds(rows["scan_id"][mask].to_numpy())
    return np.split(vectors[mask].astype(np.float32), bounds[1:-1])
