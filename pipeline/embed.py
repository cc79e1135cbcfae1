"""Stage `embed`: the embedding and the six probabilities of every slice, by the classifier of one fold."""

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from torch.utils.data import DataLoader
from tqdm import tqdm

from pipeline.config import P_LABELS, Settings, section_settings
from pipeline.core.rows import cached_slices
from pipeline.job import Job
from pipeline.learn.devices import choose_gpu
from pipeline.learn.hu_slices import embedding_loader
from pipeline.learn.inference import embed_slices
from pipeline.learn.slice_data import SliceImages, loader_workers, slice_loader
from pipeline.nets.build import build_network
from pipeline.paths import record_of, require
from pipeline.schema import Contract, vectors
from pipeline.shell.network_files import load_network
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, vector_array, write_stream

log = logging.getLogger(__name__)

GROUP_ROWS = 4096
"""Slices in a row group: enough for a reader to stream well, 16 MB of 2048 half-precision features."""


def main(job: Job) -> None:
    """Embed every cached slice of training and test part; rows go to disk as they come."""
    fold, paths, settings = job.require_fold(), job.paths, job.run.settings
    choose_gpu(fold)
    tables = [require(paths.slices, "index"), require(paths.images, "window"), require(paths.folds, "split")]
    weights = require(paths.cnn(fold), "train")
    section = section_settings(settings, "embed")
    provenance = Provenance("embed", {"embed": section, "fold": fold}, [*tables, weights], job.threads)
    slices = read_table(paths.slices, ["slice_id", "scan_id", "patient_id", "split"])
    rows = cached_slices(slices, read_table(paths.images), read_table(paths.folds), settings.split.kind)
    rows = rows[["slice_id", "scan_id", "fold", "png"]]
    network = build_network(settings, pretrained=False)
    load_network(weights, network)
    loader = _loader(rows, settings, loader_workers(job.n_jobs))
    contract = vectors("EMBEDDINGS", network.width)
    log.info("fold %d: %d slices, %d features each", fold, len(rows), network.width)
    artefact = paths.embeddings(fold)
    with (
        provenance.recorded(record_of(artefact), artefact) as record,
        tqdm(total=len(rows), unit=" slices", disable=None) as bar,
    ):
        batches = _tables(contract, rows, embed_slices(network, loader), bar)
        count = write_stream(artefact, contract, batches, provenance.facts, "slice_id")
        record.update(slices=count, features=network.width)


def _loader(rows: pd.DataFrame, settings: Settings, workers: int) -> DataLoader:
    """Return what feeds a slice network all rows in their order."""
    if settings.train.network == "vgg":
        return embedding_loader(rows, settings, workers)
    images = SliceImages(rows["png"].tolist(), rows["slice_id"].tolist())
    return slice_loader(images, settings.embed.batch, workers, shuffle=False)


def _tables(
    contract: Contract, rows: pd.DataFrame, batches: Iterator[tuple[np.ndarray, np.ndarray]], bar: tqdm
) -> Iterator[pa.Table]:
    """Yield EMBEDDINGS tables of up to GROUP_ROWS rows from embeddings and probabilities in the order of `rows`."""
    start, waiting = 0, []
    for embeddings, probabilities in batches:
        waiting.append((embeddings, probabilities))
        bar.update(len(embeddings))
        if sum(len(e) for e, _ in waiting) >= GROUP_ROWS:
            yield _table(contract, rows, start, waiting)
            start, waiting = start + sum(len(e) for e, _ in waiting), []
    if waiting:
        yield _table(contract, rows, start, waiting)


def _table(contract: Contract, rows: pd.DataFrame, start: int, parts: list[tuple[np.ndarray, np.ndarray]]) -> pa.Table:
    embeddings, probabilities = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    # A network that tells no types apart speaks of the last label, `any`, alone.
    spoken = P_LABELS[-probabilities.shape[1] :]
    said = {name: pa.array(probabilities[:, i]) for i, name in enumerate(spoken)}
    unsaid = {name: pa.nulls(len(embeddings), pa.float64()) for name in P_LABELS if name not in spoken}
    part = rows.iloc[start : start + len(embeddings)]
    columns = {
        "slice_id": pa.array(part["slice_id"], pa.string()),
        "fold": pa.array(part["fold"], pa.int8()),
        "vector": vector_array(embeddings),
        **said,
        **unsaid,
    }
    schema = contract.schema()
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
