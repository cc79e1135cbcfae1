"""What a system that draws has drawn, from its folds' files."""

from collections.abc import Sequence

import pandas as pd

from pipeline.core.row_figures import Drawn
from pipeline.paths import Paths, require
from pipeline.shell.tables import read_table


def read_drawn(paths: Paths, folds: Sequence[int]) -> Drawn:
    """Return what a run has drawn of the train part, each scan by the fold that did not train on it.

    Raises UserError where a fold's files are missing.
    """
    overlaps, measurements = (
        pd.concat([read_table(require(path(fold), "predict")) for fold in folds], ignore_index=True)
        for path in (paths.overlaps, paths.measurements)
    )
    return Drawn(*(table[table["split"] == "train"] for table in (overlaps, measurements)))
