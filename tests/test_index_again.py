"""Stage `index` a second time: what was made of SLICES stays fresh where nothing in it changed."""

import os
from pathlib import Path

import pytest

from pipeline.paths import Paths, record_of
from pipeline.shell.provenance import read_json
from tests.dicom_files import slice_bytes, write_labels, write_raw
from tests.stages import run_stage

ARGUMENTS = ("--dataset", "small", "--recipe", "tiny", "--n-jobs", "1")


@pytest.fixture
def paths(tmp_path, monkeypatch) -> Paths:
    """An indexed data set of five slices, whose tables bear an old time."""
    monkeypatch.chdir(tmp_path)
    train = {f"ID_{i}": slice_bytes(z_mm=5.0 * i) for i in range(4)}
    write_raw(Path("data/small/raw"), train, {"T": slice_bytes(SeriesInstanceUID="T")}, positive=("ID_2",))
    paths = run_stage("index", *ARGUMENTS).paths
    for path in tables(paths):
        os.utime(path, (1000, 1000))
    return paths


def tables(paths: Paths) -> tuple[Path, Path]:
    return paths.slices, paths.rejected


def times(paths: Paths) -> list[int]:
    return [path.stat().st_mtime_ns for path in tables(paths)]


def test_slices_are_never_older_than_the_record_that_first_says_of_them(paths):
    paths.slices.unlink()
    run_stage("index", *ARGUMENTS)
    assert paths.slices.stat().st_mtime_ns >= record_of(paths.slices).stat().st_mtime_ns


def test_the_same_labels_leave_the_tables_as_they_are(paths):
    os.utime(paths.labels)
    before = times(paths)
    first = read_json(record_of(paths.slices))
    run_stage("index", *ARGUMENTS)
    assert times(paths) == before
    again = read_json(record_of(paths.slices))
    assert again.pop("seconds") > 0
    assert {**again, "seconds": 0, "finished": ""} == {**first, "seconds": 0, "finished": ""}


def test_other_labels_and_other_files_write_them_anew(paths):
    before = times(paths)
    write_labels(paths.labels, {f"ID_{i}": "subdural" if i in (1, 2) else None for i in range(4)})
    run_stage("index", *ARGUMENTS)
    assert all(now > then for now, then in zip(times(paths), before, strict=True))
    before = times(paths)
    # The labels are what they were, but a file has gone bad: SLICES and REJECTED are written together.
    (paths.raw / "stage_2_train/ID_0.dcm").write_bytes(b"")
    run_stage("index", *ARGUMENTS, "--max-rejected", "0.5")
    assert all(now > then for now, then in zip(times(paths), before, strict=True))


def test_rows_in_another_order_are_another_input(paths):
    before = times(paths)
    lines = paths.labels.read_text().splitlines()
    paths.labels.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    run_stage("index", *ARGUMENTS)
    # The rows are the same; the digest of what they were made of is not, and the table says it.
    assert all(now > then for now, then in zip(times(paths), before, strict=True))
