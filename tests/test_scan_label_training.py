"""The three steps of patel2019: which slices are shown, balance, what is augmented, and training that learns."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import BASE, LABELS, UserError, variant
from pipeline.core.maximum_filter import maximum_filter
from pipeline.core.metrics import roc_and_pr_auc
from pipeline.core.resampling import HU_OFFSET
from pipeline.learn.binary_modules import BinaryModule, BinarySliceModule, rmsprop
from pipeline.learn.hu_slices import HuSlices, embedding_loader, shift_px, slice_blocks
from pipeline.learn.inference import embed_slices
from pipeline.learn.modules import VALIDATION_LOSS
from pipeline.learn.sampler import balanced_sampler
from pipeline.learn.scan_label_training import (
    ScanVectors,
    ScanVolumes,
    prepare_end_to_end,
    prepare_sequence,
    scan_targets,
    vectors_loader,
    volumes_loader,
    voxel_mm,
)
from pipeline.learn.scan_scores import scan_scores
from pipeline.learn.trainer import fit
from pipeline.learn.vgg_training import prepare, usable_slices
from pipeline.nets.build import build_end_to_end, build_vgg
from pipeline.shell.network_files import save_network

SIDE = 26
SETTINGS = variant(
    BASE,
    **{
        "view.kind": "hu",
        "view.size": SIDE,
        "volume.maximum_filter": "1,2,2",
        "volume.filters": 4,
        "volume.units": 1,
        "volume.features": 8,
        "train.network": "vgg",
        "train.hu_range": "0,100",
        "train.balance": True,
        "train.batch": 4,
        "train.learning_rates": "1e-2",
        "sequence.kind": "bilstm_sum",
        "sequence.hidden": 6,
        "sequence.learning_rates": "1e-2",
        "endtoend.chunk_slices": 3,
        "endtoend.learning_rates": "1e-3",
    },
)
CHANGED = {"train.one_of": True, "train.rotate_deg": 25, "train.shift": 0.2}


def head(blood: bool, cavity: bool = True) -> np.ndarray:
    """Return a slice (y, x) in HU: a square skull about brain, with a spot of blood."""
    hu = np.full((SIDE, SIDE), -1000, dtype=np.int16)
    hu[2:24, 2:24] = 1000 if cavity else 40
    hu[5:21, 5:21] = 30
    if blood:
        hu[9:14, 12:17] = 90
    return hu


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    """Twelve scans of 3 to 5 slices, every other one with blood in its second slice; each begins below the skull."""
    folder = tmp_path_factory.mktemp("hu")
    found = []
    for scan in range(12):
        for position in range(3 + scan % 3):
            blood = scan % 2 == 1 and position == 1
            path = folder / f"s{scan:02}-{position}.png"
            image = head(blood, cavity=position > 0).astype(np.int32) + HU_OFFSET
            cv2.imwrite(str(path), image.astype(np.uint16))
            found.append(
                {"slice_id": path.stem, "scan_id": f"s{scan:02}", "png": str(path), "spacing_mm": 5.0, "rows": 52}
                | {"row_mm": 0.5, "fold": scan % 4 // 2, **dict.fromkeys(LABELS, 0.0), "any": float(blood)}
            )
    return pd.DataFrame(found)


def parts(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return (rows["fold"] == 1).to_numpy(), (rows["fold"] == 0).to_numpy()


def test_shown_are_positives_and_of_negative_scans_what_shows_the_cavity(rows):
    everything = np.ones(len(rows), dtype=bool)
    usable = usable_slices(rows, everything, SETTINGS, workers=2)
    for row, is_usable in zip(rows.itertuples(), usable, strict=True):
        scan, position = int(row.scan_id[1:]), int(row.slice_id[-1])
        # A positive scan shows its second slice alone, a negative one all but its first, which has no skull.
        assert is_usable == (position == 1 if scan % 2 else position > 0)
    # Test slices stand among the rows, as tables have them: without labels.
    of_training = (rows["scan_id"] != "s03").to_numpy()
    tables = rows.astype({"any": "Int8"})
    tables.loc[~of_training, "any"] = pd.NA
    assert usable_slices(tables, of_training, SETTINGS, 1).tolist() == (usable & of_training).tolist()
    train, validation = parts(rows)
    assert usable_slices(rows, train, SETTINGS, 1).tolist() == (usable & train).tolist()
    assert not (usable_slices(rows, validation, SETTINGS, 1) & train).any()


def test_a_balanced_epoch_holds_the_rarer_class_whole_and_as_many_others_drawn_anew():
    is_positive = np.array([False] * 20 + [True] * 3)

    def epoch(number, seed=(0, 1)):
        sampler = balanced_sampler(is_positive, seed)
        sampler.set_epoch(number)
        assert len(sampler) == 6
        return list(sampler)

    first = epoch(4)
    assert first == epoch(4)
    assert {number for number, _, _ in first} == {4}
    assert sorted(index for _, index, _ in first)[-3:] == [20, 21, 22]
    assert len({index for _, index, _ in first}) == 6
    assert {index for _, index, _ in epoch(5)} != {index for _, index, _ in first}
    assert [index for _, index, _ in epoch(4, (0, 2))] != [index for _, index, _ in first]
    drawn = {index for number in range(60) for _, index, _ in epoch(number)}
    assert drawn == set(range(23))
    with pytest.raises(UserError, match="nothing to balance: 0 positive and 5 negative items to train on"):
        balanced_sampler(np.zeros(5, dtype=bool), (0,))


def test_a_slice_is_filtered_and_shown_as_it_is_or_changed_by_epoch_and_name(rows):
    plain = HuSlices([(path,) for path in rows["png"]], rows["slice_id"], rows["any"].to_numpy(), SETTINGS)
    settings = variant(SETTINGS, **CHANGED)
    changed = HuSlices(plain.blocks, plain.slice_ids, rows["any"].to_numpy(), settings, seed=(0, 0))
    index = int(np.flatnonzero(rows["any"])[0])
    image, target = plain[(0, index)]
    assert target == 1
    assert image.dtype == torch.int16
    np.testing.assert_array_equal(image.numpy()[0], maximum_filter(head(True), (2, 2)))
    assert shift_px(settings) == 3  # a fifth of 13 px
    kinds = [changed[(epoch, index)][0] for epoch in range(40)]
    same = [torch.equal(kind, image) for kind in kinds]
    assert 2 <= sum(same) <= 22  # a quarter, and shifts by nothing
    assert torch.equal(kinds[7], changed[(7, index)][0])
    mirrored = image.flip(2)
    assert any(torch.equal(kind, mirrored) for kind in kinds)


def test_blocks_join_neighbours_of_a_scan_and_of_no_other():
    scan_ids = np.array(["a", "a", "a", "b", "b"])
    blocks = slice_blocks(scan_ids, ["a0", "a1", "a2", "b0", "b1"], 2)
    assert blocks == [("a0", "a1"), ("a0", "a1"), ("a2",), ("b0", "b1"), ("b0", "b1")]
    assert slice_blocks(scan_ids, list("pqrst"), 1) == [("p",), ("q",), ("r",), ("s",), ("t",)]


@pytest.mark.parametrize("along_z", [1, 2])
def test_vectors_of_embed_are_those_that_the_whole_network_makes(rows, along_z):
    """The third step begins where the second one ended: two ways to a scan's score."""
    settings = variant(SETTINGS, **{"volume.maximum_filter": (along_z, 2, 2)})
    torch.manual_seed(1)
    whole = build_end_to_end(settings)
    embeddings, _ = zip(*embed_slices(whole.cnn, embedding_loader(rows, settings, workers=0)), strict=True)
    by_vectors = scan_scores(whole.sequence, vectors_loader(rows, np.concatenate(embeddings), settings))
    by_volumes = scan_scores(whole, volumes_loader(rows, settings, workers=0))
    assert by_volumes.shape == (12,)
    assert by_volumes.dtype == np.float64
    assert by_volumes.std() > 1e-4
    np.testing.assert_allclose(by_vectors, by_volumes, atol=1e-4)  # vectors are kept in half precision


