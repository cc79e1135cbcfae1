"""Stage `sequence`: train the model over whole scans on one fold's reduced embeddings; the CNN stays as it is."""

import logging

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from pipeline.config import LABELS, P_LABELS, Settings, section_settings
from pipeline.core.rows import label_matrix, scan_bounds, training_rows
from pipeline.job import Job
from pipeline.learn.devices import choose_gpu
from pipeline.learn.modules import ScanModule
from pipeline.learn.scan_data import Scans, scan_loader
from pipeline.learn.scan_label_training import prepare_sequence
from pipeline.learn.seeds import seed_of
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_sequence, parameter_count
from pipeline.paths import record_of, require
from pipeline.shell.network_files import save_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, read_vectors

log = logging.getLogger(__name__)


def main(job: Job) -> None:
    """Train on the scans of all other folds, validate on the fold's, and keep the weights after the last epoch."""
    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    reduced, slices = require(paths.reduced(fold), "reduce"), require(paths.slices, "index")
    sections = {"sequence": section_settings(settings, "sequence"), "seed": settings.train.seed, "fold": fold}
    provenance = Provenance("sequence", sections, [reduced, slices], job.threads)
    rows, features = read_vectors(reduced)
    # EMBEDDINGS and REDUCED keep the order of SLICES: scan after scan, each from its most caudal slice up.
    labels = read_table(slices, ["slice_id", "scan_id", *LABELS])
    rows = rows.merge(labels, on="slice_id", how="left", validate="one_to_one")
    parts = training_rows(rows["fold"], fold, settings.split.kind)
    # Not the seed of the CNN's weights: two networks that begin with the same numbers have no reason to.
    seed = (settings.train.seed, fold, 1)
    prepare = prepare_sequence if settings.sequence.kind == "bilstm_sum" else _prepare
    module, train_loader, validation_loader = prepare(rows, features, *parts, settings, seed)
    network = module.network
    log.info(
        "fold %d: %s, %d parameters, %d scans to train on, %d to validate on",
        fold, settings.sequence.kind, parameter_count(network),
        len(train_loader.dataset), len(validation_loader.dataset),
    )  # fmt: skip
    identity = {key: provenance.facts[key] for key in ("settings", "inputs", "versions", "threads")}
    outcome = fit(
        module, train_loader, validation_loader, settings.sequence.epochs, paths.sequence_run(fold), identity, job.force
    )
    with provenance.recorded(record_of(paths.sequence(fold)), paths.sequence(fold)) as record:
        record.update(parameters=parameter_count(network), features=features.shape[1], **outcome)
        save_network(paths.sequence(fold), network)


def _prepare(
    rows: pd.DataFrame,
    features: np.ndarray,
    train_mask: np.ndarray,
    validation_mask: np.ndarray,
    settings: Settings,
    seed: tuple[int, ...],
) -> tuple[ScanModule, DataLoader, DataLoader]:
    """Return what trains the BiLSTM on six labels a slice; arguments as `prepare_sequence`."""
    torch.manual_seed(seed_of(*seed))
    network = build_sequence(settings, features.shape[1])
    scans = [
        Scans(
            features[mask],
            rows.loc[mask, list(P_LABELS)].to_numpy(dtype=np.float32),
            label_matrix(rows[mask]),
            scan_bounds(rows["scan_id"][mask].to_numpy()),
        )
        for mask in (train_mask, validation_mask)
    ]
    module = ScanModule(network, settings.sequence.learning_rates, settings.sequence.loss_weights, seed)
    train, validation = (
        scan_loader(part, settings.sequence.batch_scans, own) for part, own in zip(scans, (seed, None), strict=True)
    )
    return module, train, validation
