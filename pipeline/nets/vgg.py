"""A VGG-like network over slices in Hounsfield units: one slice in, a vector and one logit out."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


def least_side(units: int) -> int:
    """Return the pixels that a side must have, so that so many units and the last, of one convolution, leave a pixel.

    Convolutions of 3x3 take two pixels of a side each, pooling halves it, rounded down: 252 px for five units.
    """
    side = 4
    for _ in range(units):
        side = 2 * side + 4
    return side


def map_side(side: int, units: int) -> int:
    """Return the side of the last map of images of `side` px; raises ValueError where nothing would be left.

    256 px and five units: 256, 126, 61, 28, 12, 4, 1.
    """
    if side < least_side(units):
        raise ValueError(
            f"images of {side} px a side are too small for {units} units: give at least {least_side(units)} px "
            "(behind the maximum filter), or set volume.units lower"
        )
    for _ in range(units):
        side = (side - 4) // 2
    return (side - 2) // 2


class SliceVGG(nn.Module):
    """Units of two 3x3 convolutions, ReLU and 2x2 pooling; one of a single convolution; two dense layers; a logit.

    Filters double from unit to unit. The convolutions are not padded: padded ones would leave 4x4 pixels of 256, where
    the paper's last map has one. Dropout comes before the first dense layer and before the layer of the logit, which
    exists to train on slices alone. One logit with a sigmoid is the same model as a softmax over two classes: of those,
    only the difference of the two logits counts. Source: Patel et al. 2019, sections III-B and III-C.1.
    """

    def __init__(
        self,
        side: int,
        filters: int,
        units: int,
        features: int,
        drop: float,
        hu_range: tuple[float, ...],
        input_range: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.side, self.units, self.drop, self.width = side, units, drop, features
        self.hu_range, self.input_range = hu_range, input_range
        layers: list[nn.Module] = []
        before = 1
        for unit in range(units + 1):
            filters_here = filters * 2**unit
            for _ in range(2 if unit < units else 1):
                layers += [nn.Conv2d(before, filters_here, 3), nn.ReLU(inplace=True)]
                before = filters_here
            layers.append(nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers)
        self.flat = before * map_side(side, units) ** 2
        self.dense = nn.Sequential(
            nn.Linear(self.flat, features), nn.ReLU(inplace=True), nn.Linear(features, features), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(features, 1)
        for layer in [*self.convolutions, *self.dense]:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (slices, width) and logits (slices, 1) of images (slices, 1, y, x) in HU."""
        embeddings = self.vectors(images, self.draw_mask(len(images)))
        return embeddings, self.head(dropout(embeddings, self.drop, self.training))

    def draw_mask(self, slices: int) -> Tensor | None:
        """Return dropout's factors (slices, flat) before the first dense layer; None where nothing is dropped.

        Drawn for all slices of a scan at once, they do not depend on how many of these then run together.
        """
        if not self.training or not self.drop:
            return None
        return dropout(self.head.weight.new_ones(slices, self.flat), self.drop)

    def vectors(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return embeddings (slices, width) of images (slices, 1, y, x) in HU behind the maximum filter, of any type.

        mask: what `draw_mask` drew for these slices. Raises ValueError for images of another size than the network's.
        """
        if tuple(images.shape[1:]) != (1, self.side, self.side):
            raise ValueError(f"images {tuple(images.shape)}: this network takes (slices, 1, {self.side}, {self.side})")
        maps = self.convolutions(self._scaled(images)).flatten(1)  # (slices, flat)
        return self.dense(maps if mask is None else maps * mask)

    def _scaled(self, images: Tensor) -> Tensor:
        (low, high), (least, most) = self.hu_range, self.input_range
        shares = (images.to(self.head.weight.dtype).clamp(low, high) - low) / (high - low)
        return least + (most - least) * shares


def saved_values(side: int, filters: int, units: int, features: int) -> tuple[int, int]:
    """Return how many values and how many indices (of 8 bytes) a slice's way through the network leaves for backward.

    Values are of the type that it computes in. Each convolution keeps its input, which is the image, what a ReLU left
    in place, or what pooling left; pooling keeps its input and where the maxima lay; each dense layer keeps its input,
    and ReLU its output. The first dense layer's input is another one than the last pooling's output where dropout
    lies between them: it keeps its factors and the product.
    """
    values, indices, here = side**2, 0, side
    for unit in range(units + 1):
        width = filters * 2**unit
        for _ in range(2 if unit < units else 1):
            here -= 2
            values += width * here**2
        here //= 2
        values += width * here**2
        indices += width * here**2
    flat = width * here**2
    # The last pooling's output lives on in none but the product with dropout's factors.
    return values - flat + 2 * flat + 2 * features, indices


def activation_bytes(slices: int, side: int, filters: int, units: int, features: int, bytes_per_value: int = 4) -> int:
    """Return the bytes of activations that `slices` slices in training leave for backward, running together.

    slices: of a chunk. Source: the network's shapes; the tests count the tensors that torch keeps.
    """
    values, indices = saved_values(side, filters, units, features)
    return slices * (bytes_per_value * values + torch.int64.itemsize * indices)