def test_scans_are_cut_at_their_bounds_and_positive_by_any_slice(rows):
    np.testing.assert_array_equal(scan_targets(rows), [scan % 2 for scan in range(12)])
    vectors = np.arange(14, dtype=np.float16).reshape(7, 2)
    scans = ScanVectors(vectors, np.array([0, 4, 7]), np.array([0, 1]), along_z=2)
    assert scans[(0, 1)][0].tolist() == [[8, 9], [12, 13]]
    assert scans[(0, 0)][0].tolist() == [[0, 1], [4, 5]]
    volume, target = ScanVolumes(rows, scan_targets(rows), SETTINGS)[(0, 1)]
    assert volume.shape == (4, 1, 13, 13)
    assert target == 1
    np.testing.assert_array_equal(volume[1, 0].numpy(), maximum_filter(head(True), (2, 2)))


def test_a_voxel_behind_the_filter_in_mm(rows):
    # 52 rows of 0.5 mm on 26 px are 1 mm each, two of them 2 mm; slices 5 mm apart.
    assert voxel_mm(rows[:4], SETTINGS) == (5.0, 2.0, 2.0)
    assert voxel_mm(rows[:4], variant(SETTINGS, **{"volume.maximum_filter": "2,2,2"})) == (10.0, 2.0, 2.0)
    assert voxel_mm(rows[:4], variant(SETTINGS, **{"view.pixel_mm": 0.7})) == (5.0, 1.4, 1.4)
    assert voxel_mm(rows[:1].assign(spacing_mm=np.nan), SETTINGS) == (2.0, 2.0, 2.0)


