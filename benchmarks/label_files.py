"""The CSVs of a data set in RSNA's layout, for slices that a benchmark has made up."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.csv

from benchmarks.full_size_data import REPEATED_SLICES, long_form
from pipeline.config import LABELS
from pipeline.paths import Paths


def write_label_files(folder: Path, paths: Paths, slices: pd.DataFrame) -> None:
    """Write the label CSV, the sample submission, and the truth of the test part, below a folder.

    slices: as `full_size_data.make_slices` returns them.
    """
    labels, is_test = slices[list(LABELS)].to_numpy(), (slices["split"] == "test").to_numpy()
    slice_ids = slices["slice_id"].to_numpy()
    half = np.full((is_test.sum(), len(LABELS)), 0.5)
    for path, table in (
        (paths.labels, long_form(slice_ids[~is_test], labels[~is_test], REPEATED_SLICES)),
        (paths.sample_submission, long_form(slice_ids[is_test], half)),
        (paths.truth, long_form(slice_ids[is_test], labels[is_test])),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.csv.write_csv(
            table, folder / path, pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")
        )
