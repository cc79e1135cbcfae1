"""A feature pyramid that contracts in 3D and expands in 2D: a slab of slices in, maps of its middle slice out."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

NARROWING = 4
"""A bottleneck's 3x3x3 convolution sees a quarter of the channels (He et al., Deep residual learning, 2015)."""


def slab_depths(slices: int, levels: int) -> list[int]:
    """Return how many slices each level still has: evenly fewer from level to level, one at the last."""
    return [slices - (slices - 1) * (level + 1) // levels for level in range(levels)]


def layer3d(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Sequential:
    """Return a 3D convolution, batch normalisation and ReLU; kernels of odd length are padded, even ones are not."""
    padding = tuple(length // 2 if length % 2 else 0 for length in kernel)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
    )


class Bottleneck3d(nn.Module):
    """A residual bottleneck: 1x1x1, 3x3x3 and 1x1x1 convolutions added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // NARROWING
        self.layers = nn.Sequential(
            layer3d(channels, narrow, (1, 1, 1), (1, 1, 1)),
            layer3d(narrow, narrow, (3, 3, 3), (1, 1, 1)),
            nn.Conv3d(narrow, channels, 1, bias=False),
            nn.BatchNorm3d(channels),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return features of the shape of what comes in, (images, channels, z, y, x)."""
        return torch.relu(images + self.layers(images))


class HybridPyramid(nn.Module):
    """Bottom-up path of 3D bottlenecks, top-down path of 2D maps, joined by projections.

    In the plane, 1x2x2 convolutions with as wide a stride halve each level's maps; along z, 2x1x1 convolutions without
    padding take a slice away each, until the last level has one. A lateral projection is a convolution over all slices
    that a level has left: it matches slices and channels of the map of the level above, to which it is added. Weights
    are drawn as He et al. 2015 do. Source: Chang et al. 2018, Convolutional Neural Network, and Fig. 2.

    `out_channels` is what torchvision asks of a backbone; `names` are the maps', the finest first.
    """

    def __init__(self, slab_slices: int, filters: int, blocks: int, levels: int, stride_px: int, channels: int) -> None:
        super().__init__()
        if filters % NARROWING:
            raise ValueError(f"{filters} filters: a bottleneck keeps a quarter, give a multiple of {NARROWING}")
        if stride_px < 2 or stride_px & (stride_px - 1):
            raise ValueError(f"a finest stride of {stride_px} pixels: give 2, 4, 8, ...")
        self.out_channels = channels
        self.names = tuple(str(level) for level in range(levels))
        self.stem = layer3d(1, filters, (3, 3, 3), (1, 2, 2))
        self.levels, self.projections, self.smoothings = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        # The stem halves once; what is left to the finest stride is the first level's.
        inputs, depth, halvings = filters, slab_slices, stride_px.bit_length() - 2
        for level, next_depth in enumerate(slab_depths(slab_slices, levels)):
            outputs = filters * 2**level
            layers: list[nn.Module] = []
            for kernel in [(1, 2, 2)] * halvings + [(2, 1, 1)] * (depth - next_depth):
                layers.append(layer3d(inputs, outputs, kernel, (1, *kernel[1:])))
                inputs = outputs
            self.levels.append(nn.Sequential(*layers, *(Bottleneck3d(outputs) for _ in range(blocks))))
            self.projections.append(nn.Conv3d(outputs, channels, (next_depth, 1, 1)))
            self.smoothings.append(nn.Conv2d(channels, channels, 3, padding=1))
            depth, halvings = next_depth, 1
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, slabs: Tensor) -> "OrderedDict[str, Tensor]":
        """Return maps (images, channels, y / stride, x / stride) by name, the finest first.

        slabs: (images, slices, y, x); y and x multiples of the coarsest stride.
        """
        features = self.stem(slabs[:, None])  # (images, filters, z, y / 2, x / 2)
        lateral = []
        for level, projection in zip(self.levels, self.projections, strict=True):
            features = level(features)
            lateral.append(projection(features)[:, :, 0])
        merged = lateral[-1]
        maps = [merged]
        for finer in reversed(lateral[:-1]):
            merged = finer + interpolate(merged, scale_factor=2.0, mode="nearest")
            maps.insert(0, merged)
        return OrderedDict(
            (name, smoothing(own)) for name, smoothing, own in zip(self.names, self.smoothings, maps, strict=True)
        )
