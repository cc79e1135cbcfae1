"""Training: loss by hand, order and augmentation that depend on (seed, fold, epoch, slice) alone, exact resuming."""

import itertools
import math
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.config import Train, UserError, variant
from pipeline.core.metrics import weighted_log_loss
from pipeline.learn.devices import choose_gpu, precision
from pipeline.learn.inference import (
    CPU_CHUNK_PIXELS,
    embed_slices,
    inference_network,
    predict_scans,
    run_slices,
)
from pipeline.learn.modules import VALIDATION_SCORE, ScanModule, SliceModule
from pipeline.learn.sampler import EpochSampler
from pipeline.learn.scan_data import Scans, scan_loader
from pipeline.learn.seeds import seed_of
from pipeline.learn.slice_data import SliceImages, augmentation, read_png, seed_augmentation, slice_loader
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_slice_classifier
from pipeline.nets.scan_bilstm import ScanBiLSTM
from pipeline.runs import recipe

SETTINGS = variant(recipe("tiny").settings, **{"train.batch": 8})
STRONG = Train(flip=0.5, shift=0.2, rotate_deg=30, scale=0.2, brightness=0.3, affine_chance=1, brightness_chance=1)


@pytest.fixture(scope="module")
def png_paths(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("png")
    rng = np.random.default_rng(3)
    paths = []
    for index in range(21):
        image = np.zeros((32, 32, 3), dtype=np.uint8)
        image[4 + index % 9 : 20, 5:25] = rng.integers(40, 255, 3)
        paths.append(str(folder / f"{index:02}.png"))
        cv2.imwrite(paths[-1], image)
    return paths


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    five = (np.random.default_rng(4).random((21, 5)) < 0.3).astype(np.float32)
    return np.column_stack([five, five.max(axis=1)])


def images_of(paths, labels=None, augment=None, seed=(0, 0)):
    return SliceImages(paths, [Path(p).stem for p in paths], labels, augment, seed)


def test_the_loss_is_the_binary_cross_entropy_summed_over_labels_and_averaged_over_slices():
    module = SliceModule(torch.nn.Linear(1, 1), [1e-3], [1.0] * 6, (0,))
    # A logit of 0 costs ln 2 a label; a logit of ln 3 says 3/4, which costs ln 4/3 where true and ln 4 where not.
    logits = torch.zeros(2, 6)
    logits[1, :2] = math.log(3)
    labels = torch.zeros(2, 6)
    labels[1, 0] = 1
    expected = (6 * math.log(2) + math.log(4 / 3) + math.log(4) + 4 * math.log(2)) / 2
    assert module.loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    weighted = SliceModule(torch.nn.Linear(1, 1), [1e-3], [1.0] * 5 + [2.0], (0,))
    assert weighted.loss(logits, labels).item() == pytest.approx(expected + math.log(2), rel=1e-6)


def test_learning_rates_are_as_written_and_the_last_one_holds():
    module = SliceModule(torch.nn.Linear(1, 1), [1e-4, 1e-4, 2e-5], [1.0] * 6, (0,))
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1e-4, 1e-4, 2e-5, 2e-5, 2e-5])
    assert isinstance(optimizer, torch.optim.Adam)


