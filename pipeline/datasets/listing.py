"""What every reader gives: the files of an archive, their labels, and the files that are left out by name alone."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Listing:
    """The files of an archive, before any of them is opened.

    `files`: path (relative to the project's root, posix), slice_id, split, mask (path or None) and the six labels
    (Int8, null where unknown), in order of path. `left_out`: path, slice_id, split, reason (of schema.REASONS), detail.
    """

    files: pd.DataFrame
    left_out: pd.DataFrame
