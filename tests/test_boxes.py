"""Slabs and their lesions, what an epoch shows, and a small network that learns to find ellipses and measure them."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import LABELS, UserError, variant
from pipeline.core.drawings import highest_scores
from pipeline.core.lesion_size import volume_ml
from pipeline.core.resampling import HU_OFFSET
from pipeline.learn.box_training import EPOCH_LOSS, BoxModule, prepare
from pipeline.learn.detection import COLUMNS, detect
from pipeline.learn.drawn_scans import measure, scan_overlaps, slice_overlaps
from pipeline.learn.sampler import EpochSampler
from pipeline.learn.slab_data import Slabs, slab_loader, slab_rows, slab_sampler
from pipeline.learn.trainer import fit
from pipeline.runs import recipe

SIZE = 48
SLICES = 5
SETTINGS = variant(
    recipe("chang2018-small").settings,
    **{
        "view.size": SIZE,
        "train.epochs": 26,
        "train.batch": 4,
        "train.learning_rates": (2e-3,) * 20 + (2e-4,),
        "train.plateau_epochs": 0,
        "boxes.filters": 16,
        "boxes.channels": 24,
        "train.hu_range": (-240.0, 240.0),
        "boxes.anchors_sampled": 256,
        "boxes.training_proposals": 100,
        "boxes.negatives": 1.0,
        "boxes.box_head": 48,
        "boxes.mask_head": 16,
    },
)
INTRAPARENCHYMAL, SUBDURAL = 2, 16


def write_hu(path: Path, hu: np.ndarray) -> str:
    cv2.imwrite(str(path), (np.rint(hu).astype(np.int32) + HU_OFFSET).astype(np.uint16))
    return str(path)


def write_mask(path: Path, mask: np.ndarray) -> str:
    cv2.imwrite(str(path), mask.astype(np.uint8))
    return str(path)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    """Return the slices of 16 scans: noise of brain's density, and in three slices of every other scan an ellipse."""
    folder = tmp_path_factory.mktemp("hu")
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:SIZE, :SIZE]
    found = []
    for scan in range(16):
        middle, semi, kind = rng.uniform(14, 34, 2), rng.uniform(6, 10, 2), (INTRAPARENCHYMAL, SUBDURAL)[scan // 2 % 2]
        for place in range(SLICES):
            slice_id = f"{scan:02}-{place}"
            ellipse = ((y - middle[0]) / semi[0]) ** 2 + ((x - middle[1]) / semi[1]) ** 2 <= 1
            ellipse &= scan % 2 == 0 and 1 <= place <= 3
            # What tells the two kinds apart is their density.
            hu = 30 + 60 * ellipse * (1 if kind == INTRAPARENCHYMAL else -1) + rng.normal(0, 5, (SIZE, SIZE))
            png = write_hu(folder / f"{slice_id}.png", hu)
            mask = write_mask(folder / f"{slice_id}.mask.png", ellipse * kind) if ellipse.any() else None
            found.append((slice_id, f"scan-{scan:02}", png, mask, int(ellipse.any()), 5.0 * place))
    frame = pd.DataFrame(found, columns=["slice_id", "scan_id", "png", "mask", "any", "z_mm"])
    frame[[label for label in LABELS if label != "any"]] = 0
    return frame.assign(rows=96, columns=144, row_mm=1.0, column_mm=0.5)


def parts(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    is_train = (rows["scan_id"] < "scan-12").to_numpy(dtype=bool)
    return is_train, ~is_train


def test_slabs_lie_round_their_slice_and_repeat_the_end_slices_of_their_own_scan():
    assert slab_rows(np.array([0, 4, 5, 8]), 5).tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 3],
        [1, 2, 3, 3, 3],
        [4, 4, 4, 4, 4],
        [5, 5, 5, 6, 7],
        [5, 5, 6, 7, 7],
        [5, 6, 7, 7, 7],
    ]
    assert slab_rows(np.array([0, 3]), 1).tolist() == [[0], [1], [2]]