def test_a_cached_image_is_read_as_red_green_blue(tmp_path):
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[1, 2] = (10, 20, 30)
    cv2.imwrite(str(tmp_path / "x.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    np.testing.assert_array_equal(read_png(tmp_path / "x.png"), image)
    tensor, _ = images_of([str(tmp_path / "x.png")])[(0, 0)]
    assert tensor.shape == (3, 4, 6)
    assert tensor[:, 1, 2].tolist() == [10, 20, 30]


def test_a_missing_or_broken_image_says_how_to_redo_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x.png: a cached image is missing; redo it with `make window"):
        read_png(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"x.png: a cached image cannot be decoded"):
        read_png(tmp_path / "x.png")


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    first = order((0, 1), 3)
    np.random.random(3)  # noqa: NPY002 - the global state is what must not matter
    assert order((0, 1), 3) == first
    assert [epoch for epoch, _ in first] == [3] * 50
    assert sorted(index for _, index in first) == list(range(50))
    assert [i for _, i in order((0, 1), 4)] != [i for _, i in first]
    assert [i for _, i in order((0, 2), 3)] != [i for _, i in first]
    assert order(None, 0) == [(0, i) for i in range(50)]


def test_augmentation_belongs_to_seed_fold_epoch_and_slice_and_leaves_the_global_state_alone(png_paths):
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 - the state to be left alone
    images = images_of(png_paths, augment=augmentation(STRONG), seed=(0, 1))
    image, _ = images[(2, 5)]
    _ = images[(2, 6)], images[(3, 5)]
    assert torch.equal(images[(2, 5)][0], image)
    assert torch.equal(images_of(png_paths[5:], augment=augmentation(STRONG), seed=(0, 1))[(2, 0)][0], image)
    assert not torch.equal(images[(3, 5)][0], image)
    assert not torch.equal(images_of(png_paths, augment=augmentation(STRONG), seed=(0, 2))[(2, 5)][0], image)
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    ("train", "moves"),
    [
        (Train(flip=1.0), lambda image: image[:, ::-1]),
        (Train(), lambda image: image),
    ],
)
def test_augmentations_that_can_be_checked_by_eye(train, moves, png_paths):
    image = read_png(Path(png_paths[0]))
    augmented, _ = images_of(png_paths, augment=augmentation(train))[(0, 0)]
    np.testing.assert_array_equal(augmented.numpy().transpose(1, 2, 0), moves(image))


def test_flip_affine_and_brightness_come_independently_of_each_other():
    halves = {"flip": 0.5, "affine_chance": 0.5, "brightness_chance": 0.5}
    augment = augmentation(Train(**halves, shift=0.2, brightness=0.1))
    image = np.full((32, 32, 3), 100, np.uint8)
    image[:, 16:] = 200  # brightened or not, dark is only what comes from outside
    draws = 800
    combinations = dict.fromkeys(itertools.product((False, True), repeat=3), 0)
    for seed in range(draws):
        seed_augmentation(augment, seed)
        found = augment(image=image)["image"]
        is_flipped = found[:, :16].sum() > found[:, 16:].sum()
        combinations[is_flipped, (found < 50).any(), found.max() != 200] += 1
    for combination, times in combinations.items():
        # An eighth each, within five standard deviations.
        assert abs(times - draws / 8) < 5 * (draws / 8 * 7 / 8) ** 0.5, combination


def test_order_and_seeds_are_those_of_runs_before():
    assert seed_of(0, 1, 2, 5) == 1501125226
    sampler = EpochSampler(10, (0, 1))
    sampler.set_epoch(3)
    assert [index for _, index in sampler] == [8, 3, 2, 7, 0, 4, 1, 6, 9, 5]


def test_a_batch_holds_what_decoding_and_augmenting_one_slice_after_the_other_gives(png_paths, labels):
    images, augment = images_of(png_paths, labels, augmentation(STRONG), seed=(3, 1)), augmentation(STRONG)
    keys = [(2, 7), (2, 0), (4, 7)]
    batch, batch_labels = images.__getitems__(keys)
    assert batch.shape == (3, 3, 32, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch_labels.numpy(), labels[[7, 0, 7]])
    for image, (epoch, index) in zip(batch, keys, strict=True):
        seed_augmentation(augment, seed_of(3, 1, epoch, zlib.crc32(f"{index:02}".encode())))
        expected = augment(image=cv2.imread(png_paths[index])[:, :, ::-1])["image"]
        np.testing.assert_array_equal(image.numpy().transpose(1, 2, 0), expected)


def test_images_travel_as_bytes_and_outside_training_as_they_are(png_paths, labels):
    loader = slice_loader(images_of(png_paths, labels), batch=8, workers=0, shuffle=False)
    batches = list(loader)
    assert [len(images) for images, _ in batches] == [8, 8, 5]
    assert batches[0][0].dtype == torch.uint8
    np.testing.assert_array_equal(torch.cat([y for _, y in batches]).numpy(), labels)
    for path, image in zip(png_paths, torch.cat([x for x, _ in batches]), strict=True):
        np.testing.assert_array_equal(image.numpy().transpose(1, 2, 0), read_png(Path(path)))


def test_workers_change_nothing(png_paths, labels):
    def batches(workers):
        images = images_of(png_paths, labels, augmentation(STRONG))
        loader = slice_loader(images, 8, workers, shuffle=True)
        loader.sampler.set_epoch(1)
        return [torch.cat([x.flatten().float(), y.flatten()]) for x, y in loader]

    here, elsewhere = batches(0), batches(2)
    assert len(here) == 2  # 21 slices, the last batch of 5 is dropped
    for one, other in zip(here, elsewhere, strict=True):
        assert torch.equal(one, other)


JOB = {"settings": {"train": {"learning_rates": (1e-3, 1e-4)}}, "threads": 1}
"""As stages give it: with tuples, which JSON does not know."""


def train_slices(paths, labels, folder, epochs, job=None, force=False, workers=0):
    torch.manual_seed(0)
    network = build_slice_classifier(SETTINGS, pretrained=False)
    module = SliceModule(network, [1e-3, 1e-4], [1.0] * 6, (0, 0))
    train = slice_loader(images_of(paths, labels, augmentation(STRONG)), 8, workers, shuffle=True)
    validation = slice_loader(images_of(paths, labels), 8, 0, shuffle=False)
    outcome = fit(module, train, validation, epochs, folder, job or JOB, force)
    return network.state_dict(), outcome


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_ends_with_the_same_weights_as_an_uninterrupted_one(workers, png_paths, labels, tmp_path):
    whole, _ = train_slices(png_paths, labels, tmp_path / "whole", 3)
    train_slices(png_paths, labels, tmp_path / "cut", 1, workers=workers)
    resumed, outcome = train_slices(png_paths, labels, tmp_path / "cut", 3, workers=workers)
    assert outcome["resumed"]
    assert (outcome["epochs"], outcome["epochs_run"]) == (3, 2)
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_training_that_diverges_stops_before_its_weights_are_kept(tmp_path):
    data = Scans(np.full((9, 4), np.inf), np.zeros((9, 6)), np.ones((9, 6)), np.array([0, 9]))
    module = ScanModule(ScanBiLSTM(4, 6, 1, 0.0, True), [0.01], [1.0] * 6, (3, 1))
    loader = scan_loader(data, 1, None)
    with pytest.raises(UserError, match=r"diverged in epoch 1: \S+ is no longer finite at a learning rate of 0.01"):
        fit(module, loader, loader, 2, tmp_path, JOB, False)
    assert not list(tmp_path.glob("*.ckpt"))


def test_dropout_too_goes_on_as_if_it_had_not_been_cut_off(tmp_path):
    rng = np.random.default_rng(0)
    data = Scans(rng.normal(size=(40, 4)), rng.random((40, 6)), rng.integers(0, 2, (40, 6)), np.array([0, 9, 25, 40]))

    def train(folder, epochs):
        torch.manual_seed(5)
        network = ScanBiLSTM(4, 6, 2, 0.5, True)
        module = ScanModule(network, [1e-2], [1.0] * 6, (3, 1))
        fit(module, scan_loader(data, 1, (3, 1)), scan_loader(data, 2, None), epochs, folder, JOB, False)
        return network.state_dict()

    whole = train(tmp_path / "whole", 3)
    train(tmp_path / "cut", 2)
    resumed = train(tmp_path / "cut", 3)
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.parametrize(("job", "force"), [({**JOB, "threads": 2}, False), (JOB, True)])
def test_another_job_or_force_begins_anew(job, force, png_paths, labels, tmp_path):
    train_slices(png_paths, labels, tmp_path / "run", 1)
    (tmp_path / "run" / "left.txt").write_text("of the first job")
    _, outcome = train_slices(png_paths, labels, tmp_path / "run", 1, job, force)
    assert not outcome["resumed"]
    assert not (tmp_path / "run" / "left.txt").exists()


def test_validation_shows_the_score_that_submissions_are_judged_by(png_paths, labels, tmp_path):
    state, outcome = train_slices(png_paths, labels, tmp_path / "run", 1)
    network = build_slice_classifier(SETTINGS, pretrained=False)
    network.load_state_dict(state)
    loader = slice_loader(images_of(png_paths), 5, 0, shuffle=False)
    probabilities = np.concatenate([p for _, p in embed_slices(network, loader)])
    assert probabilities.dtype == np.float64
    assert outcome[VALIDATION_SCORE] == pytest.approx(weighted_log_loss(labels, probabilities), rel=1e-5)
    logged = (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text()
    assert VALIDATION_SCORE in logged
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_folds_take_turns_with_the_gpus(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for fold in range(5):
        choose_gpu(fold)
    assert chosen == [0, 1, 0, 1, 0]
    assert torch.backends.cudnn.benchmark
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choose_gpu(1)
    assert len(chosen) == 5


@pytest.mark.parametrize(
    ("gpu", "bf16", "expected"),
    [(False, False, "32-true"), (True, True, "bf16-mixed"), (True, False, "16-mixed")],
)
def test_precision_follows_the_machine(gpu, bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert precision() == expected


def test_embeddings_are_half_precision_and_finite_even_where_an_activation_runs_away(png_paths):
    network = build_slice_classifier(SETTINGS, pretrained=False)
    with torch.no_grad():
        network.encoder.layer4[-1].bn2.bias.fill_(1e6)
    embeddings, probabilities = next(embed_slices(network, slice_loader(images_of(png_paths), 4, 0, shuffle=False)))
    assert embeddings.dtype == np.float16
    assert embeddings.max() == np.finfo(np.float16).max
    assert probabilities.shape == (4, 6)


def test_scans_are_predicted_in_the_order_of_their_slices():
    torch.manual_seed(0)
    network = ScanBiLSTM(3, 4, 1, 0.0, True)
    rng = np.random.default_rng(0)
    features, chances, bounds = rng.normal(size=(12, 3)), rng.random((12, 6)), np.array([0, 5, 6, 12])
    data = Scans(features, chances, np.zeros((12, 6)), bounds)
    together = predict_scans(network, scan_loader(data, 3, None))
    for start, stop in itertools.pairwise(bounds):
        part = Scans(features[start:stop], chances[start:stop], np.zeros((12, 6)), np.array([0, stop - start]))
        np.testing.assert_allclose(predict_scans(network, scan_loader(part, 1, None)), together[start:stop], atol=1e-6)


def test_slices_embed_the_same_whatever_goes_through_the_network_together(png_paths, monkeypatch):
    torch.manual_seed(0)
    network = build_slice_classifier(SETTINGS, pretrained=False)
    with torch.no_grad():  # statistics that are not those of a new network, and far from them
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 2)
    images, _ = images_of(png_paths).__getitems__([(0, index) for index in range(21)])
    with torch.inference_mode():
        plain_embeddings, plain_logits = network.eval()(images)
    for chunk in (1, 4, 100):
        monkeypatch.setattr("pipeline.learn.inference.CPU_CHUNK_PIXELS", chunk * 32 * 32 + 5)
        counts = []
        hook = network.register_forward_pre_hook(lambda _module, given, seen=counts: seen.append(len(given[0])))
        embeddings, logits = run_slices(network, images)
        hook.remove()
        assert counts == [min(chunk, 21 - start) for start in range(0, 21, chunk)]
        torch.testing.assert_close(embeddings, plain_embeddings, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, plain_logits, rtol=1e-4, atol=1e-5)
    loader = slice_loader(images_of(png_paths), 8, 0, shuffle=False)
    embeddings, probabilities = (np.concatenate(parts) for parts in zip(*embed_slices(network, loader), strict=True))
    np.testing.assert_allclose(embeddings, plain_embeddings.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(probabilities, plain_logits.double().sigmoid().numpy(), atol=1e-5)


def test_normalisations_are_folded_and_the_network_stays_what_it_was():
    network = build_slice_classifier(SETTINGS, pretrained=False)
    quick = inference_network(network, torch.device("cpu"))
    kinds = [[isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()] for net in (network, quick)]
    assert any(kinds[0])
    assert not any(kinds[1])
    assert next(quick.encoder.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_an_image_larger_than_a_chunk_goes_through_alone():
    seen = []

    def network(images):
        seen.append(len(images))
        return images.float().mean((2, 3)), images.float().mean((2, 3))

    side = int(CPU_CHUNK_PIXELS**0.5) + 1
    run_slices(network, torch.zeros((3, 3, side, side), dtype=torch.uint8))
    assert seen == [1, 1, 1]


def test_the_fused_optimiser_steps_as_the_plain_one_does():
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2)]
    optimizers = [torch.optim.Adam([w], lr=1e-3, fused=fused) for w, fused in zip(weights, (True, None), strict=True)]
    for step in range(20):
        for parameter, optimizer in zip(weights, optimizers, strict=True):
            parameter.grad = torch.sin(torch.arange(50.0) + step)
            optimizer.step()
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)


def test_on_a_cpu_the_optimiser_is_not_the_fused_one():
    module = SliceModule(torch.nn.Linear(1, 1), [1e-4], [1.0] * 6, (0,))
    assert not module.configure_optimizers()["optimizer"].param_groups[0]["fused"]