def test_a_scan_is_changed_by_epoch_and_name_and_keeps_its_shape(rows):
    plain = ScanVolumes(rows, scan_targets(rows), SETTINGS)
    changed = ScanVolumes(rows, scan_targets(rows), variant(SETTINGS, **CHANGED), seed=(0, 0))
    found = [changed[(epoch, 3)][0] for epoch in range(24)]
    assert {tuple(volume.shape) for volume in found} == {tuple(plain[(0, 3)][0].shape)}
    assert 1 <= sum(torch.equal(volume, plain[(0, 3)][0]) for volume in found) <= 15
    assert torch.equal(found[5], changed[(5, 3)][0])


def test_losses_by_hand():
    class Logits(torch.nn.Module):
        def forward(self, images):
            return None, images

    module = BinarySliceModule(Logits(), [1e-3], (0,))
    # Logits 0 and ln 3 (3/4): ln 2 where true, ln 4 where not.
    logits = torch.tensor([[0.0], [np.log(3)]])
    module.log = lambda *_args, **_others: None
    assert module.training_step((logits, torch.tensor([1.0, 0.0])), 0).item() == pytest.approx(np.log(8) / 2)
    logged = {}
    module.log = lambda name, value, **_others: logged.update({name: value.item()})
    module.on_validation_epoch_start()
    for part, target in ((logits, [1.0, 0.0]), (logits[:1], [0.0])):
        module.validation_step((part, torch.tensor(target)), 0)
    module.on_validation_epoch_end()
    assert logged[VALIDATION_LOSS] == pytest.approx((np.log(8) + np.log(2)) / 3)


