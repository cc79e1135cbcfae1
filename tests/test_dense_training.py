"""Training the dense network: runs and masks that move together, balance, losses by hand, a blob that is learned."""

import math
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import LABELS, Dense, Train, UserError, variant
from pipeline.core.resampling import HU_OFFSET
from pipeline.core.slice_runs import centred_runs
from pipeline.learn.dense_data import SliceRuns, WholeScans, run_augmentation, run_loader
from pipeline.learn.dense_training import DenseModule, descent, predict_slices, prepare, scan_logits
from pipeline.learn.modules import VALIDATION_LOSS
from pipeline.learn.sampler import GroupSampler
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_densenet
from pipeline.runs import recipe

SETTINGS = variant(
    recipe("grewal2018").settings,
    **{
        "dense.block_layers": 2, "dense.growth": 4, "dense.stem_filters": 8, "dense.hidden": 6, "dense.run_slices": 3,
        "train.batch": 12, "train.learning_rates": (0.05,) * 20 + (0.005,), "train.rotate_deg": 10.0,
    },
)  # fmt: skip
PLAIN = {"dense.run_slices": 1, "dense.hidden": 0}
NOTHING = Train(hu_range=(0.0, 80.0))

ROWS_PX, COLUMNS_PX = 24, 36


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    """Scans of 7, 5, 2, 6, ... slices; in two of five a blob of 70 HU shows on neighbouring slices of 30 HU."""
    folder, rng, found = tmp_path_factory.mktemp("hu"), np.random.default_rng(5), []
    for scan, slices in enumerate((7, 5, 2, 6, 9, 8, 5, 7, 4, 6)):
        y, x = rng.integers(6, ROWS_PX - 6), rng.integers(6, COLUMNS_PX - 6)
        for position in range(slices):
            slice_id = f"ID_{scan}_{position}"
            hu = rng.normal(30, 4, (ROWS_PX, COLUMNS_PX))
            hu[:, :2] = -1000
            positive = scan % 5 < 2 and position in (1, 2, 3)
            mask = None
            if positive:
                drawn = np.zeros((ROWS_PX, COLUMNS_PX), np.uint8)
                drawn[y - 3 : y + 4, x - 3 : x + 4] = 16 if position == 1 else 6
                hu[drawn > 0] += 40
                mask = str(folder / f"{slice_id}.mask.png")
                cv2.imwrite(mask, drawn)
            png = str(folder / f"{slice_id}.png")
            cv2.imwrite(png, (np.rint(hu) + HU_OFFSET).astype(np.uint16))
            five = dict.fromkeys(LABELS[:-1], 0)
            labels = {**five, "subdural": int(positive), "any": int(positive)}
            found.append({"slice_id": slice_id, "scan_id": f"S{scan}", "png": png, "mask": mask, **labels})
    return pd.DataFrame(found)


