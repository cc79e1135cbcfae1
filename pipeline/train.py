"""Stage `train`: fine-tune the slice classifier of one fold, or train a network of another kind in one piece."""

import importlib
import logging
from pathlib import Path

from pipeline.config import LABELS, STAGE_SECTIONS, network_name, section_settings
from pipeline.core.rows import cached_slices, training_rows
from pipeline.job import Job
from pipeline.learn.devices import choose_gpu
from pipeline.learn.seeds import seed_of
from pipeline.learn.slice_data import loader_workers
from pipeline.learn.trainer import fit
from pipeline.nets.build import parameter_count
from pipeline.paths import record_of, require
from pipeline.shell.network_files import save_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)

TRAININGS = {"timm": "slice_training", "densenet": "dense_training", "vgg": "vgg_training", "mask_rcnn": "box_training"}
"""By network: the module of `learn` whose `prepare` gives what is trained and what it is fed with."""


def main(job: Job) -> None:
    """Train on the slices of all other folds, validate on the fold's, and keep the weights after the last epoch.

    Choosing the best epoch on the validation fold would flatter the out-of-fold score.
    """
    import torch

    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    inputs = [require(paths.slices, "index"), require(paths.images, "window"), require(paths.folds, "split")]
    sections = {name: section_settings(settings, name) for name in ("view", "split", *STAGE_SECTIONS["train"])}
    if Path(settings.train.weights).is_file():
        inputs.append(Path(settings.train.weights))
    provenance = Provenance("train", {**sections, "fold": fold}, inputs, job.threads)
    slices = read_table(paths.slices, ["slice_id", "scan_id", "patient_id", "split", *LABELS])
    rows = cached_slices(slices, read_table(paths.images), read_table(paths.folds), settings.split.kind)
    train_mask, validation_mask = training_rows(rows["fold"], fold, settings.split.kind)

    seed = (settings.train.seed, fold)
    torch.manual_seed(seed_of(*seed))
    training = importlib.import_module(f"pipeline.learn.{TRAININGS[settings.train.network]}")
    module, *loaders = training.prepare(rows, train_mask, validation_mask, settings, seed, loader_workers(job.n_jobs))
    parameters = parameter_count(module.network)
    log.info(
        "fold %d: %s, %d parameters, %d slices to train on, %d to validate on",
        fold, network_name(settings), parameters, train_mask.sum(), validation_mask.sum(),
    )  # fmt: skip
    identity = {key: provenance.facts[key] for key in ("settings", "inputs", "versions", "threads")}
    outcome = fit(module, *loaders, settings.train.epochs, paths.cnn_run(fold), identity, job.force)
    with provenance.recorded(record_of(paths.cnn(fold)), paths.cnn(fold)) as record:
        record.update(parameters=parameters, **outcome)
        save_network(paths.cnn(fold), module.network)
