"""Batch normalisation folded into convolutions: the same outputs, whatever the encoder, and nothing folded wrongly."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from pipeline.nets.folded import folded


def with_statistics(network: nn.Module) -> nn.Module:
    """Return a network whose normalisations do something of their own, each."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return network.eval()


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("encoder", "before", "after"),
    [
        ("resnet14t", 19, 0),
        ("resnet10t", 14, 0),
        ("resnext50_32x4d", 53, 0),
        # Half of them stand before a convolution, behind a concatenation, and there they stay.
        ("densenet121", 121, 62),
        # Convolutions that pad by the size of what they get, normalisations with an activation inside.
        ("tf_efficientnet_b0", 49, 0),
        ("test_efficientnet", 13, 0),
        ("regnetx_002", 44, 0),
        ("convnext_atto", 0, 0),
        # Convolutions that standardise their weights are left alone.
        ("resnetv2_50d_evos", 0, 0),
    ],
)
def test_an_encoder_gives_what_it_gave(encoder, before, after):
    torch.manual_seed(0)
    network = with_statistics(timm.create_model(encoder, num_classes=0))
    kept = copy.deepcopy(network.state_dict())
    quick = folded(network)
    assert (normalisations(network), normalisations(quick)) == (before, after)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = network(images), quick(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, kept[name]), name


class Block(nn.Module):
    """Two convolutions and two normalisations, of which subclasses make what must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 1)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)


class UsedTwice(Block):
    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        return self.norm(features) + features


class SharedNormalisation(Block):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.second(self.norm(self.first(images))))


class SharedConvolution(Block):
    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        return self.norm(self.second(features)) + self.other(self.second(2 * features))


class NormalisationFirst(Block):
    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.norm(self.first(images).relu()))


class BatchStatistics(Block):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.first(images))


class Untraceable(Block):
    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.first(images))
        return features if features.sum() > 0 else -features


class Standardised(Block):
    def __init__(self) -> None:
        super().__init__()
        self.first = timm.layers.StdConv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.first(images))


@pytest.mark.parametrize(
    "block",
    [
        UsedTwice,
        SharedNormalisation,
        SharedConvolution,
        NormalisationFirst,
        BatchStatistics,
        Untraceable,
        Standardised,
    ],
)
def test_what_cannot_be_folded_is_left_alone(block):
    torch.manual_seed(2)
    network = block()
    for module in (network.norm, network.other):
        if module.track_running_stats:
            with_statistics(module)
    network.eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(folded(network)(images), network(images))
