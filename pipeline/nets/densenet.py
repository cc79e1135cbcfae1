"""A densely connected network over runs of slices: hemorrhage or not, masks of it at three depths, an LSTM."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu

BLOCKS = 3
REDUCTIONS = (2, 4, 8)
"""By how much each block's maps are smaller than the image."""


class DenseNet(nn.Module):
    """Three dense blocks, and as settings ask for them: binary masks, and an LSTM over neighbouring slices.

    The dense part is that of Huang et al. 2017 (Densely Connected Convolutional Networks) without bottlenecks and
    compression: with 12 layers a block their DenseNet-40 (3 x 12 layers, stem, two transitions, classifier). Masks and
    LSTM are those of Grewal et al. 2018, section 2.2.2: with neither it is their DenseNet, with masks DenseNet-A, with
    both RADnet. Images arrive in HU and are clipped and scaled here: whoever runs the network cannot forget it.

    hu_range: HU that are clipped to; input_range: what these become; hidden: cells per direction, 0 = no LSTM.
    """

    def __init__(
        self,
        stem_filters: int,
        block_layers: int,
        growth: int,
        masks: bool,
        hidden: int,
        hu_range: tuple[float, float],
        input_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.hu_range = hu_range
        self.input_range = input_range
        self.stem = nn.Conv2d(1, stem_filters, 3, stride=2, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        self.masks = nn.ModuleList()
        width = stem_filters
        for reduction in REDUCTIONS:
            layers = [_DenseLayer(width + growth * layer, growth) for layer in range(block_layers)]
            width += growth * block_layers
            self.blocks.append(nn.Sequential(*layers))
            if masks:
                self.masks.append(_MaskHead(width, reduction))
            if len(self.blocks) < BLOCKS:
                self.transitions.append(_Transition(width))
        self.norm = nn.BatchNorm2d(width)
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True) if hidden else None
        self.head = nn.Linear(2 * hidden if hidden else width, 1)
        self._initialise()

    def forward(self, hu: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits (runs, slices) and three masks' logits (runs, slices, y, x) of HU (runs, slices, y, x).

        A run's slices are neighbours in one scan. There are no masks where settings ask for none.
        """
        runs_slices = hu.shape[:2]
        pooled, maps = self._encode(hu.flatten(0, 1))
        masks = tuple(
            _cropped(head(found), *hu.shape[2:]).unflatten(0, runs_slices)
            for head, found in zip(self.masks, maps, strict=False)  # no heads where no masks are asked for
        )
        return self.classify(pooled.unflatten(0, runs_slices)), masks

    def pooled(self, hu: Tensor) -> Tensor:
        """Return what the dense part says of each slice by itself, (slices, width), of HU (slices, y, x)."""
        return self._encode(hu)[0]

    def classify(self, pooled: Tensor) -> Tensor:
        """Return logits (runs, slices) of runs of neighbouring slices (runs, slices, width)."""
        states = pooled if self.lstm is None else self.lstm(pooled)[0]  # (runs, slices, 2 * hidden)
        return self.head(states).squeeze(-1)

    def _encode(self, hu: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return pooled features (slices, width), and each block's maps behind its last concatenation."""
        x, maps = self.stem(_padded(self._scaled(hu), self.input_range[0])[:, None]), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            maps.append(x)
            if index < len(self.transitions):
                x = self.transitions[index](x)
        return relu(self.norm(x)).mean((2, 3)), maps

    def _scaled(self, hu: Tensor) -> Tensor:
        (low, high), (first, last) = self.hu_range, self.input_range
        return (hu.float().clamp(low, high) - low) * ((last - first) / (high - low)) + first

    def _initialise(self) -> None:
        """Draw weights as He et al. 2015 do, as the paper does (section 2.2.3), but where that was not made for.

        The LSTM keeps torch's own, its gates being no rectifiers; deconvolutions begin as linear interpolation (Long et
        al. 2015, Fully Convolutional Networks, section 3.3): a single map goes in, and random weights would give it
        another sign at each pixel that they make of one.
        """
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.zeros_(module.bias)
                with torch.no_grad():
                    module.weight.copy_(_linear_interpolation(module.stride[0]))
            elif isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class _DenseLayer(nn.Module):
    """BN-ReLU-convolution 3x3, whose channels are put behind those that came in."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (slices, channels + growth, y, x) of (slices, channels, y, x)."""
        return torch.cat([x, self.conv(relu(self.norm(x), inplace=True))], dim=1)


class _Transition(nn.Module):
    """BN-ReLU-convolution 1x1-average pooling, as many channels out as in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (slices, channels, y / 2, x / 2) of (slices, channels, y, x)."""
        # A mean of pixels and a sum over channels can change places; pooled first, there is a quarter to sum.
        return self.conv(avg_pool2d(relu(self.norm(x), inplace=True), 2))


class _MaskHead(nn.Module):
    """Convolution 1x1 to one map and deconvolution to the image's size (Grewal et al. 2018, Fig. 1)."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1)
        self.up = nn.ConvTranspose2d(1, 1, 2 * factor, stride=factor, padding=factor // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (slices, factor * y, factor * x) of maps (slices, channels, y, x)."""
        return self.up(self.conv(x))[:, 0]


def _linear_interpolation(factor: int) -> Tensor:
    """Return the weights (2 * factor, 2 * factor) of a deconvolution that interpolates between pixels' centres."""
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    return torch.outer(1 - distance, 1 - distance)


def _padded(images: Tensor, value: float) -> Tensor:
    """Return images (slices, y, x) padded by a value on all sides, to multiples of the last reduction."""
    top, bottom, left, right = _margins(*images.shape[1:])
    return pad(images, (left, right, top, bottom), value=value)


def _cropped(images: Tensor, rows: int, columns: int) -> Tensor:
    """Return images (slices, rows, columns) without what `_padded` put around them."""
    top, _, left, _ = _margins(rows, columns)
    return images[:, top : top + rows, left : left + columns]


def _margins(rows: int, columns: int) -> tuple[int, int, int, int]:
    """Return the pixels to add above, below, left and right."""
    down, across = -rows % REDUCTIONS[-1], -columns % REDUCTIONS[-1]
    return down // 2, down - down // 2, across // 2, across - across // 2
