"""Stage `train`: fine-tune the slice classifier of one fold."""

import logging
from pathlib import Path

from pipeline.config import LABELS, section_settings
from pipeline.core.rows import cached_slices, label_matrix, training_rows
from pipeline.learn.devices import choose_gpu
from pipeline.learn.modules import SliceModule
from pipeline.learn.seeds import seed_of
from pipeline.learn.slice_data import SliceImages, augmentation, loader_workers, slice_loader
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_slice_classifier, parameter_count
from pipeline.plan import Job, record_of, require
from pipeline.shell.network_files import save_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)


def main(job: Job) -> None:
    """Train on the slices of all other folds, validate on the fold's, and keep the weights after the last epoch.

    Choosing the best epoch on the validation fold would flatter the out-of-fold score.
    """
    import torch

    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    inputs = [require(paths.slices, "index"), require(paths.images, "window"), require(paths.folds, "split")]
    sections = {name: section_settings(settings, name) for name in ("view", "split", "train")}
    if Path(settings.train.weights).is_file():
        inputs.append(Path(settings.train.weights))
    provenance = Provenance("train", {**sections, "fold": fold}, inputs, job.threads)
    slices = read_table(paths.slices, ["slice_id", "patient_id", "split", *LABELS])
    rows = cached_slices(slices, read_table(paths.images), read_table(paths.folds), settings.split.kind)
    train_mask, validation_mask = training_rows(rows["fold"], fold, settings.split.kind)

    torch.manual_seed(seed_of(settings.train.seed, fold))
    network = build_slice_classifier(settings, pretrained=True)
    network.to(memory_format=torch.channels_last)
    seed = (settings.train.seed, fold)
    module = SliceModule(network, settings.train.learning_rates, settings.train.loss_weights, seed)
    loaders = [
        slice_loader(
            SliceImages(
                rows["png"][mask].tolist(),
                rows["slice_id"][mask].tolist(),
                label_matrix(rows[mask]),
                augmentation(settings.train) if training else None,
                seed,
            ),
            settings.train.batch,
            loader_workers(job.n_jobs),
            shuffle=training,
        )
        for mask, training in ((train_mask, True), (validation_mask, False))
    ]
    log.info(
        "fold %d: %s, %d parameters, %d slices to train on, %d to validate on",
        fold, settings.train.encoder, parameter_count(network), train_mask.sum(), validation_mask.sum(),
    )  # fmt: skip
    identity = {key: provenance.facts[key] for key in ("settings", "inputs", "versions", "threads")}
    outcome = fit(module, *loaders, settings.train.epochs, paths.cnn_run(fold), identity, job.force)
    with provenance.recorded(record_of(paths.cnn(fold)), paths.cnn(fold)) as record:
        record.update(parameters=parameter_count(network), **outcome)
        save_network(paths.cnn(fold), network)