def test_a_slab_is_its_slices_in_hu_with_the_lesions_of_the_middle_one(tmp_path):
    paths = [write_hu(tmp_path / f"{place}.png", np.full((4, 6), 100 * place - 1000)) for place in range(3)]
    drawn = np.zeros((4, 6), dtype=np.uint8)
    drawn[1:3, 0:2], drawn[3, 5] = SUBDURAL, INTRAPARENCHYMAL
    masks = [None, write_mask(tmp_path / "1.mask.png", drawn), None]
    slabs = Slabs(paths, slab_rows(np.array([0, 3]), 3), masks)
    slab, target = slabs[(0, 1)]
    assert slab.dtype == torch.int16
    assert slab[:, 2, 3].tolist() == [-1000, -900, -800]
    assert target["boxes"].tolist() == [[5, 3, 6, 4], [0, 1, 2, 3]]
    assert target["labels"].tolist() == [1, 2]
    assert target["masks"].sum(dim=(1, 2)).tolist() == [1, 4]
    edge, empty = slabs[(0, 2)]
    assert edge[:, 0, 0].tolist() == [-900, -800, -800]
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, 4, 6)
    flipped = Slabs(paths, slab_rows(np.array([0, 3]), 3), masks, flip=1.0, seed=(0, 0))[(0, 1)][1]
    assert flipped["boxes"].tolist() == [[0, 3, 1, 4], [4, 1, 6, 3]]
    only_large = Slabs(paths, slab_rows(np.array([0, 3]), 3), masks, least_px=2)[(0, 1)][1]
    assert only_large["boxes"].tolist() == [[0, 1, 2, 3]]


def test_an_epoch_shows_all_positive_slices_and_other_negative_ones_each_time():
    positive = np.zeros(50, dtype=bool)
    positive[[3, 8, 21, 40]] = True

    def shown(negatives: float, epoch: int) -> list[int]:
        sampler = slab_sampler(positive, negatives, (0, 1))
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        assert len(sampler) == len(keys)
        return [index for _, index, _ in keys]

    first = shown(1.5, 0)
    assert len(set(first)) == len(first) == 4 + 6
    assert set(first) >= {3, 8, 21, 40}
    assert shown(1.5, 0) == first
    assert set(shown(1.5, 1)) != set(first)
    assert sorted(shown(0, 0)) == sorted(shown(99, 0)) == list(range(50))
    none = slab_sampler(np.zeros(5, dtype=bool), 1.0, (0,))
    assert sorted(index for _, index, _ in none) == list(range(5))


def test_a_slice_with_hemorrhage_and_no_mask_is_a_mistake_of_the_users(rows):
    undrawn = rows.assign(mask=rows["mask"].where(rows["slice_id"] != "02-2", None))
    message = r"learns from masks, and 1 slices with hemorrhage have none, 02-2 the first; it needs view.masks=true"
    with pytest.raises(UserError, match=message):
        prepare(undrawn, *parts(rows), SETTINGS, (0, 0), 0)
    # Of a slice that is in neither part (a test slice), nothing is asked.
    is_train, validation = parts(rows)
    prepare(undrawn, is_train & (rows["scan_id"] != "scan-02").to_numpy(), validation, SETTINGS, (0, 0), 0)


def test_the_rate_falls_to_a_tenth_after_epochs_without_a_lower_training_loss():
    module = BoxModule(torch.nn.Linear(2, 1), [1e-3], (0,), weight_decay=0.01, plateau_epochs=2)
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["monitor"] == EPOCH_LOSS
    assert optimizer.defaults["weight_decay"] == 0.01
    rates = []
    for loss in (5.0, 4.0, 4.0, 4.5, 3.0, 3.0, 3.0):
        optimizer.step()
        schedule.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-5])
    fixed = BoxModule(torch.nn.Linear(2, 1), [1e-3, 1e-4], (0,), 0.0, 0).configure_optimizers()
    assert isinstance(fixed["lr_scheduler"]["scheduler"], torch.optim.lr_scheduler.LambdaLR)


def test_rates_an_epoch_contradict_a_rate_that_follows_the_loss(rows):
    both = variant(SETTINGS, **{"train.plateau_epochs": 2})
    message = r"train.plateau_epochs=2 lowers the rate by itself, and train.learning_rates names 21: give one rate, or"
    with pytest.raises(UserError, match=message):
        prepare(rows, *parts(rows), both, (0, 0), 0)
    prepare(rows, *parts(rows), variant(both, **{"train.learning_rates": 1e-3}), (0, 0), 0)


