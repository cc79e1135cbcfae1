"""PCA of RSNA's embeddings beside scikit-learn's IncrementalPCA: `python -m benchmarks.reduce`. 4 GB of disk."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import PCA, IncrementalPCA

from benchmarks.comparison import Comparison, Target
from benchmarks.full_size_data import RSNA_TEST, RSNA_TRAIN
from benchmarks.measure import measure
from benchmarks.parts import THREADS, run_part
from pipeline.__main__ import make_job, parser
from pipeline.config import P_LABELS
from pipeline.core.reduction import Moments, fit_pca
from pipeline.embed import GROUP_ROWS
from pipeline.paths import Paths
from pipeline.schema import vectors
from pipeline.shell.atomic import atomic_path
from pipeline.shell.tables import vector_array, vector_matrix, write_stream

log = logging.getLogger(__name__)

ROWS = RSNA_TRAIN.slices + RSNA_TEST.slices
FEATURES, COMPONENTS, FOLDS = 2048, 120, 5
BASELINE_ROWS = 50_000
HIDDEN = 200
"""Directions in which the synthetic embeddings vary much, as real ones do; noise lies in all."""

DIFFERENT_GROUPS = 16
"""Row groups of features that are made; making all of them would take longer than what is measured."""

CHECKED_ROWS = 4096
TOLERANCE = 1e-5
"""How far the components may lie from those of a full singular value decomposition."""

ARGUMENTS = (
    "--dataset", "rsna-like", "--recipe", "burduja2020", "--fold", "0", "--threads", str(THREADS),
    "--set", "reduce.fit_rows=0",
)  # fmt: skip


def features(groups: int, seed: int) -> list[np.ndarray]:
    """Return features (GROUP_ROWS, FEATURES) float16 at or above 0, of slowly falling variance, so many times."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((HIDDEN, FEATURES), dtype=np.float32) * np.geomspace(1, 0.1, HIDDEN)[:, None]
    found = []
    for _ in range(groups):
        signal = rng.standard_normal((GROUP_ROWS, HIDDEN), dtype=np.float32) @ mixing.astype(np.float32)
        noise = 0.3 * rng.standard_normal((GROUP_ROWS, FEATURES), dtype=np.float32)
        found.append(np.abs(signal + noise).astype(np.float16))
    return found


def embeddings(rows: int, seed: int) -> Iterator[pa.Table]:
    """Yield EMBEDDINGS tables of so many rows; the features of DIFFERENT_GROUPS row groups take turns."""
    rng = np.random.default_rng(seed)
    different = features(DIFFERENT_GROUPS, seed + 1)
    schema = vectors("EMBEDDINGS", FEATURES).schema()
    for start in range(0, rows, GROUP_ROWS):
        numbers = np.arange(start, min(start + GROUP_ROWS, rows))
        chosen = different[start // GROUP_ROWS % DIFFERENT_GROUPS][: len(numbers)]
        folds = pa.array(numbers % FOLDS, pa.int8(), mask=numbers >= rows * RSNA_TRAIN.slices // ROWS)
        columns = {"slice_id": [f"ID_{n:09x}" for n in numbers], "fold": folds, "vector": vector_array(chosen)}
        chances = {name: pa.array(rng.random(len(numbers))) for name in P_LABELS}
        yield pa.table({**columns, **chances}, schema=schema)


def lay_out(folder: Path, paths: Paths, rows: int) -> None:
    """Write EMBEDDINGS, and weights for the stage to find."""
    contract = vectors("EMBEDDINGS", FEATURES)
    write_stream(folder / paths.embeddings(0), contract, embeddings(rows, seed=0), {}, "slice_id")
    with atomic_path(folder / paths.cnn(0)) as partial:
        partial.write_bytes(b"")


def check(sample: np.ndarray, components: int) -> None:
    """Raise ValueError where the components of a sample (rows, features) are not those of scikit-learn's exact PCA."""
    moments = Moments()
    for part in np.array_split(sample, 3):
        moments.update(part)
    ours = fit_pca(moments, components).components
    exact = PCA(components, svd_solver="full").fit(sample.astype(np.float64)).components_
    exact *= np.sign((ours * exact).sum(axis=1))[:, None]
    apart = np.abs(ours - exact).max()
    if not apart <= TOLERANCE:
        raise ValueError(f"components lie up to {apart:g} from those of a full singular value decomposition")


def straightforward_pca(path: Path) -> float:
    """Return the seconds that scikit-learn's IncrementalPCA takes to fit and project the table's first rows."""
    began = time.perf_counter()
    read = 0
    groups = []
    with pq.ParquetFile(path) as file:
        while read < BASELINE_ROWS:
            groups.append(vector_matrix(file.read_row_group(len(groups), columns=["vector"])))
            read += len(groups[-1])
    vectors_read = np.concatenate(groups)[:BASELINE_ROWS].astype(np.float32)
    IncrementalPCA(COMPONENTS).fit(vectors_read).transform(vectors_read).astype(np.float16)
    return time.perf_counter() - began


def rows() -> list[Comparison]:
    """Return the rows of seconds and of memory of the stage at RSNA's size."""
    paths = make_job(parser().parse_args(["reduce", *ARGUMENTS])).paths
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with tempfile.TemporaryDirectory(prefix="reduce-") as scratch:
        folder = Path(scratch)
        log.info("generating %d embeddings of %d features", ROWS, FEATURES)
        lay_out(folder, paths, ROWS)
        with pq.ParquetFile(folder / paths.embeddings(0)) as file:
            check(vector_matrix(file.read_row_group(0, columns=["vector"]))[:CHECKED_ROWS], COMPONENTS)
        log.info("scikit-learn's IncrementalPCA of %d rows", BASELINE_ROWS)
        before = straightforward_pca(folder / paths.embeddings(0))
        log.info("the stage")
        seconds, peak_mb = measure([sys.executable, "-m", "pipeline", "reduce", *ARGUMENTS], folder, environment)
        log.info("scikit-learn's IncrementalPCA again")
        after = straightforward_pca(folder / paths.embeddings(0))
    baseline = (before + after) / 2 * ROWS / BASELINE_ROWS
    return [
        Comparison(
            f"reduce, PCA {COMPONENTS} of {ROWS:,} × {FEATURES} half-precision numbers", "s", seconds,
            Target("times", 8), baseline,
            f"the whole stage, once; scikit-learn's IncrementalPCA of {BASELINE_ROWS:,} rows before and after, scaled",
        ),
        Comparison("the same: peak memory", "MB", peak_mb, Target("most", 2048)),
    ]  # fmt: skip


if __name__ == "__main__":
    run_part("reduce", rows, __doc__.splitlines()[0])
