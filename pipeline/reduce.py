"""Stage `reduce`: embeddings become the sequence model's input; fitted on the fold's training rows only."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from pipeline.config import P_LABELS, Reduce, section_settings
from pipeline.core.reduction import Moments, Reducer, choose_by_spread, choose_by_weights, fit_pca
from pipeline.core.rows import training_rows
from pipeline.job import Job
from pipeline.paths import record_of, require
from pipeline.schema import vectors
from pipeline.shell.atomic import atomic_path
from pipeline.shell.progress import progress
from pipeline.shell.provenance import Provenance
from pipeline.shell.tables import read_table, vector_array, vector_matrix, write_stream

log = logging.getLogger(__name__)


def main(job: Job) -> None:
    """Fit the reducer on training rows, save it, and write every slice's reduced vector beside its probabilities."""
    fold, paths, settings = job.require_fold(), job.paths, job.run.settings.reduce
    embeddings, weights = require(paths.embeddings(fold), "embed"), require(paths.cnn(fold), "train")
    section = section_settings(job.run.settings, "reduce")
    provenance = Provenance("reduce", {"reduce": section, "fold": fold}, [embeddings, weights], job.threads)
    reducer, fitted_on = fit_reducer(settings, embeddings, weights, fold, job.run.settings.split.kind)
    contract, reduced = vectors("REDUCED", reducer.width), paths.reduced(fold)
    with provenance.recorded(record_of(reduced), paths.reducer(fold), reduced) as record:
        _save(paths.reducer(fold), reducer, fitted_on, provenance.facts["inputs"][str(embeddings)])
        count = write_stream(reduced, contract, _reduced(reducer, embeddings), provenance.facts, "slice_id")
        record.update(slices=count, width=reducer.width, fitted_on=fitted_on, explained=reducer.explained)
    log.info(
        "fold %d: %s to %d values, fitted on %d slices%s", fold, settings.method, reducer.width, fitted_on,
        "" if reducer.explained is None else f", {reducer.explained:.1%} of the variance",
    )  # fmt: skip


def fit_reducer(
    settings: Reduce, embeddings: Path, weights: Path, fold: int, split_kind: str = "folds"
) -> tuple[Reducer, int]:
    """Return the reducer of a fold and the number of training rows that it has seen."""
    method, features = settings.method, pq.read_schema(embeddings).field("vector").type.list_size
    if method == "predictions_only":
        return Reducer(method, len(P_LABELS)), 0
    if method == "none":
        return Reducer(method, features), 0
    if method in ("largest_weights", "smallest_weights"):
        head = load_file(weights)["head.weight"]
        indices = choose_by_weights(head, settings.count, largest=method == "largest_weights")
        return Reducer(method, settings.count, indices=indices), 0
    moments = _training_moments(settings, embeddings, fold, split_kind)
    if method == "pca":
        return fit_pca(moments, settings.count), moments.count
    return Reducer(method, settings.count, indices=choose_by_spread(moments, settings.count)), moments.count


def _training_moments(settings: Reduce, embeddings: Path, fold: int, split_kind: str) -> Moments:
    """Return the moments of the fold's training rows: all of them, or `fit_rows` drawn by the settings' seed."""
    used, _ = training_rows(read_table(embeddings, ["fold"])["fold"], fold, split_kind)
    rows = np.flatnonzero(used)
    if 0 < settings.fit_rows < len(rows):
        kept = np.random.default_rng(settings.seed).choice(rows, settings.fit_rows, replace=False)
        used = np.zeros(len(used), dtype=bool)
        used[kept] = True
    moments, start = Moments(), 0
    for batch in _row_groups(embeddings, ["vector"]):
        moments.update(vector_matrix(batch)[used[start : start + batch.num_rows]])
        start += batch.num_rows
    return moments


def _reduced(reducer: Reducer, embeddings: Path) -> Iterator[pa.Table]:
    """Yield REDUCED tables, one a row group of the embeddings."""
    schema = vectors("REDUCED", reducer.width).schema()
    for batch in _row_groups(embeddings):
        probabilities = np.column_stack([batch.column(name).to_numpy() for name in P_LABELS])
        vector = vector_array(reducer.apply(vector_matrix(batch), probabilities))
        index = batch.schema.get_field_index("vector")
        yield batch.set_column(index, "vector", vector).cast(schema)


def _row_groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file, progress(file.metadata.num_rows, "slices") as bar:
        for group in range(file.num_row_groups):
            # One column is nearly all of it: threads would save no time, and each keeps memory of its own.
            table = file.read_row_group(group, columns=columns, use_threads=False)
            yield table
            bar.update(table.num_rows)
            del table
            pa.default_memory_pool().release_unused()  # else it keeps several row groups' worth


def _save(path: Path, reducer: Reducer, fitted_on: int, embeddings_digest: str) -> None:
    """Write the reducer with the digest of what it saw; plain arrays, to be read without pickle."""
    arrays = {
        "method": np.array(reducer.method),
        "width": np.array(reducer.width),
        "fitted_on": np.array(fitted_on),
        "embeddings_sha256": np.array(embeddings_digest),
    }
    for name in ("indices", "mean", "components"):
        if getattr(reducer, name) is not None:
            arrays[name] = getattr(reducer, name)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