def halves(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Train on the first six scans, validate on the last four."""
    is_train = rows["scan_id"].isin([f"S{scan}" for scan in range(6)]).to_numpy()
    return is_train, ~is_train


def runs_of(rows, train=NOTHING, run_slices=3, masks=True, seed=(0, 1)) -> SliceRuns:
    return SliceRuns(rows, run_slices, masks, run_augmentation(train), seed)


def test_a_run_holds_its_neighbours_their_labels_and_any_kind_of_their_masks(rows):
    runs = runs_of(rows)
    hu, labels, masks = runs[(0, 7 + 1, 0)]  # the second slice of the second scan
    assert labels.tolist() == [0, 1, 1]
    for place, position in enumerate((0, 1, 2)):
        stored = cv2.imread(rows["png"][7 + position], cv2.IMREAD_UNCHANGED).astype(int) - HU_OFFSET
        np.testing.assert_array_equal(hu[place].numpy(), stored)
        # 16 and 6, subdural alone and two kinds at once, are both hemorrhage; a slice without mask has an empty one.
        assert masks[place].sum() == (49 if position else 0)
        assert set(masks[place].unique().tolist()) <= {0, 1}
    # At its end, the run is shifted inwards, and does not go on into the next scan.
    assert runs.runs[7 + 4].tolist() == [7 + 2, 7 + 3, 7 + 4]
    assert runs.runs[7 + 5].tolist() == [12, 13, 13]  # a scan of two slices
    assert runs_of(rows, masks=False)[(0, 8, 0)][2].shape == (3, 0, 0)


def test_a_run_is_positive_where_one_of_its_slices_is(rows):
    # The first scan of 7 shows slices 1, 2, 3; the runs around slices 0 to 4 hold one of them.
    assert runs_of(rows).is_positive()[:7].tolist() == [True, True, True, True, True, False, False]
    assert runs_of(rows, run_slices=1).is_positive()[:7].tolist() == [False, True, True, True, False, False, False]


def test_images_and_masks_of_a_run_are_flipped_and_turned_together(rows):
    flipped, plain = runs_of(rows, Train(flip=1.0)), runs_of(rows)
    for moved, still in zip(flipped[(0, 8, 0)], plain[(0, 8, 0)], strict=True):
        torch.testing.assert_close(moved, still if still.ndim == 1 else still.flip(2))
    turned = runs_of(rows, Train(rotate_deg=40.0, affine_chance=1.0, hu_range=(-77.0, 80.0)))
    for epoch in range(5):
        hu, _, masks = turned[(epoch, 2, 0)]  # slices 1, 2, 3: a blob at the same place
        assert torch.equal(masks[0], masks[1])
        assert torch.equal(masks[0], masks[2])
        assert masks.sum() > 0
        bright = (hu > 50).float()
        overlap = 2 * (bright * masks).sum() / (bright.sum() + masks.sum())
        assert overlap > 0.8  # all but the rim, where one is interpolated and the other is not
        # Nothing is cut off to 0 to 1, and what comes in from outside is the darkest that the network sees.
        assert hu.min() == -1000
        assert (hu == -77).sum() > 10


def test_augmentation_belongs_to_seed_epoch_slice_and_time_and_leaves_the_global_state_alone(rows):
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 - the state to be left alone
    runs = runs_of(rows, SETTINGS.train)
    hu, _, masks = runs[(2, 5, 0)]
    _ = runs[(2, 6, 0)]
    again = runs[(2, 5, 0)]
    assert torch.equal(again[0], hu)
    assert torch.equal(again[2], masks)
    for key in ((3, 5, 0), (2, 5, 1)):
        assert not torch.equal(runs[key][0], hu)
    assert not torch.equal(runs_of(rows, SETTINGS.train, seed=(0, 2))[(2, 5, 0)][0], hu)
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_groups_are_drawn_equally_often_and_the_smaller_one_again_and_again():
    groups = [np.array([3, 5]), np.array([0, 1, 2, 4, 6, 7, 8])]
    sampler = GroupSampler(groups, [7, 7], (0, 1))
    sampler.set_epoch(4)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 14
    assert {epoch for epoch, _, _ in drawn} == {4}
    assert sorted(item for _, item, _ in drawn if item in groups[1]) == groups[1].tolist()
    few = sorted((item, time) for _, item, time in drawn if item in groups[0])
    # Both three times, and one of them a fourth time: 7 draws, each another.
    assert set(few) > {(item, time) for item in (3, 5) for time in (0, 1, 2)}
    assert len(set(few)) == 7
    assert few[-1][1] == 3 or (3, 3) in few
    assert list(sampler) == drawn
    sampler.set_epoch(5)
    assert [item for _, item, _ in sampler] != [item for _, item, _ in drawn]
    assert len({item for _, item, _ in GroupSampler(groups[1:], [3], (0,))}) == 3


def test_half_of_what_is_trained_on_is_positive_and_a_step_takes_whole_runs(rows):
    runs = runs_of(rows, SETTINGS.train)
    loader = run_loader(runs, SETTINGS, workers=0)
    assert loader.batch_size == 4  # 12 slices
    is_positive = runs.is_positive()
    each = math.ceil(max(is_positive.sum(), (~is_positive).sum()) / 3)
    drawn = [item for _, item, _ in loader.sampler]
    assert (is_positive[drawn].sum(), len(drawn)) == (each, 2 * each)
    unbalanced = run_loader(runs, variant(SETTINGS, **{"train.balance": False}), workers=0)
    assert len(unbalanced.sampler) == math.ceil(len(rows) / 3)
    hu, labels, masks = next(iter(loader))
    assert hu.shape == masks.shape == (4, 3, ROWS_PX, COLUMNS_PX)
    assert labels.shape == (4, 3)


def test_workers_change_nothing(rows):
    def batches(workers):
        loader = run_loader(runs_of(rows, SETTINGS.train), SETTINGS, workers)
        loader.sampler.set_epoch(1)
        return [torch.cat([part.flatten() for part in batch]) for batch in loader]

    here, elsewhere = batches(0), batches(1)
    assert len(here) > 2
    assert all(torch.equal(one, other) for one, other in zip(here, elsewhere, strict=True))


def test_whole_scans_come_in_order_as_they_are(rows):
    scans = WholeScans(rows)
    assert len(scans) == 10
    hu, labels = scans[(0, 1)]
    assert labels.tolist() == [0, 1, 1, 1, 0]
    assert (hu.shape, hu.dtype) == ((5, ROWS_PX, COLUMNS_PX), torch.int16)
    stored = cv2.imread(rows["png"][7 + 3], cv2.IMREAD_UNCHANGED).astype(int) - HU_OFFSET
    np.testing.assert_array_equal(hu[3].numpy(), stored)


def test_positive_slices_without_masks_are_refused_and_a_network_without_masks_needs_none(rows):
    lacking = rows.assign(mask=rows["mask"].where(rows["slice_id"] != "ID_0_2", None))
    train, validation = halves(rows)
    message = (
        r"dense.mask_weight=1: 1 of 9 positive slices to train on have no mask, ID_0_2 the first; put masks into "
        r"raw/masks/ \(the phantom has them\), or train without: grewal2018-densenet"
    )
    with pytest.raises(UserError, match=message):
        prepare(lacking, train, validation, SETTINGS, (0, 0), 0)
    prepare(lacking, validation, train, SETTINGS, (0, 0), 0)  # to validate, none is read
    plain = variant(recipe("grewal2018-densenet").settings, **{"dense.block_layers": 1})
    prepare(rows.drop(columns="mask"), train, validation, plain, (0, 0), 0)


def test_one_kind_alone_cannot_be_balanced(rows):
    negative = rows[rows["any"] == 0]
    with pytest.raises(UserError, match=r"nothing to balance: 0 positive and \d+ negative items to train on"):
        run_loader(runs_of(negative), SETTINGS, 0)


class Fixed(torch.nn.Module):
    """Says the same of whatever comes."""

    def __init__(self, logits, masks):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.found = logits, masks

    def forward(self, hu):
        return self.found


def test_losses_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]])
    labels = torch.tensor([[1.0, 0.0]])
    mask = torch.zeros(1, 2, 2, 1)
    mask[0, 0, 0] = 1
    sure = torch.full((1, 2, 2, 1), -math.log(3))
    dense = Dense(mask_weight=0.5, run_slices=2, blood_weight=5.0)
    module = DenseModule(Fixed(logits, (torch.zeros(1, 2, 2, 1), sure)), SETTINGS.train, dense, (0,))
    module.log = lambda *_args, **_kwargs: None
    of_class, of_masks = module.losses((mask, labels, mask))
    # ln 2, and ln 4 where 3/4 was said of nothing.
    assert of_class.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    # The first mask costs ln 2 a pixel; the second says 1/4: ln 4 at one pixel, ln 4/3 at the three others. That one
    # pixel is blood, and counts five times.
    by_hand = (5 + 3) * math.log(2) / 4 + (5 * math.log(4) + 3 * math.log(4 / 3)) / 4
    assert of_masks.item() == pytest.approx(by_hand)
    loss = module.training_step((mask, labels, mask), 0)
    assert loss.item() == pytest.approx(of_class.item() + 0.5 * by_hand)
    module.network.found = logits, ()
    assert module.losses((mask, labels, mask))[1].item() == 0


def test_descent_has_the_settings_momentum_and_weight_decay():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = descent(Train(momentum=0.5, weight_decay=0.1))([weight], 0.01)
    for _ in range(2):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
    # Gradients 1 + 0.1 w; velocities 1.2, then 0.5 x 1.2 + 1 + 0.1 (2 - 0.012) = 1.7988.
    assert weight.item() == pytest.approx(2 - 0.012 - 0.017988)


def test_a_blob_is_learned_and_a_resumed_training_ends_with_the_same_weights(rows, tmp_path):
    train, validation = halves(rows)

    def trained(folder, epochs):
        module, *loaders = prepare(rows, train, validation, SETTINGS, (0, 1), 0)
        outcome = fit(module, *loaders, epochs, folder, {"threads": 1}, False)
        return module.network, outcome

    network, outcome = trained(tmp_path / "whole", 25)
    found = predict_slices(network, rows, SETTINGS, 0)
    any_ = rows["any"].to_numpy(dtype=np.float64)
    of_validation = -np.log(np.where(any_ == 1, found, 1 - found))[validation].mean()
    assert outcome[VALIDATION_LOSS] == pytest.approx(of_validation, rel=1e-4)
    assert of_validation < 0.35 < math.log(2)
    assert found[validation & (any_ == 1)].mean() > found[validation & (any_ == 0)].mean() + 0.4
    trained(tmp_path / "cut", 7)
    resumed, again = trained(tmp_path / "cut", 25)
    assert again["resumed"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_the_masks_alone_learn_where_the_blob_is(rows):
    settings = variant(SETTINGS, **PLAIN)
    torch.manual_seed(1)
    network = build_densenet(settings)
    module = DenseModule(network, settings.train, Dense(mask_weight=1.0), (0,))
    optimizer = descent(settings.train)(list(network.parameters()), 0.1)
    loader = run_loader(runs_of(rows, settings.train, 1), settings, 0)
    begun = None
    for epoch in range(12):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            _, loss = module.losses(batch)
            begun = begun or loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.4 * begun
    hu, _, masks = (torch.stack(parts) for parts in zip(*(runs_of(rows)[(0, k, 0)] for k in (1, 8)), strict=True))
    with torch.inference_mode():
        _, drawn = network.eval()(hu)
    for found in drawn:
        assert found[masks == 1].mean() > found[masks == 0].mean() + 1


@pytest.mark.parametrize("run_slices", [1, 3, 4])
def test_a_scan_gives_what_the_run_around_each_slice_gives(rows, run_slices, monkeypatch):
    settings = variant(SETTINGS, **{"dense.run_slices": run_slices})
    torch.manual_seed(2)
    network = build_densenet(settings).eval()
    monkeypatch.setattr("pipeline.learn.dense_training.CPU_CHUNK_PIXELS", 4 * ROWS_PX * COLUMNS_PX)
    hu, _ = WholeScans(rows)[(0, 4)]  # nine slices: three chunks
    runs, places = centred_runs(len(hu), run_slices)
    with torch.inference_mode():
        slowly = torch.stack([network(hu[runs[k]][None])[0][0, places[k]] for k in range(len(hu))])
        torch.testing.assert_close(scan_logits(network, hu, run_slices), slowly, rtol=1e-4, atol=1e-5)


def test_a_scan_is_predicted_by_itself(rows):
    torch.manual_seed(2)
    network = build_densenet(SETTINGS)
    together = predict_slices(network, rows, SETTINGS, 0)
    assert together.dtype == np.float64
    assert len(together) == len(rows)
    assert np.array_equal(predict_slices(network, rows, SETTINGS, 1), together)
    alone = [predict_slices(network, own, SETTINGS, 0) for _, own in rows.groupby("scan_id", sort=False)]
    np.testing.assert_array_equal(np.concatenate(alone), together)
    assert len(predict_slices(network, rows[:0], SETTINGS, 0)) == 0
    unlabelled = rows.assign(any=None)
    assert np.array_equal(predict_slices(network, unlabelled, SETTINGS, 0), together)


def test_a_missing_image_says_how_to_redo_it(rows):
    moved = rows.assign(png=str(Path(rows["png"][0]).with_name("absent.png")))
    with pytest.raises(FileNotFoundError, match=r"absent.png: a cached image is missing; redo it with `make window"):
        runs_of(moved)[(0, 0, 0)]
