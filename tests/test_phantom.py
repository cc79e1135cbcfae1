"""The phantom data set on disk: same seed same bytes, pixels as intended, labels from masks, real data's traps."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from pipeline.config import LABELS, UserError
from pipeline.core.phantom.plan import make_plan
from pipeline.core.phantom.scan import RUN_OVERLAP, build_scan, draw_slices
from pipeline.core.phantom.storage import STORAGES, encode_pixels, intended_hu
from pipeline.phantom import SLICE_DIGITS, Row, identifier, write_data_set
from pipeline.shell.dicom.write import SliceHeader, write_slice
from tests.stages import TINY, run_stage

SCANS, SEED = 8, 5
RSNA_TAGS = {
    "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyID",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows",
    "Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter",
    "WindowWidth", "RescaleIntercept", "RescaleSlope",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _quiet_identifiers():
    """`ID_…` is no valid UID: pydicom would warn of each."""
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    yield
    pydicom.config.settings.reading_validation_mode = before


def tree_digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "raw"
    write_data_set(folder, SCANS, SEED, n_jobs=2)
    return folder


@pytest.fixture(scope="module")
def files(raw) -> dict[Path, pydicom.Dataset]:
    return {path: pydicom.dcmread(path) for path in sorted(raw.glob("stage_2_*/*.dcm"))}


def read_long(path: Path) -> dict[str, list[int | float]]:
    """Return the six values of each slice; fails where a slice's rows are not in the order of the labels."""
    values: dict[str, list[int | float]] = {}
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["ID", "Label"]
    for start in range(1, len(rows), len(LABELS)):
        block = rows[start : start + len(LABELS)]
        slice_id = block[0][0].removesuffix("_epidural")
        assert [row[0] for row in block] == [f"{slice_id}_{label}" for label in LABELS]
        found = [float(row[1]) for row in block]
        assert values.get(slice_id, found) == found, f"{slice_id}: repeated rows differ"
        values[slice_id] = found
    return values


def test_same_seed_same_bytes_whatever_the_processes(raw, tmp_path):
    again = tmp_path / "raw"
    write_data_set(again, SCANS, SEED, n_jobs=1)
    assert tree_digest(again) == tree_digest(raw)


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    next(draw_slices(build_scan(make_plan(SCANS, SEED)[0], SEED)))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def decode(path: Path) -> np.ndarray:
    """Return HU as a reader finds them: slope and intercept, and the known repair of wrapped 12-bit files."""
    data = pydicom.dcmread(path)
    raw = data.pixel_array.astype(np.int64)
    intercept = float(data.RescaleIntercept)
    if data.BitsStored == 12 and data.PixelRepresentation == 0 and intercept > -100:
        raw = raw + 1000
        raw[raw >= 4096] -= 4096
        intercept = -1000.0
    return raw * float(data.RescaleSlope) + intercept


@pytest.mark.parametrize("storage", STORAGES.values(), ids=lambda storage: storage.name)
@pytest.mark.parametrize("implicit_vr", [False, True])
def test_every_storage_gives_back_the_intended_hu(storage, implicit_vr, tmp_path):
    low, high = storage.hu_range
    hu = intended_hu(np.linspace(low - 50, min(high, 32000) + 50, 12 * 20, dtype=np.float32).reshape(12, 20), storage)
    header = SliceHeader(
        "ID_0a1b2c3d4", "ID_0a1b2c3d", "ID_0a1b2c3d4e", "ID_0a1b2c3d4f", (-1.5, 2.0, 3.25), (1, 0, 0, 0, 1, 0),
        0.488281, storage.bits, storage.intercept, ("00040", "00040"), ("00080", "00080"), implicit_vr,
    )  # fmt: skip
    path = tmp_path / "slice.dcm"
    write_slice(path, header, encode_pixels(hu, storage))
    assert np.array_equal(decode(path), hu)
    data = pydicom.dcmread(path)
    assert data.file_meta.TransferSyntaxUID.is_implicit_VR == implicit_vr
    assert data["RescaleIntercept"].value.original_string == storage.intercept
    assert (data.BitsStored, data.HighBit, data.PixelRepresentation) == (storage.bits, storage.bits - 1, storage.signed)


