"""Stage `sequence`: train the model over whole scans on one fold's reduced embeddings; the CNN stays as it is."""

import logging

import numpy as np

from pipeline.config import LABELS, P_LABELS, section_settings
from pipeline.core.rows import label_matrix, scan_bounds, training_rows
from pipeline.learn.devices import choose_gpu
from pipeline.learn.modules import ScanModule
from pipeline.learn.scan_data import Scans, scan_loader
from pipeline.learn.seeds import seed_of
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_sequence, parameter_count
from pipeline.plan import Job, record_of, require
from pipeline.shell.network_files import save_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, read_vectors

log = logging.getLogger(__name__)


def main(job: Job) -> None:
    """Train on the scans of all other folds, validate on the fold's, and keep the weights after the last epoch."""
    import torch

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
    scans = [
        Scans(
            features[mask],
            rows.loc[mask, list(P_LABELS)].to_numpy(dtype=np.float32),
            label_matrix(rows[mask]),
            scan_bounds(rows["scan_id"][mask].to_numpy()),
        )
        for mask in parts
    ]
    # Not the seed of the CNN's weights: two networks that begin with the same numbers have no reason to.
    seed = (settings.train.seed, fold, 1)
    torch.manual_seed(seed_of(*seed))
    network = build_sequence(settings, features.shape[1])
    module = ScanModule(network, settings.sequence.learning_rates, settings.sequence.loss_weights, seed)
    train_loader = scan_loader(scans[0], settings.sequence.batch_scans, seed)
    validation_loader = scan_loader(scans[1], settings.sequence.batch_scans, None)
    log.info(
        "fold %d: %s, %d parameters, %d scans to train on, %d to validate on",
        fold, settings.sequence.kind, parameter_count(network), len(scans[0]), len(scans[1]),
    )  # fmt: skip
    identity = {key: provenance.facts[key] for key in ("settings", "inputs", "versions", "threads")}
    outcome = fit(
        module, train_loader, validation_loader, settings.sequence.epochs, paths.sequence_run(fold), identity, job.force
    )
    with provenance.recorded(record_of(paths.sequence(fold)), paths.sequence(fold)) as record:
        record.update(parameters=parameter_count(network), features=features.shape[1], **outcome)
        save_network(paths.sequence(fold), network)
