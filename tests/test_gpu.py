"""What only a GPU shows: mixed precision agrees with the CPU's 32 bits, and training runs there."""

import cv2
import numpy as np
import pytest
import torch

from benchmarks import network_on_device
from benchmarks.comparison import Target
from benchmarks.loader import fed_share, loaders
from benchmarks.phantom_pngs import phantom_images, write_pngs
from benchmarks.training_steps import TrainingSteps
from benchmarks.untrained import as_batch, settled_classifier
from pipeline.config import variant
from pipeline.learn.inference import embed_slices
from pipeline.learn.modules import SliceModule
from pipeline.learn.slice_data import SliceImages, augmentation, slice_loader
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_slice_classifier
from pipeline.runs import recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

SETTINGS = variant(recipe("quickstart").settings, **{"train.batch": 8})


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("png")
    rng = np.random.default_rng(0)
    for index in range(32):
        cv2.imwrite(str(folder / f"{index:02}.png"), rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    return sorted(map(str, folder.iterdir()))


def test_mixed_precision_gives_the_probabilities_of_32_bits_on_a_cpu(images, monkeypatch):
    torch.manual_seed(0)
    network = build_slice_classifier(SETTINGS, pretrained=False)
    loader = slice_loader(SliceImages(images, images), 16, 0, shuffle=False)
    on_gpu = np.concatenate([p for _, p in embed_slices(network, loader)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = np.concatenate([p for _, p in embed_slices(network.cpu(), loader)])
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-2)


def test_training_in_mixed_precision_leaves_finite_32_bit_weights(images, tmp_path):
    labels = np.random.default_rng(1).integers(0, 2, (32, 6)).astype(np.float32)
    network = build_slice_classifier(SETTINGS, pretrained=False)
    module = SliceModule(network, [1e-3], [1.0] * 6, (0, 0))
    train = slice_loader(SliceImages(images, images, labels, augmentation(SETTINGS.train), (0, 0)), 8, 2, shuffle=True)
    validation = slice_loader(SliceImages(images, images, labels), 8, 2, shuffle=False)
    outcome = fit(module, train, validation, 1, tmp_path, {}, force=False)
    assert outcome["precision"] in ("bf16-mixed", "16-mixed")
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in network.parameters())


def test_batches_come_back_in_order_though_the_gpu_runs_ahead(images):
    torch.manual_seed(0)
    network = build_slice_classifier(SETTINGS, pretrained=False)
    one = next(embed_slices(network, slice_loader(SliceImages(images, images), 32, 0, shuffle=False)))
    four = list(embed_slices(network, slice_loader(SliceImages(images, images), 8, 2, shuffle=False)))
    assert [len(embeddings) for embeddings, _ in four] == [8, 8, 8, 8]
    for together, apart in zip(one, zip(*four, strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(apart), together, rtol=2e-2, atol=2e-2)


def test_on_a_gpu_the_optimiser_is_the_fused_one_and_steps_as_the_plain_one_does():
    network = torch.nn.Linear(40, 6).cuda()
    plain = torch.nn.Linear(40, 6).cuda()
    plain.load_state_dict(network.state_dict())
    fused = SliceModule(network, [1e-3], [1.0] * 6, (0,)).configure_optimizers()["optimizer"]
    assert fused.param_groups[0]["fused"]
    inputs = torch.randn(8, 40, device="cuda")
    for layer, optimizer in ((network, fused), (plain, torch.optim.Adam(plain.parameters(), lr=1e-3))):
        for _ in range(10):
            optimizer.zero_grad()
            layer(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(network.weight, plain.weight, rtol=0, atol=1e-5)


def test_the_benchmark_of_networks_runs_on_a_gpu(tmp_path):
    cuda, any_rate = torch.device("cuda"), Target("least", 1)
    batch = as_batch(phantom_images(SETTINGS.view, 32))
    paths = write_pngs(tmp_path, SETTINGS.view, 32)
    rows = network_on_device.training_rows(SETTINGS, batch, cuda, 2, 1, ("x", Target("times", 1), any_rate))
    network = settled_classifier(SETTINGS, batch, cuda, 0.1)
    rows.append(network_on_device.embed_row("x", network, SETTINGS, paths, cuda, 2, 1, any_rate))
    rows.append(network_on_device.stage_row(SETTINGS, paths, tmp_path / "runs", 2, (1, 16)))
    assert all(row.value > 0 for row in rows)
    steps = TrainingSteps(build_slice_classifier(SETTINGS, pretrained=False), SETTINGS.train, cuda)
    assert fed_share(steps, loaders(paths, SETTINGS, 2)[0], rounds=1) > 0
