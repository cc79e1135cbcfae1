"""Reducing embeddings: principal components, or features chosen by the classifier's weights or by their spread."""

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg.blas import ssyrk

from pipeline.config import UserError

NEAR_ROWS = 64
"""Rows that are converted at a time: a megabyte of 2048 features in float64."""


@dataclass
class Moments:
    """Count, mean and scatter of vectors that are seen batch by batch; memory does not grow with their number.

    Sums are taken about the first batch's mean: features that lie far from zero lose no digits. The scatter is
    symmetric: only its lower triangle is summed, in half the time. Products of a batch are summed in float32, in half
    the time again, and those of batches in float64: the error is that of one batch, a millionth, however many follow.
    """

    count: int = 0
    shift: np.ndarray | None = None
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def update(self, vectors: np.ndarray) -> None:
        """Take in vectors (rows, features)."""
        if len(vectors) == 0:
            return
        if self.shift is None:
            features = vectors.shape[1]
            self.shift = vectors.mean(axis=0, dtype=np.float64)
            self.total = np.zeros(features)
            self.squares = np.zeros((features, features), order="F")
        shifted = _float32(vectors, self.shift)
        self.count += len(shifted)
        self.total += shifted.sum(axis=0, dtype=np.float64)
        self.squares += ssyrk(1.0, shifted.T, lower=True)

    def mean(self) -> np.ndarray:
        """Return the mean (features,); raises ValueError before the first vector."""
        if self.shift is None:
            raise ValueError("moments of no vectors")
        return self.shift + self.total / self.count

    def covariance(self) -> np.ndarray:
        """Return the sample covariance (features, features); raises ValueError with fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"covariance of {self.count} vectors")
        scatter = self.squares + np.tril(self.squares, -1).T
        return (scatter - np.outer(self.total, self.total) / self.count) / (self.count - 1)


@dataclass(frozen=True)
class Reducer:
    """Either chosen features (`indices`) or a projection: (vector - mean) @ components.T."""

    method: str
    width: int
    indices: np.ndarray | None = None
    mean: np.ndarray | None = None
    components: np.ndarray | None = None
    explained: float | None = None
    """Share of the variance that the components hold (PCA)."""

    def apply(self, vectors: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return reduced vectors (rows, width) float32 of embeddings (rows, features) and probabilities (rows, 6)."""
        if self.method == "predictions_only":
            return probabilities.astype(np.float32)
        vectors = _float32(vectors)
        if self.components is not None and self.mean is not None:
            return (vectors - self.mean.astype(np.float32)) @ self.components.T.astype(np.float32)
        return vectors if self.indices is None else vectors[:, self.indices]


def _float32(vectors: np.ndarray, shift: np.ndarray | None = None) -> np.ndarray:
    """Return vectors less `shift` in float32 by way of float64, to which numpy has a quick way from half precision."""
    single = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), NEAR_ROWS):  # few enough to stay in the cache in between
        double = vectors[start : start + NEAR_ROWS].astype(np.float64)
        single[start : start + NEAR_ROWS] = double if shift is None else np.subtract(double, shift, out=double)
    return single


def fit_pca(moments: Moments, count: int) -> Reducer:
    """Return the projection onto the `count` directions of largest variance.

    Each component's sign makes its entry of largest magnitude positive, so that equal data give equal components.
    Raises UserError where there are fewer features or vectors than components.
    """
    features = len(moments.mean())
    if count > min(features, moments.count - 1):
        raise UserError(
            f"reduce.count={count}: {moments.count} vectors of {features} features have at most "
            f"{min(features, moments.count - 1)} components"
        )
    variances, directions = np.linalg.eigh(moments.covariance())  # ascending
    components = directions[:, ::-1][:, :count].T  # (count, features)
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(count), largest])[:, None]
    explained = float(variances[::-1][:count].sum() / variances.sum())
    return Reducer("pca", count, mean=moments.mean(), components=components, explained=explained)


def choose_by_weights(weights: np.ndarray, count: int, largest: bool) -> np.ndarray:
    """Return `count` features by the magnitude of the classifier's weights (labels, features), sorted by index.

    The labels take turns, each taking its best feature that is still free: equal quotas (120 = 6 x 20), a feature
    that two labels want counted once and replaced by the next in rank. Source: Burduja et al. 2020, section 3.2.
    """
    _check_count(count, weights.shape[1])
    magnitudes = -np.abs(weights) if largest else np.abs(weights)
    ranks = [iter(np.argsort(row, kind="stable")) for row in magnitudes]
    chosen: list[int] = []
    taken: set[int] = set()
    while len(chosen) < count:
        rank = ranks[len(chosen) % len(ranks)]
        feature = next(int(f) for f in rank if int(f) not in taken)
        taken.add(feature)
        chosen.append(feature)
    return np.sort(np.array(chosen))


def choose_by_spread(moments: Moments, count: int) -> np.ndarray:
    """Return the `count` features of largest standard deviation, sorted by index (Burduja et al. 2020, Table 2)."""
    variances = np.diag(moments.covariance())
    _check_count(count, len(variances))
    return np.sort(np.argsort(-variances, kind="stable")[:count])


def _check_count(count: int, features: int) -> None:
    if not 1 <= count <= features:
        raise UserError(f"reduce.count={count}: choose 1 to {features}, the encoder's features")
