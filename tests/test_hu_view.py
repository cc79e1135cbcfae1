"""Stage `window` of kind `hu`: images in Hounsfield units, masks in the same geometry, nothing done twice or missed."""

import os
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline import index, window
from pipeline.config import BASE, UserError, View
from pipeline.core.resampling import resample_hu, resample_mask
from pipeline.job import Job
from pipeline.learn.hu_images import read_hu, read_mask
from pipeline.paths import record_of
from pipeline.schema import IMAGES, REJECTED
from pipeline.shell.provenance import read_json
from pipeline.shell.tables import read_table, to_arrow
from pipeline.verify import image_findings
from tests.dicom_files import COLUMNS, ROWS, enhanced_bytes, frame_group, slice_bytes, write_labels, write_raw
from tests.stages import TINY, run_stage
from tests.test_index_window import head, in_scan, make_job

SIZE = 23
HU = {"view.kind": "hu", "view.size": SIZE, "view.pixel_mm": 0.8, "view.masks": True}
MASKED = ("ID_1", "ID_2", "ID_5", "T_0")
LATE_NS = 10**9
RNG = np.random.default_rng(0)


def mask_of(slice_id: str) -> np.ndarray:
    """Return a source mask (rows, columns) with two kinds of blood, another one for each slice."""
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    start = 5 + 3 * MASKED.index(slice_id)
    mask[start : start + 20, 8:20] = 2
    mask[start + 9 : start + 30, 15:30] |= 16
    return mask


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a training scan of six slices and a test scan of two; four slices have masks."""
    monkeypatch.chdir(tmp_path)
    train = {f"ID_{i}": in_scan(1, 5.0 * i) for i in range(6)}
    write_raw(tmp_path / "data/small/raw", train, {f"T_{i}": in_scan(2, 5.0 * i) for i in range(2)})
    for slice_id in MASKED:
        write_mask(source_mask(slice_id), mask_of(slice_id))
    return tmp_path


def source_mask(slice_id: str) -> Path:
    return Path(f"data/small/raw/masks/{slice_id}.png")


def run_both(**changes) -> Job:
    job = make_job(settings=HU | changes.pop("settings", {}), **changes)
    index.main(job)
    window.main(job)
    return job


def new_images(job: Job) -> int:
    window.main(job)
    return read_json(record_of(job.paths.images))["counts"]["new"]


def images_of(job: Job) -> pd.DataFrame:
    table = read_table(job.paths.images)
    IMAGES.check(to_arrow(IMAGES, table))
    return table.set_index("slice_id", drop=False)


def rejected_of(job: Job) -> pd.DataFrame:
    table = read_table(job.paths.images_rejected)
    REJECTED.check(to_arrow(REJECTED, table))
    return table.set_index("slice_id")


def png_files(job: Job) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(job.paths.png.rglob("*")) if path.is_file()}


def make_late(path: Path, job: Job) -> None:
    """Let a file have been changed after the images were made."""
    late = job.paths.images.stat().st_mtime_ns + LATE_NS
    os.utime(path, ns=(late, late))


def crc(path: str | Path) -> str:
    return f"{zlib.crc32(Path(path).read_bytes()):08x}"


def test_images_are_hu_and_masks_lie_in_the_same_geometry(project):
    job = run_both()
    images, slices = images_of(job), read_table(job.paths.slices)
    folder = f"data/small/png/{job.paths.view}"
    assert images["slice_id"].tolist() == slices["slice_id"].tolist()
    for row in slices.itertuples():
        image = images.loc[row.slice_id]
        hu = head(int(10 * row.z_mm)) - np.int16(1024)
        expected = resample_hu(hu, 0.45, 0.5, 0.8, SIZE)
        written = cv2.imread(image["path"], cv2.IMREAD_UNCHANGED)
        assert written.dtype == np.uint16
        np.testing.assert_array_equal(written, expected.astype(int) + 32768)
        np.testing.assert_array_equal(read_hu(Path(image["path"])), expected)
        assert image["png_crc"] == crc(image["path"])
        of_mask = image[["mask", "mask_source_bytes", "mask_source_crc", "mask_crc"]]
        if row.slice_id not in MASKED:
            assert of_mask.isna().all()
            continue
        path = f"{folder}/{row.scan_id}/{row.slice_id}.mask.png"
        source = source_mask(row.slice_id)
        assert of_mask.tolist() == [path, source.stat().st_size, crc(source), crc(path)]
        mask = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, resample_mask(mask_of(row.slice_id), 0.45, 0.5, 0.8, SIZE))
        np.testing.assert_array_equal(read_mask(Path(path)), mask)
    assert sorted(png_files(job)) == sorted([*images["path"], *images["mask"].dropna()])


def test_the_whole_slice_is_resized_without_a_spacing(project):
    job = run_both(settings={"view.pixel_mm": 0.0})
    image = images_of(job).loc["ID_2"]
    hu = cv2.resize(head(100) - 1024.0, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    assert np.abs(read_hu(Path(image["path"])) - hu).max() <= 0.5 + 1e-3
    nearest = cv2.resize(mask_of("ID_2"), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (read_mask(Path(image["mask"])) == nearest).mean() > 0.95


def test_what_is_done_stays_done(project, monkeypatch):
    job = run_both()
    files, table = png_files(job), job.paths.images.read_bytes()
    with monkeypatch.context() as patched:
        # All that is to be known stands in the last table.
        patched.setattr("pipeline.shell.slice_images._crc_of", None)
        patched.setattr("pipeline.shell.slice_images.read_source", None)
        assert new_images(job) == 0
    assert (png_files(job), job.paths.images.read_bytes()) == (files, table)
    # Killed before the table was written: what was made of what is found again.
    job.paths.images.unlink()
    assert new_images(job) == 0
    assert (png_files(job), job.paths.images.read_bytes()) == (files, table)
    assert new_images(make_job(settings=HU, force=True)) == 8
    assert (png_files(job), job.paths.images.read_bytes()) == (files, table)


def test_tables_in_batches_and_two_processes_give_the_same(project, monkeypatch):
    many = {f"ID_x{i:03d}": in_scan(10 + i // 20, 3.0 * (i % 20)) for i in range(140)}
    shutil.rmtree("data/small/raw")
    write_raw(Path("data/small/raw"), many, {})
    for number, slice_id in enumerate(many):
        if number % 3 == 0:
            write_mask(source_mask(slice_id), np.full((ROWS, COLUMNS), number % 64, np.uint8))
    job = run_both()
    files, table = png_files(job), images_of(job)
    assert table["mask"].notna().sum() == 47
    shutil.rmtree(job.paths.png)
    monkeypatch.setattr("pipeline.shell.tables.BATCH_ROWS", 7)
    assert new_images(make_job(settings=HU, n_jobs=2)) == 140
    assert png_files(job) == files
    pd.testing.assert_frame_equal(images_of(job), table)
    monkeypatch.setattr("pipeline.shell.slice_images._crc_of", None)
    assert new_images(job) == 0
    pd.testing.assert_frame_equal(images_of(job), table)


def test_a_changed_source_mask_is_redone(project):
    job = run_both()
    before, source = images_of(job), source_mask("ID_2")
    write_mask(source, np.roll(mask_of("ID_2"), 5, axis=1))
    make_late(source, job)
    assert new_images(job) == 1
    after = images_of(job)
    changed = before.ne(after) & ~(before.isna() & after.isna())
    assert changed.any(axis=1)[changed.any(axis=1)].index.tolist() == ["ID_2"]
    assert set(changed.columns[changed.any()]) - {"mask_source_bytes"} == {"mask_source_crc", "mask_crc"}
    expected = resample_mask(np.roll(mask_of("ID_2"), 5, axis=1), 0.45, 0.5, 0.8, SIZE)
    np.testing.assert_array_equal(read_mask(Path(after["mask"]["ID_2"])), expected)


def test_a_source_mask_of_another_size_is_redone_though_it_is_old(project):
    job = run_both()
    source = source_mask("ID_2")
    write_mask(source, RNG.integers(0, 64, (ROWS, COLUMNS), dtype=np.uint8))
    os.utime(source, (1000, 1000))
    assert new_images(job) == 1


def test_a_cached_mask_that_is_gone_is_redone(project):
    job = run_both()
    files = png_files(job)
    Path(images_of(job)["mask"]["T_0"]).unlink()
    assert new_images(job) == 1
    assert png_files(job) == files


def test_a_source_mask_that_is_gone_is_missed_until_the_index_knows(project):
    job = run_both()
    mask = Path(images_of(job)["mask"]["ID_5"])
    source_mask("ID_5").unlink()
    window.main(job)
    row = rejected_of(job).loc["ID_5"]
    assert (row["reason"], row["scan_id"]) == ("unusable mask", "scan1")
    assert row["detail"] == f"{source_mask('ID_5')}: FileNotFoundError: No such file or directory"
    assert not mask.exists()
    index.main(job)
    assert new_images(job) == 1
    assert pd.isna(images_of(job)["mask"]["ID_5"])
    assert len(rejected_of(job)) == 0


def test_a_mask_that_comes_and_one_that_goes(project):
    job = run_both()
    gone = Path(images_of(job)["mask"]["ID_5"])
    source_mask("ID_5").unlink()
    write_mask(source_mask("ID_0"), mask_of("ID_1"))
    index.main(job)
    assert new_images(job) == 1  # ID_0; the image of ID_5 is what it was
    assert not gone.exists()
    assert images_of(job)["mask"].dropna().index.tolist() == ["ID_0", "ID_1", "ID_2", "T_0"]


def test_masks_of_slices_that_are_gone_are_removed(project):
    job = run_both()
    files = png_files(job)
    for orphan in ("scan1/ID_0.mask.png", "scan1/ID_9.mask.png", "scan3/ID_9.mask.png"):
        (job.paths.png / orphan).parent.mkdir(exist_ok=True)
        (job.paths.png / orphan).write_bytes(b"a mask")
    assert new_images(job) == 0
    assert png_files(job) == files
    assert not (job.paths.png / "scan3").exists()


def encoded(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


GOOD = encoded(RNG.integers(0, 32, (ROWS, COLUMNS), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (encoded(np.zeros((COLUMNS, ROWS), np.uint8)), "40 x 48 pixels, the slice has 48 x 40"),
        (encoded(np.zeros((ROWS, COLUMNS), np.uint16)), "bit depth 16 and colour type 0, expected 8 and 0, greyscale"),
        (encoded(np.zeros((ROWS, COLUMNS, 3), np.uint8)), "bit depth 8 and colour type 2, expected 8 and 0, greyscale"),
        (encoded(np.full((ROWS, COLUMNS), 64, np.uint8)), "values up to 64; bit i is label i, none is above 63"),
        (b"", "0 bytes that are no PNG"),
        (b"not a PNG, but as long as the header of one", "43 bytes that are no PNG"),
        (GOOD[:200], "200 bytes that are a damaged PNG, or one with transparency"),
    ],
)  # fmt: skip
def test_masks_that_cannot_be_used_reject_their_slice(data, detail, project):
    source_mask("ID_2").write_bytes(data)
    job = run_both()
    assert set(images_of(job)["slice_id"]) == {*(f"ID_{i}" for i in (0, 1, 3, 4, 5)), "T_0", "T_1"}
    rejected = rejected_of(job)
    assert rejected["reason"].to_dict() == {"ID_2": "unusable mask"}
    assert rejected["detail"]["ID_2"] == f"{source_mask('ID_2')}: {detail}"
    assert not [path for path in png_files(job) if "ID_2" in path]


def test_each_frame_of_a_file_has_a_mask_of_its_own(project):
    """A mask that is gone costs its own frame, and a mask that changed is redone, whatever the others are."""
    frames = np.stack([head(number) for number in range(3)])
    raw = Path("data/small/raw")
    shutil.rmtree(raw)
    write_raw(raw, {"ID_a": enhanced_bytes(frames, [frame_group(5.0 * number) for number in range(3)])}, {})
    write_labels(raw / "stage_2_train.csv", {f"ID_a.{number}": None for number in (1, 2, 3)})
    for number, slice_id in ((1, "ID_1"), (2, "ID_2"), (3, "ID_5")):
        write_mask(source_mask(f"ID_a.{number}"), mask_of(slice_id))
    job = run_both()
    expected = resample_mask(mask_of("ID_2"), 0.45, 0.5, 0.8, SIZE)
    np.testing.assert_array_equal(read_mask(Path(images_of(job)["mask"]["ID_a.2"])), expected)
    source_mask("ID_a.1").unlink()
    make_late(source_mask("ID_a.3"), job)
    lenient = make_job(settings=HU, max_rejected=0.5)
    assert new_images(lenient) == 1
    assert rejected_of(lenient)["reason"].to_dict() == {"ID_a.1": "unusable mask"}
    assert images_of(lenient)["slice_id"].tolist() == ["ID_a.2", "ID_a.3"]


def test_a_mask_that_cannot_be_opened_rejects_its_slice(project):
    source_mask("ID_2").unlink()
    os.mkfifo(source_mask("ID_2"))
    job = run_both()
    assert rejected_of(job)["detail"]["ID_2"] == f"{source_mask('ID_2')}: OSError: not a regular file but a pipe"


def test_a_mask_too_large_is_not_read(project):
    with source_mask("ID_2").open("wb") as file:
        file.truncate((1 << 26) + 1)
    job = run_both()
    assert rejected_of(job)["detail"]["ID_2"].endswith("has 67108865 bytes, more than 67108864; it is not read")


def test_without_masks_in_the_view_none_is_looked_at(project):
    source_mask("ID_2").write_bytes(b"")
    job = run_both(settings={"view.masks": False})
    assert len(images_of(job)) == 8
    assert images_of(job)["mask"].isna().all()
    assert not [path for path in png_files(job) if "mask" in path]


def test_masks_where_there_are_none_are_refused_before_any_work(project, monkeypatch):
    shutil.rmtree("data/small/raw/masks")
    monkeypatch.setattr(window, "compile_kernels", None)
    message = (
        r"view.masks=True: data set 'small' has no masks; they belong in data/small/raw/masks/, <slice_id>.png each, "
        r"before `make index`. The phantom has them, RSNA's data do not"
    )
    with pytest.raises(UserError, match=message):
        run_both()
    assert not make_job(settings=HU).paths.png.exists()


def test_a_slice_that_is_called_as_a_mask_is_refused(project):
    raw = Path("data/small/raw")
    shutil.rmtree(raw)
    write_raw(raw, {"ID_1": slice_bytes(), "ID_1.mask": slice_bytes(z_mm=5.0)}, {})
    write_mask(source_mask("ID_1"), mask_of("ID_1"))
    with pytest.raises(UserError, match=r"slice 'ID_1.mask': with view.masks a name may not end in '.mask'"):
        run_both()
    assert len(images_of(run_both(settings={"view.masks": False}))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": True}, r"view.masks=True: of kind `hu` alone, and view.kind is 'windows'; say view.kind=hu too"),
        ({"pixel_mm": 1.0}, r"view.pixel_mm=1.0: of kind `hu` alone, and view.kind is 'windows'; say view.kind=hu too"),
        ({"kind": "hu", "pixel_mm": -1.0}, r"view.pixel_mm: -1 mm; give a spacing, or 0 for the whole slice"),
        ({"kind": "hu", "pixel_mm": float("inf")}, r"view.pixel_mm: inf mm; give a spacing"),
        ({"size": 0}, r"view.size: 0 px; an image has at least one"),
        ({"windows": ((40.0, 80.0), (80.0, 200.0))}, r"view.windows: 2 windows; a PNG holds one or three channels"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    window.check_view(BASE.view)
    window.check_view(View(kind="hu", windows=((40.0, 80.0), (80.0, 200.0)), pixel_mm=1.0, masks=True))
    with pytest.raises(UserError, match=message):
        window.check_view(View(**changes))


def findings(job: Job) -> list[str]:
    slices = read_table(job.paths.slices, ["slice_id", "path", "mask"])
    return list(image_findings(images_of(job).reset_index(drop=True), slices, 1))


def test_verify_names_masks_that_were_changed(project):
    job = run_both()
    assert findings(job) == []
    cached, source = Path(images_of(job)["mask"]["ID_1"]), source_mask("ID_2")
    for path in (cached, source):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    source_mask("ID_5").unlink()
    assert findings(job) == [
        f"{cached} was changed: it is not what window left",
        f"{source} is another file than the one that its cached mask was made of",
        f"{source_mask('ID_5')} cannot be read: No such file or directory",
    ]
    index.main(job)
    assert findings(job)[0] == f"{images_of(job)['mask']['ID_5']} is a mask of slice ID_5; SLICES knows of none"


def test_verify_does_not_look_at_masks_that_no_view_took(project):
    job = run_both(settings={"view.masks": False})
    source_mask("ID_2").unlink()
    assert findings(job) == []


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A small phantom and its views in HU: at 1 mm, and as a whole."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("phantom")
        patch.chdir(folder)
        run_stage("phantom", *TINY)
        run_stage("index", *TINY)
    return folder


@pytest.mark.parametrize("pixel_mm", [1.0, 0.0])
def test_hemorrhage_is_brighter_than_the_brain_around_it(phantom, pixel_mm, monkeypatch):
    """Blood of the phantom is above brain: so it is within the mask, if mask and image lie on each other."""
    monkeypatch.chdir(phantom)
    settings = ("view.kind=hu", "view.masks=1", "view.size=200", f"view.pixel_mm={pixel_mm}")
    job = run_stage("window", *TINY, "--set", *settings)
    rows = images_of(job).join(read_table(job.paths.slices).set_index("slice_id")[["intraparenchymal"]])
    # All slices of the phantom have masks; most are empty.
    assert rows["mask"].notna().all()
    seen = 0
    for row in rows[rows["intraparenchymal"] == 1].itertuples():
        hu, mask = read_hu(Path(row.path)), read_mask(Path(row.mask))
        blood = (mask & 2 > 0).astype(np.uint8)
        if blood.sum() < 100:
            continue
        seen += 1
        is_tissue = (mask == 0) & (hu > 0) & (hu < 100)
        ring = cv2.dilate(blood, np.ones((13, 13), np.uint8)) - cv2.dilate(blood, np.ones((5, 5), np.uint8))
        # Moved by twice its breadth, or mirrored, it no longer lies on the blood.
        far = round(2 * np.sqrt(blood.sum()))
        elsewhere = [np.roll(blood, far, axis=0), np.roll(blood, far, axis=1), blood[:, ::-1], blood[::-1], blood.T]
        for place in (ring, *elsewhere):
            assert hu[blood > 0].mean() > hu[(place > 0) & is_tissue].mean() + 5
    assert seen >= 3
