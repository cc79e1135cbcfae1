"""The benchmarks of loader, networks, one scan and the start run on a small network, and notice what is wrong."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import loader, network, network_on_device, scan, start
from benchmarks.comparison import NOT_MEASURED, Target
from benchmarks.phantom_pngs import phantom_images, write_pngs
from benchmarks.probabilities import check_probabilities
from benchmarks.training_steps import StraightforwardSteps, TrainingSteps
from benchmarks.untrained import as_batch, settled_classifier
from pipeline.config import P_LABELS, variant
from pipeline.nets.build import build_slice_classifier
from pipeline.runs import recipe

SETTINGS = variant(recipe("tiny").settings, **{"train.batch": 8, "embed.batch": 8, "train.brightness_chance": 1})
CPU = torch.device("cpu")
ANY = Target("least", 1)


@pytest.fixture(scope="module")
def png_paths(tmp_path_factory) -> list[str]:
    return write_pngs(tmp_path_factory.mktemp("png"), SETTINGS.view, 20)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return as_batch(phantom_images(SETTINGS.view, 20))


def test_the_loaders_are_measured_once_they_give_the_same(png_paths):
    row = loader.loader_row(png_paths, SETTINGS, workers=1, rounds=1)
    assert row.value > 1
    assert row.baseline > 1
    assert row.target == Target("times", 0.9)
    ours, plain = loader.loaders(png_paths, SETTINGS, workers=0)
    assert len(list(ours)) == len(list(plain)) == 2
    plain.sampler.set_epoch(1)
    with pytest.raises(ValueError, match="batch 0: the loaders give different images or labels"):
        loader.check_same_batches(ours, plain)


def test_steps_fed_by_the_loader_are_compared_with_those_on_batches_at_hand(png_paths):
    steps = TrainingSteps(build_slice_classifier(SETTINGS, pretrained=False), SETTINGS.train, CPU)
    assert 0.01 < loader.fed_share(steps, loader.loaders(png_paths, SETTINGS, workers=0)[0], rounds=1) < 3


@pytest.mark.parametrize("optimiser", ["fused", "plain"])
def test_steps_in_mixed_precision_and_in_32_bits_are_the_same_training(optimiser, images):
    networks = [build_slice_classifier(SETTINGS, pretrained=False) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    batches = network_on_device.labelled_batches(images, 8, CPU, 3)
    assert [len(labels) for _, labels in batches] == [8, 8, 8]
    ours = TrainingSteps(networks[0], SETTINGS.train, CPU, is_fused=optimiser == "fused").run(batches)
    plain = StraightforwardSteps(networks[1], SETTINGS.train, CPU).run(batches)
    assert ours.item() == pytest.approx(plain.item(), rel=0.02)
    assert ours.item() != plain.item()
    before = build_slice_classifier(SETTINGS, pretrained=False)
    before.load_state_dict(networks[1].state_dict())
    for trained in networks:
        assert all(torch.isfinite(weights).all() for weights in trained.parameters())
    StraightforwardSteps(networks[1], SETTINGS.train, CPU).run(batches)
    assert not torch.equal(before.head.weight, networks[1].head.weight)


def test_training_and_embedding_are_measured_on_whatever_device(png_paths, images, tmp_path):
    rows = network_on_device.training_rows(SETTINGS, images, CPU, 1, 1, ("training", Target("times", 4), ANY))
    assert [row.target for row in rows] == [Target("times", 4), ANY]
    assert rows[0].value == rows[1].value > 1
    rows = [network_on_device.stage_row(SETTINGS, png_paths, tmp_path, 0, (1, 16))]
    classifier = settled_classifier(SETTINGS, images, CPU, 1.0)
    rows.append(network_on_device.embed_row("embed", classifier, SETTINGS, png_paths, CPU, 0, 1, ANY))
    rows.append(network.cpu_embed_row("embed", SETTINGS, 20, 1, None))
    assert all(row.value > 0 for row in rows)


def test_a_way_that_fails_leaves_a_row_that_says_so():
    def rate() -> float:
        raise torch.OutOfMemoryError("out of\nmemory")

    row = network_on_device.tried_row("large", rate)
    assert row.cells()[3] == NOT_MEASURED
    assert row.note == "out of memory"


def test_probabilities_that_differ_or_change_places_are_seen():
    expected = np.random.default_rng(0).random((200, 6))
    check_probabilities(expected + 0.005, expected, 0.01)
    with pytest.raises(ValueError, match="probabilities differ by 0.02, may by 0.01"):
        check_probabilities(expected + 0.02, expected, 0.01)
    with pytest.raises(ValueError, match="probabilities differ by nan"):
        check_probabilities(expected * np.nan, expected, 0.01)
    close = 0.5 + expected / 1000
    with pytest.raises(ValueError, match="their rank correlation is -?0.[01]"):
        check_probabilities(close[::-1], close, 0.01)


def test_a_settled_network_tells_slices_apart(images):
    classifier = settled_classifier(SETTINGS, images, CPU, 0.5)
    assert not classifier.training
    with torch.inference_mode():
        logits = classifier(images)[1]
    torch.testing.assert_close(logits.mean(dim=0), torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(logits.std(dim=0), torch.full((6,), 0.5), rtol=1e-3, atol=0)


def test_one_scan_in_memory_is_what_the_stages_make_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with contextlib.chdir(tmp_path):
        system, staged = scan.staged_scan("tiny")
        paths = staged["path"].tolist()
        assert len(paths) == scan.SLICES
        found = scan.predict_scan(system, paths[::-1])
        scan.check_alike(found, staged)
        with pytest.raises(ValueError, match="the slices come in another order"):
            scan.check_alike(found[::-1], staged)
        with pytest.raises(ValueError, match="probabilities in memory differ from the stages' by"):
            scan.check_alike(found, staged.assign(p_any=staged["p_any"] + 0.01))
        with pytest.raises(ValueError, match="spread by 0 only"):
            scan.check_alike(found, staged.assign(**dict.fromkeys(P_LABELS, 0.5)))


def test_the_start_is_measured_up_to_the_first_line(tmp_path):
    assert 0.01 < start.seconds_to_help(str(tmp_path)) < 10
    assert 0.01 < start.seconds_to_first_line("split", str(tmp_path)) < 10
    with pytest.raises(RuntimeError, match="plan: its first line is"):
        start.seconds_to_first_line("plan", str(tmp_path))


def test_rows_that_need_a_gpu_are_not_measured_without_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(network, "cpu_embed_row", lambda name, *_given: name)
    rows = network.rows()[2:]
    assert [row.cells()[3] for row in rows] == [NOT_MEASURED] * 3
    assert [row.target.bound for row in rows] == [4, 1012, 4000]


def test_images_are_written_as_the_stage_writes_them(png_paths):
    assert len(set(png_paths)) == 20
    first = phantom_images(SETTINGS.view, 1)[0]
    assert first.shape == (32, 32, 3)
    assert Path(png_paths[0]).read_bytes()[:4] == b"\x89PNG"
