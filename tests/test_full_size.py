"""Every published network at its full size: steps of its training on an image or two, as a GPU would take many.

The data sets that these recipes are for are not at hand; that they run at all is seen here, and their numbers of
parameters are pinned, with their sums, beside each system's tests.
"""

import pytest
import torch

from pipeline.config import Settings
from pipeline.learn.binary_modules import BinaryModule, BinarySliceModule, rmsprop
from pipeline.learn.box_training import BoxModule
from pipeline.learn.dense_training import DenseModule
from pipeline.learn.modules import NetworkModule, ScanModule, SliceModule
from pipeline.nets.build import (
    build_densenet,
    build_end_to_end,
    build_mask_rcnn,
    build_sequence,
    build_slice_classifier,
    build_summed_bilstm,
    build_vgg,
)
from pipeline.runs import recipe

SEED = (0, 0)
FEATURES = 120
"""What burduja2020 leaves of an embedding."""


def slices(settings: Settings) -> tuple[NetworkModule, tuple]:
    """Two slices in three windows, six labels each; weights are drawn, for there are none to be had."""
    network = build_slice_classifier(settings, pretrained=False)
    side = settings.view.size
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    module = SliceModule(network, settings.train.learning_rates, settings.train.loss_weights, SEED)
    return module, (images, torch.eye(6)[:2])


def context(settings: Settings) -> tuple[NetworkModule, tuple]:
    """One scan of 35 slices."""
    network = build_sequence(settings, FEATURES)
    module = ScanModule(network, settings.sequence.learning_rates, settings.sequence.loss_weights, SEED)
    return module, ([torch.randn(35, FEATURES)], [torch.rand(35, 6)], [torch.ones(35, 6)])


def run(settings: Settings) -> tuple[NetworkModule, tuple]:
    """One run of neighbouring slices with masks."""
    module = DenseModule(build_densenet(settings), settings.train, settings.dense, SEED)
    hu, blood = hu_and_mask(settings.dense.run_slices, settings.view.size)
    return module, (hu[None], torch.ones(1, len(hu)), blood[None].float())


def vectors(settings: Settings) -> tuple[NetworkModule, tuple]:
    """Two scans of 512 values a slice."""
    network = build_summed_bilstm(settings, settings.volume.features)
    scans = [torch.randn(30, settings.volume.features), torch.randn(12, settings.volume.features)]
    return BinaryModule(network, settings.sequence.learning_rates, SEED, rmsprop), (scans, torch.tensor([0.0, 1.0]))


def filtered(settings: Settings) -> tuple[NetworkModule, tuple]:
    """Two slices behind the maximum filter."""
    hu, _ = hu_and_mask(2, settings.view.size // 2)
    module = BinarySliceModule(build_vgg(settings), settings.train.learning_rates, SEED)
    return module, (hu[:, None], torch.tensor([0.0, 1.0]))


def scan(settings: Settings) -> tuple[NetworkModule, tuple]:
    """A scan that is longer than a chunk."""
    hu, _ = hu_and_mask(settings.endtoend.chunk_slices + 2, settings.view.size // 2)
    network = build_end_to_end(settings)
    return BinaryModule(network, settings.endtoend.learning_rates, SEED, rmsprop), ([hu[:, None]], torch.ones(1))


def slab(settings: Settings) -> tuple[NetworkModule, tuple]:
    """A slab, and one lesion in its middle slice."""
    hu, blood = hu_and_mask(settings.boxes.slab_slices, settings.view.size)
    y, x = torch.nonzero(blood[0], as_tuple=True)
    box = torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1]], dtype=torch.float32)
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": blood[:1].to(torch.uint8)}
    train = settings.train
    module = BoxModule(build_mask_rcnn(settings), train.learning_rates, SEED, train.weight_decay, train.plateau_epochs)
    return module, (hu[None], [target])


def hu_and_mask(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return slices (count, y, x) of brain with a disc of blood, int16 in HU, and where that is."""
    place = torch.arange(side) / side - 0.4
    blood = (place[:, None] ** 2 + place**2 < 0.01).expand(count, side, side)
    return (30 + 5 * torch.randn(count, side, side) + 40 * blood).to(torch.int16), blood


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("burduja2020", slices), ("burduja2020", context), ("grewal2018", run), ("murphy2021", slices),
        ("murphy2021-resnet18", slices), ("patel2019", filtered), ("patel2019", vectors), ("patel2019", scan),
        ("chang2018", slab),
    ],
)  # fmt: skip
def test_two_steps_of_training_at_full_size_move_every_weight(name, made):
    torch.manual_seed(0)
    module, batch = made(recipe(name).settings)
    module.log = lambda *_args, **_kwargs: None
    optimizer = module.configure_optimizers()["optimizer"]
    learned = {key: weight for key, weight in module.network.named_parameters() if weight.requires_grad}
    before = {key: weight.detach().clone() for key, weight in learned.items()}
    module.network.train()
    for _ in range(2):  # timm's residual branches begin at 0: in the first step nothing behind that learns
        optimizer.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    still = [key for key, weight in learned.items() if torch.equal(weight, before[key])]
    assert not still
    assert all(torch.isfinite(weight).all() for weight in learned.values())
