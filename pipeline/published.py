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
