"""Stages `index` and `window` on small raw folders: what is in the tables and images, what is left out and kept."""

import logging
import os
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from pipeline import index, window
from pipeline.config import BASE, Run, UserError, variant
from pipeline.core.windows import window_image
from pipeline.job import Job, PhantomSettings
from pipeline.paths import Paths, record_of
from pipeline.schema import IMAGES, REJECTED, SLICES
from pipeline.shell.provenance import read_json
from pipeline.shell.tables import read_table, to_arrow
from tests.dicom_files import COLUMNS, ROWS, slice_bytes, truncated, write_labels, write_raw, write_sample

REAL = Path(os.environ.get("REALCT", Path(__file__).resolve().parents[2] / "shared" / "realct")) / "ge-head"
SIZE = 31
NO_PROCESS = 1 << 23
"""More than any process's number can be on Linux (PID_MAX_LIMIT is 1 << 22)."""
RNG = np.random.default_rng(0)


def make_job(**changes) -> Job:
    run = Run("test", variant(BASE, **{"view.size": SIZE, **changes.pop("settings", {})}))
    facts = {"fold": None, "folds": (0,), "n_jobs": 1, "threads": 1, "max_rejected": 0.3, "force": False} | changes
    return Job(run=run, paths=Paths("small", run, "rsna"), phantom=PhantomSettings(), **facts)


def head(seed: int) -> np.ndarray:
    """Return stored values (rows, columns) about brain, with intercept -1024."""
    return (1024 + np.random.default_rng(seed).integers(-40, 160, (ROWS, COLUMNS))).astype(np.int16)


