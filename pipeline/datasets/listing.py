"""What every reader gives: the slices asked of an archive's files, their labels, and the files left out by name."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Listing:
    """The files of an archive, before any of them is opened, and what they are to give.

    `files`: a row a slice that the CSVs name, in order of path: path (relative to the project's root, posix), stem,
    slice_id, split, mask (path or None) and the six labels (Int8, null where unknown). A file with one frame gives the
    slice `stem`; one with more gives `stem.1`, `stem.2`, ...: which of them it is, only its header tells, so that a
    path may have rows of both kinds. `left_out`: path, slice_id, split, reason (of schema.REASONS), detail.
    """

    files: pd.DataFrame
    left_out: pd.DataFrame
