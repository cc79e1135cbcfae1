"""Stage `endtoend`: train slice network and sequence model together on scan labels, from where both were left."""

import logging

from pipeline.config import LABELS, section_settings
from pipeline.core.rows import cached_slices, training_rows
from pipeline.job import Job
from pipeline.learn.devices import choose_gpu
from pipeline.learn.scan_label_training import prepare_end_to_end
from pipeline.learn.slice_data import loader_workers
from pipeline.learn.trainer import fit
from pipeline.nets.build import parameter_count
from pipeline.paths import record_of, require
from pipeline.shell.network_files import save_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)

COLUMNS = ("slice_id", "scan_id", "patient_id", "split", "spacing_mm", "rows", "row_mm", *LABELS)
"""What is read of SLICES."""


def main(job: Job) -> None:
    """Train on the scans of all other folds, validate on the fold's, and keep the weights after the last epoch."""
    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    tables = [require(paths.slices, "index"), require(paths.images, "window"), require(paths.folds, "split")]
    weights = [require(paths.cnn(fold), "train"), require(paths.sequence(fold), "sequence")]
    sections = {name: section_settings(settings, name) for name in ("train", "volume", "sequence", "endtoend")}
    provenance = Provenance("endtoend", {**sections, "fold": fold}, [*tables, *weights], job.threads)
    slices = read_table(paths.slices, list(COLUMNS))
    rows = cached_slices(slices, read_table(paths.images), read_table(paths.folds), settings.split.kind)
    parts = training_rows(rows["fold"], fold, settings.split.kind)
    # Nor the seed of the stages before it: augmentation would show each scan as it was shown there.
    seed = (settings.train.seed, fold, 2)
    module, *loaders = prepare_end_to_end(rows, *parts, settings, seed, loader_workers(job.n_jobs), *weights)
    parameters = parameter_count(module.network)
    log.info(
        "fold %d: %d parameters, %d scans to train on, %d to validate on",
        fold, parameters, *(len(loader.dataset) for loader in loaders),
    )  # fmt: skip
    identity = {key: provenance.facts[key] for key in ("settings", "inputs", "versions", "threads")}
    artefact = paths.endtoend(fold)
    outcome = fit(module, *loaders, settings.endtoend.epochs, paths.endtoend_run(fold), identity, job.force)
    with provenance.recorded(record_of(artefact), artefact) as record:
        record.update(parameters=parameters, **outcome)
        save_network(artefact, module.network)