def test_files_hold_the_intended_hu_and_masks(raw):
    for plan in make_plan(SCANS, SEED)[:SCANS:3]:
        for drawn in list(draw_slices(build_scan(plan, SEED)))[10:14]:
            slice_id = identifier(SLICE_DIGITS, SEED, "slice", plan.number, drawn.index)
            path = raw / f"stage_2_{plan.split}" / f"{slice_id}.dcm"
            if path.stat().st_size < drawn.stored.nbytes:
                continue  # the truncated one
            assert np.array_equal(decode(path)[~drawn.outside], drawn.hu[~drawn.outside])
            mask = cv2.imread(str(raw / "masks" / f"{slice_id}.png"), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(mask, drawn.mask)


def test_labels_are_the_masks(raw):
    train, test = read_long(raw / "stage_2_train.csv"), read_long(raw / "truth.csv")
    submission = read_long(raw / "stage_2_sample_submission.csv")
    assert set(train) == {path.stem for path in (raw / "stage_2_train").iterdir()}
    assert set(test) == set(submission) == {path.stem for path in (raw / "stage_2_test").iterdir()}
    assert {value for values in submission.values() for value in values} == {0.5}
    for slice_id, labels in (train | test).items():
        mask = cv2.imread(str(raw / "masks" / f"{slice_id}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8
        assert labels == [float(np.any(mask & (1 << bit))) for bit in range(5)] + [float(mask.any())]
    for part in (train, test):
        assert np.max(list(part.values()), axis=0).tolist() == [1.0] * 6, "every kind of blood in train and in test"


def series(files) -> dict[str, list[pydicom.Dataset]]:
    found: dict[str, list[pydicom.Dataset]] = {}
    for data in files.values():
        found.setdefault(data.SeriesInstanceUID, []).append(data)
    return found


def heights(slices: list[pydicom.Dataset]) -> np.ndarray:
    orientation = np.array(slices[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    return np.sort([np.array(data.ImagePositionPatient, dtype=float) @ normal for data in slices])


def test_files_have_rsnas_tags_and_no_others(files):
    for path, data in files.items():
        tags = {element.keyword for element in data}
        assert tags - {"PixelData"} == RSNA_TAGS
        assert data.SOPInstanceUID == path.stem
        assert all(value.startswith("ID_") for value in (data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID))


def test_small_set_holds_every_kind_of_file(files):
    kinds = {(d.BitsStored, d.PixelRepresentation, d["RescaleIntercept"].value.original_string) for d in files.values()}
    assert kinds == {(storage.bits, int(storage.signed), storage.intercept) for storage in STORAGES.values()}
    assert {data.file_meta.TransferSyntaxUID.is_implicit_VR for data in files.values()} == {False, True}
    assert {data["WindowCenter"].VM for data in files.values()} == {1, 2}
    assert {data.Rows for data in files.values()} == {404, 512}


def test_truncated_files_claim_all_their_pixels(files):
    short = [path for path, data in files.items() if len(data.PixelData) < data.Rows * data.Columns * 2]
    assert sorted(path.parent.name for path in short) == ["stage_2_test", "stage_2_train"]
    for path in short:
        size = 2 * files[path].Rows * files[path].Columns
        assert size.to_bytes(4, "little") in path.read_bytes()[:4096]
        with pytest.raises((ValueError, AttributeError)):
            _ = files[path].pixel_array


def test_names_say_nothing_of_positions(files):
    for slices in series(files).values():
        by_name = sorted(slices, key=lambda data: data.SOPInstanceUID)
        z = [float(data.ImagePositionPatient[2]) for data in by_name]
        assert z not in (sorted(z), sorted(z, reverse=True))
        assert abs(np.corrcoef(z, np.arange(len(z)))[0, 1]) < 0.75


def test_padding_outside_the_field_of_view(files):
    corners = Counter()
    for data in files.values():
        if data.PixelRepresentation == 1 and len(data.PixelData) == 2 * data.Rows * data.Columns:
            corners[int(data.pixel_array[0, 0])] += 1
    assert set(corners) == {-2000, -1024}


def test_two_acquisitions_and_the_missing_slice(files):
    overlapping, gaps = 0, 0
    for slices in series(files).values():
        steps = np.diff(heights(slices))
        between = int((steps < 3.5).sum())  # no single acquisition is finer than 4 mm
        overlapping += between >= 2 * (RUN_OVERLAP - 1)
        gaps += int((steps > 1.8 * np.median(steps)).sum()) == 1
    assert overlapping == 1
    assert gaps == 1


def test_patients_return_and_rows_repeat(files):
    studies: dict[str, set[str]] = {}
    for data in files.values():
        studies.setdefault(data.PatientID, set()).add(data.StudyInstanceUID)
    assert max(len(found) for found in studies.values()) == 2
    raw = next(iter(files)).parent.parent
    with (raw / "stage_2_train.csv").open(encoding="utf-8") as file:
        counts = Counter(row["ID"] for row in csv.DictReader(file))
    repeated = [name for name, count in counts.items() if count == 2]
    assert len(repeated) == 4 * len(LABELS)
    assert set(counts.values()) == {1, 2}


def test_foreign_data_are_never_deleted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "data" / "phantom" / "raw"
    raw.mkdir(parents=True)
    (raw / "mine.dcm").write_bytes(b"kept")
    with pytest.raises(UserError, match="holds data that the phantom did not make"):
        run_stage("phantom", *TINY)
    assert (raw / "mine.dcm").read_bytes() == b"kept"
    link = tmp_path / "link"
    link.symlink_to(raw)
    with pytest.raises(UserError, match="holds data that the phantom did not make"):
        write_data_set(link, 8, 0, n_jobs=1)


def test_too_few_scans(tmp_path):
    with pytest.raises(UserError, match="PHANTOM_SCANS=7: at least 8"):
        write_data_set(tmp_path / "raw", 7, 0, n_jobs=1)
    assert not (tmp_path / "raw").exists()


def test_a_killed_run_leaves_the_old_set_and_its_rest_is_cleaned(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "phantom.json").write_text("{}")
    for leftover in ("raw.partial", "raw.old"):
        (tmp_path / leftover / "masks").mkdir(parents=True)
        (tmp_path / leftover / "masks" / "ID_stale.png").write_bytes(b"stale")

    def killed(folder, plan, seed):
        assert not list(folder.rglob("ID_stale.png"))
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.phantom._write_scan", killed)
    with pytest.raises(KeyboardInterrupt):
        write_data_set(raw, SCANS, SEED, n_jobs=1)
    assert (raw / "phantom.json").read_text() == "{}", "the old set stays until the new one is whole"
    rows = [Row("ID_1", "train", (0, 0, 0, 0, 1, 1), False), Row("ID_2", "test", (0,) * 6, False)]
    monkeypatch.setattr("pipeline.phantom._write_scan", lambda folder, plan, seed: rows)
    write_data_set(raw, SCANS, SEED, n_jobs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
    assert '"scans": 8' in (raw / "phantom.json").read_text()
