"""Parts of a set of scans that are judged apart: by a hemorrhage's size, by its type, and balanced ones.

Source: Chang et al. 2018, Statistical Analysis, and Tables 1 and 2.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipeline.config import LABELS

TYPES = {
    "IPH": ("intraparenchymal",),
    "EDH/SDH": ("epidural", "subdural"),
    "SAH": ("subarachnoid",),
}
"""The three types of Chang et al., in our labels; they have none for intraventricular hemorrhage."""

SIZES = ("punctate", "small", "medium", "large")
BALANCED = "balanced"


class Subset(NamedTuple):
    """Which scans with hemorrhage are set against those without any."""

    is_balanced: bool
    """Whether as many without are drawn as there are with, or the other way round."""
    size: str
    """One of SIZES, or empty for all."""
    type: str
    """One of TYPES, or empty for all."""


def subset_of(text: str) -> Subset:
    """Return the subset that a text such as `balanced large EDH/SDH` names, each word of which may be missing.

    Raises ValueError for other words.
    """
    words = text.split()
    is_balanced, size, type_ = (
        BALANCED in words,
        *(next((word for word in words if word in known), "") for known in (SIZES, TYPES)),
    )
    if words != [word for word in (BALANCED * is_balanced, size, type_) if word]:
        raise ValueError(f"subset {text!r}: expected [{BALANCED}] [{'|'.join(SIZES)}] [{'|'.join(TYPES)}]")
    return Subset(is_balanced, size, type_)


def subset_rows(subset: Subset, labels: np.ndarray, volumes_ml: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """Return the rows of scans that a subset holds, ascending: its scans with hemorrhage, and scans without any.

    labels: (scans, labels), 0 or 1, in label order; volumes_ml: true ones (scans,), of each of TYPES and, under the
    empty name, of all hemorrhage; NaN where they are not known. Of a type's scans, the size is that of the type.
    """
    labels = np.asarray(labels, dtype=bool)
    negative = ~labels[:, -1]
    positive = type_strata(labels)[subset.type] if subset.type else ~negative
    if subset.size:
        positive = positive & size_strata(volumes_ml[subset.type])[subset.size]
    return balanced_rows(positive, negative, seed) if subset.is_balanced else np.flatnonzero(positive | negative)


def size_strata(volumes_ml: np.ndarray) -> dict[str, np.ndarray]:
    """Return which hemorrhages are punctate (< 0.01 mL), small (to 5), medium (to 25) and large (> 25), (scans,) each.

    volumes_ml: (scans,); scans without hemorrhage (0 mL) and of unknown volume (NaN) are in no stratum. 5 mL is medium,
    which the paper leaves open.
    """
    volumes = np.asarray(volumes_ml, dtype=np.float64)
    return {
        "punctate": (volumes > 0) & (volumes < 0.01),
        "small": (volumes >= 0.01) & (volumes < 5),
        "medium": (volumes >= 5) & (volumes <= 25),
        "large": volumes > 25,
    }


def type_strata(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return which scans hold each of TYPES, (scans,) each; a scan may hold several.

    labels: (scans, labels), 0 or 1, in label order.
    """
    labels = np.asarray(labels, dtype=bool)
    return {name: labels[:, [LABELS.index(label) for label in own]].any(axis=1) for name, own in TYPES.items()}


def balanced_rows(positive: np.ndarray, negative: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of a balanced set, ascending: as many positive as negative scans, drawn without replacement.

    positive, negative: (scans,), booleans, such as a stratum and the scans without hemorrhage. The rarer side is taken
    whole, so that either may be empty. Deterministic in `seed`. Raises ValueError where a scan is on both sides.
    """
    sides = [np.flatnonzero(positive), np.flatnonzero(negative)]
    if np.intersect1d(*sides).size:
        raise ValueError(f"row {np.intersect1d(*sides)[0]} is both positive and negative")
    rng = np.random.default_rng(seed)
    fewest = min(map(len, sides))
    return np.sort(np.concatenate([rng.choice(side, fewest, replace=False) for side in sides]))