def test_a_small_network_finds_the_ellipse_draws_it_and_tells_its_volume(rows, tmp_path):
    torch.manual_seed(0)
    is_train, validation = parts(rows)
    module, train, watched = prepare(rows, is_train, validation, SETTINGS, (0, 0), 0)
    outcome = fit(module, train, watched, SETTINGS.train.epochs, tmp_path / "run", {"job": 1}, force=False)
    assert outcome["val_loss"] > 0

    own = rows[validation].reset_index(drop=True)
    detections = detect(module.network, own, SETTINGS, 0)
    assert list(detections.columns) == list(COLUMNS)
    assert detections["score"].between(SETTINGS.boxes.least_score, 1).all()
    numbers = detections.groupby("slice_id")["detection"]
    assert (numbers.min() == 1).all()
    assert (numbers.max() == numbers.size()).all()

    scans = pd.Series(own["scan_id"].unique())
    is_positive = own.groupby("scan_id")["any"].max()[scans].to_numpy() == 1
    scores = highest_scores(detections, scans)
    assert scores[is_positive].min() > scores[~is_positive].max()

    slices = slice_overlaps(own, detections, SETTINGS)
    assert set(slices["type"]) == {"any", "IPH", "EDH/SDH"}
    assert len(slices) == 2 * own["any"].sum()  # one type a slice, and `any`
    assert slices["dice"].mean() > 0.5
    whole = scan_overlaps(own, detections, SETTINGS)
    true = whole[whole["true_ml"] > 0]
    assert sorted(true["type"]) == ["EDH/SDH", "IPH"]
    assert true["dice"].mean() > 0.5
    # The slices next to an ellipse may be drawn too: their slabs hold it.
    assert (true["drawn_ml"] / true["true_ml"]).between(0.5, 2.0).all()


def empty_detections() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in COLUMNS}).astype(COLUMNS)


def test_true_lesions_are_measured_in_the_pixels_of_the_cached_image(rows):
    measured = measure(rows, empty_detections(), SETTINGS)
    assert set(measured["source"]) == {"true"}
    assert measured["scan_id"].tolist() == [f"scan-{scan:02}" for scan in range(0, 16, 2)]
    first = rows[rows["scan_id"] == "scan-00"]
    pixels = [(cv2.imread(path, -1) > 0).sum() for path in first["mask"].dropna()]
    # A slice of 96 x 144 pixels of 1 x 0.5 mm in 48 x 48: 2 x 1.5 mm; slices 5 mm apart.
    assert measured["volume_ml"][0] == pytest.approx(sum(pixels) * 2 * 1.5 * 5 / 1000)
    # ABC/2 of a cylinder: 4/pi of its area, three whole slices.
    assert measured["abc2_ml"][0] == pytest.approx(measured["volume_ml"][0] * 4 / np.pi / 2, rel=0.15)


def test_a_scan_with_a_slice_of_unknown_truth_is_measured_as_drawn_only(rows):
    unknown = rows[rows["scan_id"] < "scan-03"].copy()
    unknown["any"] = unknown["any"].astype("Int8").where(unknown["slice_id"] != "00-0")
    assert measure(unknown, empty_detections(), SETTINGS)["scan_id"].tolist() == ["scan-02"]
    assert scan_overlaps(unknown, empty_detections(), SETTINGS)["scan_id"].tolist() == ["scan-02"]
    assert set(slice_overlaps(unknown, empty_detections(), SETTINGS)["scan_id"]) == {"scan-02"}


def test_what_is_not_drawn_overlaps_with_nothing(rows):
    whole = scan_overlaps(rows, empty_detections(), SETTINGS)
    assert (whole["dice"] == 0).all()
    assert (whole["drawn_ml"] == 0).all()
    slices = slice_overlaps(rows, empty_detections(), SETTINGS)
    assert (slices["dice"] == 0).all()
    # No skull, no inside: the threshold draws nothing either; it says so of `any` alone.
    assert (slices["threshold_dice"][slices["type"] == "any"] == 0).all()
    assert slices["threshold_dice"][slices["type"] != "any"].isna().all()


def test_volumes_of_a_scan_are_the_sum_of_its_lesions(rows):
    measured = measure(rows, empty_detections(), SETTINGS)
    whole = scan_overlaps(rows, empty_detections(), SETTINGS)
    by_scan = measured.groupby("scan_id")["volume_ml"].sum()
    np.testing.assert_allclose(whole.groupby("scan_id")["true_ml"].sum(), by_scan)
    assert volume_ml(np.ones((2, 10, 20)), 1.0, 0.5, np.array([0.0, 5.0])) == 1.0


def test_two_processes_give_the_slabs_that_one_gives(rows):
    paths, slabs = rows["png"].tolist(), slab_rows(np.arange(0, len(rows) + 1, SLICES), 5)
    images = Slabs(paths, slabs, rows["mask"].astype(object).where(rows["mask"].notna(), None).tolist())
    loaders = [slab_loader(images, 7, workers, EpochSampler(len(images))) for workers in (0, 2)]
    for (ours, targets), (theirs, other_targets) in zip(*loaders, strict=True):
        torch.testing.assert_close(ours, theirs)
        for target, other in zip(targets, other_targets, strict=True):
            torch.testing.assert_close(target["boxes"], other["boxes"])