def in_scan(number: int, z_mm: float, **changes) -> bytes:
    ids = {"PatientID": f"p{number}", "StudyInstanceUID": f"s{number}", "SeriesInstanceUID": f"scan{number}"}
    return slice_bytes(head(int(10 * z_mm)), z_mm=z_mm, **ids | changes)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with one training scan of 8 slices, named against their order, and a test scan of 6."""
    monkeypatch.chdir(tmp_path)
    train = {f"ID_{9 - i}": in_scan(1, 5.0 * i) for i in range(8)}
    test = {f"T_{i}": in_scan(2, 5.0 * i) for i in range(6)}
    write_raw(tmp_path / "data/small/raw", train, test, positive=("ID_5", "ID_4"))
    return tmp_path


def raw_file(project: Path, name: str) -> Path:
    return project / "data/small/raw" / name


def run_both(**changes) -> Job:
    job = make_job(**changes)
    index.main(job)
    window.main(job)
    return job


def tables(job: Job):
    found = []
    for path, contract in (
        (job.paths.slices, SLICES),
        (job.paths.rejected, REJECTED),
        (job.paths.images, IMAGES),
        (job.paths.images_rejected, REJECTED),
    ):
        if path.exists():
            found.append(read_table(path))
            contract.check(to_arrow(contract, found[-1]))
    return found


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_slices_are_in_anatomical_order_with_their_labels(project):
    index.main(make_job())
    slices, rejected = tables(make_job())
    assert len(rejected) == 0
    assert slices["slice_id"].tolist() == [*(f"ID_{9 - i}" for i in range(8)), *(f"T_{i}" for i in range(6))]
    assert slices["position"].tolist() == [*range(8), *range(6)]
    assert slices["z_mm"].tolist() == [*np.arange(8) * 5.0, *np.arange(6) * 5.0]
    assert (slices["spacing_mm"] == 5).all()
    assert slices["thickness_mm"].isna().all()
    assert slices["path"][0] == "data/small/raw/stage_2_train/ID_9.dcm"
    train = slices[slices["split"] == "train"].set_index("slice_id")
    assert train.index[train["subdural"] == 1].tolist() == ["ID_5", "ID_4"]
    assert (train["any"] == train["subdural"]).all()
    assert slices.loc[slices["split"] == "test", "any"].isna().all()
    first = slices.iloc[0]
    assert (first["patient_id"], first["study_id"], first["scan_id"]) == ("p1", "s1", "scan1")
    assert (first["rows"], first["columns"], first["row_mm"], first["column_mm"]) == (ROWS, COLUMNS, 0.45, 0.5)
    assert first["bytes"] == raw_file(project, "stage_2_train/ID_9.dcm").stat().st_size
    counts = read_json(record_of(make_job().paths.slices))["counts"]
    assert (counts["train slices"], counts["scans"], counts["patients"], counts["positive slices"]) == (8, 2, 2, 2)


def test_two_acquisitions_in_one_series_become_two_scans(project):
    first = {f"a{i}": in_scan(1, 5.0 * i) for i in range(9)}
    second = {f"b{i}": in_scan(1, 22.15 + 5 * i) for i in range(9)}
    taken = {"c": in_scan(3, 0.0, SeriesInstanceUID="scan1.2")}  # a series of its own that bears the suffixed name
    shutil.rmtree(project / "data/small/raw")
    write_raw(project / "data/small/raw", first | second | taken, {})
    index.main(make_job())
    slices, _ = tables(make_job())
    by_scan = slices.groupby("scan_id")["slice_id"].agg(list).to_dict()
    assert by_scan == {"scan1": sorted(first), "scan1.2": ["c"], "scan1.3": sorted(second)}


def test_what_is_left_out_has_its_reason_and_place(project):
    damaged = raw_file(project, "stage_2_test/T_3.dcm")
    damaged.write_bytes(truncated(damaged.read_bytes()))
    raw_file(project, "stage_2_train/ID_2.dcm").write_bytes(b"")
    raw_file(project, "stage_2_train/ID_unlabelled.dcm").write_bytes(in_scan(1, 100.0))
    index.main(make_job())
    slices, rejected = tables(make_job())
    rejected = rejected.set_index("slice_id")
    assert rejected["reason"].to_dict() == {
        "T_3": "truncated pixel data",
        "ID_2": "unreadable",
        "ID_unlabelled": "no label",
    }
    assert rejected.loc["T_3", ["scan_id", "patient_id", "split"]].tolist() == ["scan2", "p2", "test"]
    assert rejected.loc["T_3", "z_mm"] == 15.0
    assert rejected.loc["ID_2", ["scan_id", "patient_id", "z_mm"]].isna().all()
    assert len(slices) == 12
    assert slices.loc[slices["split"] == "test", "position"].tolist() == [*range(5)]


def test_a_data_set_without_one_readable_file_is_refused_in_words(project):
    for path in (project / "data/small/raw").glob("stage_2_*/*.dcm"):
        path.write_bytes(b"not DICOM")
    with pytest.raises(UserError, match=r"14 of 14 files are rejected, more than MAX_REJECTED=0.05: 14 unreadable"):
        index.main(make_job(max_rejected=0.05))
    with pytest.raises(UserError, match=r"no training slice can be used; the first: .*unreadable"):
        index.main(make_job(max_rejected=1.0))


def test_too_many_rejected_files_stop_before_anything_is_written(project):
    index.main(make_job())
    before = all_files(project / "data")
    for i in range(5):
        raw_file(project, f"stage_2_test/T_{i}.dcm").write_bytes(b"broken")
    message = (
        r"5 of 14 files are rejected, more than MAX_REJECTED=0.3: 5 unreadable; the first: .*T_0.dcm \(unreadable: "
    )
    with pytest.raises(UserError, match=message):
        index.main(make_job())
    written = {name: data for name, data in all_files(project / "data").items() if not name.endswith(".dcm")}
    assert written == {name: data for name, data in before.items() if not name.endswith(".dcm")}
    index.main(make_job(max_rejected=0.5))


def test_no_usable_training_slice_is_an_error(project):
    for path in raw_file(project, "stage_2_train").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="no training slice can be used"):
        index.main(make_job(max_rejected=1.0))


def test_wrong_csvs_stop_before_any_header_is_read(project, monkeypatch):
    write_sample(raw_file(project, "stage_2_sample_submission.csv"), ["T_0", "T_9"])
    monkeypatch.setattr(index, "parallel_map", None)
    with pytest.raises(UserError, match=r"no file in stage_2_test/: T_9"):
        index.main(make_job())


def test_the_same_bytes_whatever_the_processes_and_the_order_of_files(project):
    many = {f"ID_x{i:03d}": in_scan(10 + i // 20, 3.0 * (i % 20)) for i in range(140)}
    raw = project / "data/small/raw"
    shutil.rmtree(raw)
    write_raw(raw, many, {})
    run_both()
    first = {name: data for name, data in all_files(project / "data/small").items() if not name.endswith(".json")}
    shutil.rmtree(project / "data/small/png")
    files = sorted((raw / "stage_2_train").iterdir())
    for path in RNG.permutation(files):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    run_both(n_jobs=2)
    second = {name: data for name, data in all_files(project / "data/small").items() if not name.endswith(".json")}
    assert first == second


def test_images_are_the_windows_in_rgb(project):
    job = run_both()
    slices, _, images, rejected = tables(job)
    assert len(rejected) == 0
    assert images["slice_id"].tolist() == slices["slice_id"].tolist()
    assert images["path"][0] == f"data/small/png/{job.paths.view}/scan1/ID_9.png"
    for image, row in zip(images.itertuples(), slices.itertuples(), strict=True):
        source = (project / row.path).read_bytes()
        assert image.source_bytes == len(source)
        assert image.digest == f"{job.paths.view[-8:]}-{zlib.crc32(source):08x}"
        expected = window_image(head(int(10 * row.z_mm)) - np.int16(1024), job.run.settings.view.windows, SIZE)
        written = cv2.imread(image.path, cv2.IMREAD_UNCHANGED)[:, :, ::-1]  # cv2 reads blue first
        assert written.dtype == np.uint8
        assert np.array_equal(written, expected)
    assert read_json(record_of(job.paths.images))["counts"] == {"images": 14, "new": 14, "rejected": 0}


def test_one_window_gives_a_grey_png(project):
    job = run_both(settings={"view.windows": ((40.0, 80.0),)})
    assert cv2.imread(tables(job)[2]["path"][0], cv2.IMREAD_UNCHANGED).shape == (SIZE, SIZE)


def test_two_windows_are_an_error(project):
    index.main(make_job())
    with pytest.raises(UserError, match=r"view.windows: 2 windows"):
        window.main(make_job(settings={"view.windows": ((40.0, 80.0), (80.0, 200.0))}))


def test_window_without_index_says_what_to_do(project):
    with pytest.raises(UserError, match=r"slices.parquet is missing: make it with `make index`"):
        window.main(make_job())


def new_images(job: Job) -> int:
    window.main(job)
    return read_json(record_of(job.paths.images))["counts"]["new"]


def test_what_is_done_stays_done(project):
    job = run_both()
    before = all_files(job.paths.png)
    table = job.paths.images.read_bytes()
    assert new_images(job) == 0
    assert job.paths.images.read_bytes() == table

    # Killed before the table was written: the digests are found again.
    job.paths.images.unlink()
    next(job.paths.png.rglob("*.png")).unlink()
    (job.paths.png / "scan1" / f".ID_9.png.{NO_PROCESS}.partial").write_bytes(b"half")
    assert new_images(job) == 1
    assert all_files(job.paths.png) == before
    assert job.paths.images.read_bytes() == table

    assert new_images(make_job(force=True)) == 14
    assert job.paths.images.read_bytes() == table


def test_tables_read_in_batches_give_the_same_as_read_at_once(project, monkeypatch):
    """Batches of three rows: scans begin and end within them, and each of them is smaller than a scan."""
    raw_file(project, "stage_2_test/T_2.dcm").write_bytes(undecodable(2, 10.0))
    many = {f"ID_x{i:02d}": in_scan(10 + i // 5, 3.0 * (i % 5)) for i in range(30)}
    for stem, data in many.items():
        raw_file(project, f"stage_2_train/{stem}.dcm").write_bytes(data)
    write_labels(raw_file(project, "stage_2_train.csv"), dict.fromkeys([*many, *(f"ID_{9 - i}" for i in range(8))]))
    job = run_both(n_jobs=2)
    images, rejected = tables(job)[2:]
    assert (len(images), len(rejected)) == (43, 1)
    files = all_files(job.paths.png)
    # Images of a scan that is gone, between others and behind them, and of a slice that is gone.
    for orphan in ("scan14x/ID_a.png", "scan99/ID_b.png", "scan12/ID_c.png"):
        (job.paths.png / orphan).parent.mkdir(exist_ok=True)
        (job.paths.png / orphan).write_bytes(b"an image")

    monkeypatch.setattr("pipeline.shell.tables.BATCH_ROWS", 3)
    monkeypatch.setattr(
        "pipeline.shell.slice_images._crc_of", None
    )  # what was known of the images is found again in the last table
    assert new_images(job) == 0
    pd.testing.assert_frame_equal(tables(job)[2], images)
    pd.testing.assert_frame_equal(tables(job)[3], rejected)
    assert all_files(job.paths.png) == files


def test_a_changed_source_is_redone(project):
    job = run_both()
    source = raw_file(project, "stage_2_test/T_2.dcm")
    source.write_bytes(in_scan(2, 10.0, RescaleIntercept=-1000))
    late = job.paths.images.stat().st_mtime_ns + 10**9
    os.utime(source, ns=(late, late))
    before = tables(job)[2]
    index.main(job)
    assert new_images(job) == 1
    after = tables(job)[2]
    assert before.loc[before["digest"] != after["digest"], "slice_id"].tolist() == ["T_2"]


def test_images_of_slices_that_are_gone_are_removed(project):
    job = run_both()
    for path in raw_file(project, "stage_2_test").iterdir():
        path.unlink()
    raw_file(project, "stage_2_sample_submission.csv").unlink()
    raw_file(project, "stage_2_train/ID_9.dcm").unlink()
    index.main(job)
    assert new_images(job) == 0
    assert sorted(all_files(job.paths.png)) == [f"scan1/ID_{i}.png" for i in range(2, 9)]
    assert not (job.paths.png / "scan2").exists()


def undecodable(number: int, z_mm: float) -> bytes:
    broken = encapsulate([b"\x02" + bytes(70)])
    return in_scan(number, z_mm, syntax=RLELossless, PixelData=broken)


def test_what_only_decoding_reveals_is_rejected(project):
    raw_file(project, "stage_2_test/T_2.dcm").write_bytes(undecodable(2, 10.0))
    job = run_both()
    slices, rejected, images, by_window = tables(job)
    assert len(slices) == 14
    assert len(rejected) == 0
    assert "T_2" not in set(images["slice_id"])
    row = by_window.iloc[0]
    assert len(by_window) == 1
    assert row[["slice_id", "scan_id", "patient_id", "split"]].tolist() == ["T_2", "scan2", "p2", "test"]
    assert row["z_mm"] == 10.0
    assert row["reason"] == "undecodable pixel data"
    assert row["detail"]


def test_index_and_window_together_may_not_reject_too_many(project):
    for i in range(3):
        raw_file(project, f"stage_2_test/T_{i}.dcm").write_bytes(undecodable(2, 5.0 * i))
    for i in (3, 4):
        raw_file(project, f"stage_2_test/T_{i}.dcm").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"5 of 14 files are rejected, 3 of them by `window`, more than MAX_REJECTED=0.3"
    ):
        run_both()
    assert not make_job().paths.images.exists()


def test_files_that_change_after_index_are_not_taken_for_what_they_were(project):
    job = make_job()
    index.main(job)
    raw_file(project, "stage_2_test/T_2.dcm").unlink()
    damaged = raw_file(project, "stage_2_test/T_3.dcm")
    damaged.write_bytes(truncated(damaged.read_bytes()))
    window.main(job)
    rejected = tables(job)[3].set_index("slice_id")
    assert rejected["reason"].tolist() == ["unreadable"] * 2
    assert rejected["detail"]["T_2"] == "FileNotFoundError: No such file or directory"
    assert "when indexed" in rejected["detail"]["T_3"]


def test_the_log_says_what_there_is(project, caplog):
    raw_file(project, "stage_2_test/T_3.dcm").write_bytes(b"")
    with caplog.at_level(logging.INFO):
        run_both()
    assert (
        "8 train slices, 5 test slices, 2 scans, 2 patients, 2 positive slices, 1 rejected, 1 rejected: unreadable"
        in caplog.text
    )
    assert "13 images, 13 new, 0 rejected" in caplog.text


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real slices in {REAL}; set REALCT to the folder of ge-head")
def test_28_real_slices_as_a_test_part(project):
    raw = project / "data/small/raw"
    shutil.rmtree(raw / "stage_2_test")
    (raw / "stage_2_test").symlink_to(REAL)
    names = [f"{i:02d}" for i in range(1, 29)]
    write_sample(raw / "stage_2_sample_submission.csv", names)
    write_labels(raw / "stage_2_train.csv", {f"ID_{i}": None for i in range(2, 10)})
    job = run_both()
    slices, rejected, images, _ = tables(job)
    real = slices[slices["split"] == "test"]
    assert len(rejected) == 0
    assert real["scan_id"].nunique() == 1
    assert real["slice_id"].tolist() == names  # the files are numbered from the neck upwards
    np.testing.assert_allclose(real["tilt_deg"], 18.5, atol=0.01)  # GantryDetectorTilt
    gaps = np.diff(real["z_mm"])
    np.testing.assert_allclose(gaps, [*[4.0] * 13, 1.08, *[7.0] * 13], atol=0.01)
    assert real["thickness_mm"].tolist() == [4.0] * 14 + [7.0] * 14
    assert len(images) == 36
    brain = cv2.imread(images.set_index("slice_id").loc["24", "path"])[:, :, ::-1]
    middle = brain[SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2 - 3 : SIZE // 2 + 3, 0]
    assert 60 < middle.mean() < 180  # brain: 20 to 55 HU, 64 to 175 grey levels
    assert (brain[:2, :2] == 0).all()  # air
