"""What only a GPU shows: mixed precision agrees with the CPU's 32 bits, and training runs there."""

import cv2
import numpy as np
import pytest
import torch

from pipeline.config import recipe, variant
from pipeline.learn.inference import embed_slices
from pipeline.learn.modules import SliceModule
from pipeline.learn.slice_data import SliceImages, augmentation, slice_loader
from pipeline.learn.trainer import fit
from pipeline.nets.build import build_slice_classifier

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
