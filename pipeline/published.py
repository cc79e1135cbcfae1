"""What a paper's tables say, as data: rows that are variants of its recipe, readers, models. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table: what the paper calls it, the variant that it is, and the paper's figure."""

    text: str
    variant: str
    """Empty for the recipe itself."""
    figure: float


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper whose rows are variants of its recipe."""

    title: str
    figure: str
    """What the figure is, and of which data."""
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class PublishedReader:
    """A reader or a model of a paper's reader study: what the paper calls it, and its figures."""

    text: str
    stage: str
    """Ours that it stands beside; empty for a human reader."""
    figures: Mapping[str, tuple[float | None, ...]]
    """By figure, a value a label in label order; None where the paper has none."""


@dataclass(frozen=True)
class PublishedReaders:
    """A paper's table of readers and models on the same scans."""

    title: str
    scans: str
    """Which scans they read."""
    figures: tuple[str, ...]
    """The table's figures, in its order; `readers` prints it beside its own table of the same ones."""
    rows: tuple[PublishedReader, ...]
    decimals: int
    """That the paper gives."""
    note: str = ""
    """What is to be known before its figures are compared with ours; a sentence."""


@dataclass(frozen=True)
class Headline:
    """A figure that a system is known by."""

    text: str
    """What the figure is."""
    figure: str
    """As published, with its unit."""
    of: str
    """Of which data, on which machine."""


RSNA_2019_TEST = "private test part of RSNA 2019"
RSNA_2019 = (
    ("1st place: DenseNet and SE-ResNeXt ensembles with a sequence model", "0.04383"),
    ("best single model with a sequence stage, one run", "0.04607"),
    ("Nguyen et al. 2020, one CNN-LSTM end to end", "0.0522"),
)
"""Weighted log losses of other people's systems: what it is, and its figure."""


@dataclass(frozen=True)
class FigureRow:
    """A row of a paper's table of figures: what the paper calls it, its figures, and ours that stand beside it."""

    text: str
    figures: Mapping[str, float]
    """By figure: `accuracy`, `sensitivity`, `specificity`, `ppv`, `npv`, `f1`, `roc_auc`, the limits `roc_auc_low` and
    `roc_auc_high` of its interval, `p_value`, `pr_auc`, `log_loss`, `dice`, `volume_r`, `volume_bias_percent`; shares,
    not percent, but for the last one."""
    variant: str = ""
    """Empty for the recipe itself."""
    stage: str = ""
    """The predictor of ours; empty for the run's last one."""
    subset: str = ""
    """Which cases or label: `any`, `epidural`, ..., `IPH`, `balanced large EDH/SDH`; empty: all that were judged."""
    against: str = ""
    """The predictor whose ROC AUC `p_value` compares with."""
    sensitivity: float = 0.0
    """The sensitivity that the threshold is chosen for; 0: it is 0.5."""


@dataclass(frozen=True)
class FigureTable:
    """A table of a paper that gives several figures a row."""

    title: str
    of: str
    """Of which data the paper's figures are."""
    unit: str
    """What is counted: `slice`, `scan` or `lesion`."""
    figures: tuple[str, ...]
    """The table's columns, in its order."""
    rows: tuple[FigureRow, ...]
    decimals: int
    note: str = ""
    """What is to be known before these figures are compared with ours; a sentence."""
