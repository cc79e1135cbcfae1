"""A reader study's figures as tables to be read in a terminal."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.config import LABELS
from pipeline.core.intervals import Interval
from pipeline.core.reader_study import ReaderRow
from pipeline.core.text_table import limits, number, text_table
from pipeline.published import PublishedReader, PublishedReaders

HEADS = {"roc_auc": "ROC AUC", "f1": "F1"}
"""What a figure is called in a table's head, where its name is not plain."""

WITHOUT_INTERVAL = ("f1",)

DECIMALS = 3

UNDEFINED = Interval(math.nan, math.nan, math.nan)


def figures_text(rows: Sequence[ReaderRow], figures: Sequence[str], published: PublishedReaders | None) -> str:
    """Return a table as text: each figure with its interval, and the paper's beside it where it has that table.

    A published row stands beside the model that it is of; those of other readers and models follow ours of each label.
    """
    head = ["label", "by", "name"]
    for figure in figures:
        head.append(HEADS.get(figure, figure))
        head += [] if figure in WITHOUT_INTERVAL else ["interval"]
        head += ["paper"] if published else []
    cells = []
    for label in dict.fromkeys(row.label for row in rows):
        theirs = {row.stage or row.text: row for row in published.rows} if published else {}
        for row in rows:
            if row.label == label:
                beside = theirs.pop(row.name, None) if row.kind == "model" else None
                own = _cells(label, figures, row.figures, beside, published)
                cells.append([label, row.kind, row.name, *own])
        for row in theirs.values():
            cells.append([label, "paper", row.text, *_cells(label, figures, {}, row, published)])
    return text_table(head, cells, left=3)


def _cells(
    label: str,
    figures: Sequence[str],
    own: Mapping[str, Interval],
    theirs: PublishedReader | None,
    published: PublishedReaders | None,
) -> list[str]:
    """Return the cells of one row's figures, empty where there is none."""
    cells = []
    for figure in figures:
        ours = own.get(figure, UNDEFINED)
        cells.append(number(_defined(ours.estimate), DECIMALS))
        if figure not in WITHOUT_INTERVAL:
            cells.append(limits(_defined(ours.low), _defined(ours.high), DECIMALS))
        if published:
            figure_of = theirs.figures[figure][LABELS.index(label)] if theirs else None
            cells.append(number(figure_of, published.decimals))
    return cells


def kappa_text(kappas: Mapping[tuple[str, str], np.ndarray]) -> str:
    """Return the readers' agreement as text: a row a pair of readers, a column a label."""
    cells = [
        [first, second, *(number(_defined(value), DECIMALS) for value in values)]
        for (first, second), values in kappas.items()
    ]
    return text_table(["reader", "and reader", *LABELS], cells, left=2)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