def test_rmsprop_is_keras():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = rmsprop([weight], 0.001)
    (2 * weight).sum().backward()
    optimizer.step()
    # The average of squares begins at 0: 0.1 * 2^2 = 0.4; a step of 0.001 * 2 / sqrt(0.4).
    assert weight.item() == pytest.approx(-0.001 * 2 / 0.4**0.5, rel=1e-5)


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    """Return step 1's network, its embeddings and logits, and where weights of both first steps lie."""
    folder = tmp_path_factory.mktemp("trained")
    module, train, validation = prepare(rows, *parts(rows), SETTINGS, (0, 0), workers=0)
    fit(module, train, validation, 12, folder / "cnn", {}, True)
    save_network(folder / "cnn.safetensors", module.network)
    vectors, chances = zip(*embed_slices(module.network, embedding_loader(rows, SETTINGS, 0)), strict=True)
    return module.network, np.concatenate(vectors), np.concatenate(chances)[:, 0], folder


def test_step_1_learns_to_tell_slices_with_blood(rows, trained):
    _, vectors, chances, _ = trained
    shown = usable_slices(rows, parts(rows)[1], SETTINGS, 1)
    assert vectors.shape == (len(rows), 8)
    assert roc_and_pr_auc(rows["any"].to_numpy()[shown] > 0, chances[shown])[0] == 1


def test_step_2_learns_on_vectors_and_step_3_goes_on_from_both(rows, trained):
    _, vectors, _, folder = trained
    module, train, validation = prepare_sequence(rows, vectors, *parts(rows), SETTINGS, (0, 0, 1))
    assert isinstance(module, BinaryModule)
    outcome = fit(module, train, validation, 8, folder / "sequence", {}, True)
    held_out = rows[parts(rows)[1]]
    is_positive = scan_targets(held_out) > 0
    before = scan_scores(module.network, vectors_loader(held_out, vectors[parts(rows)[1]], SETTINGS))
    assert roc_and_pr_auc(is_positive, before)[0] == 1
    save_network(folder / "sequence.safetensors", module.network)

    files = (folder / "cnn.safetensors", folder / "sequence.safetensors")
    whole, train, validation = prepare_end_to_end(rows, *parts(rows), SETTINGS, (0, 0, 2), 0, *files)
    at_start = scan_scores(whole.network, volumes_loader(held_out, SETTINGS, 0))
    np.testing.assert_allclose(at_start, before, atol=1e-3)
    first = whole.network.cnn.convolutions[0].weight.detach().clone()
    own_logit = whole.network.cnn.head.weight.detach().clone()
    after = fit(whole, train, validation, 2, folder / "whole", {}, True)
    assert after[VALIDATION_LOSS] < outcome[VALIDATION_LOSS]
    assert not torch.equal(whole.network.cnn.convolutions[0].weight, first)
    assert torch.equal(whole.network.cnn.head.weight, own_logit)


def test_without_pre_training_both_networks_begin_at_random(rows, trained):
    files = (trained[3] / "cnn.safetensors", Path("absent.safetensors"))
    settings = variant(SETTINGS, **{"endtoend.pretrained_cnn": False, "endtoend.pretrained_sequence": False})
    module, *_ = prepare_end_to_end(rows, *parts(rows), settings, (0, 0, 2), 0, *files)
    again, *_ = prepare_end_to_end(rows, *parts(rows), settings, (0, 0, 2), 0, *files)
    weights = module.network.cnn.convolutions[0].weight
    assert torch.equal(weights, again.network.cnn.convolutions[0].weight)
    assert not torch.equal(weights, trained[0].convolutions[0].weight)
    with pytest.raises(FileNotFoundError, match="absent"):
        prepare_end_to_end(rows, *parts(rows), SETTINGS, (0, 0, 2), 0, *files)


def test_a_part_without_a_slice_to_show_says_so(rows):
    train, validation = parts(rows)
    nothing = rows["slice_id"].str.endswith("-0").to_numpy()
    with pytest.raises(UserError, match="no slice to validate on: none is positive, none of a negative scan shows"):
        prepare(rows, train, validation & nothing, SETTINGS, (0, 0), 1)
    assert build_vgg(SETTINGS).side == 13
