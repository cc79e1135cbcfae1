"""A timm encoder with a linear head over the six labels: one slice in, an embedding and six logits out."""

import timm
import torch
from torch import Tensor, nn

from pipeline.config import LABELS


class SliceClassifier(nn.Module):
    """Encoder by timm name, global average pooling, and a linear layer with one output a label.

    Images arrive as uint8 and are normalised here, on the device: a quarter of the bytes travel, and whoever runs the
    network cannot forget it. Source: Burduja et al. 2020, sections 3.1 and 3.2.
    """

    def __init__(self, encoder: str, mean: tuple[float, ...], std: tuple[float, ...], growth: int = 0) -> None:
        super().__init__()
        options = {"growth_rate": growth} if growth else {}
        self.encoder = timm.create_model(encoder, pretrained=False, num_classes=0, in_chans=len(mean), **options)
        # Encoders that widen after pooling give `head_hidden_size` values; for all others it is `num_features`.
        self.width = getattr(self.encoder, "head_hidden_size", None) or self.encoder.num_features
        self.head = nn.Linear(self.width, len(LABELS))
        # Not part of the state: they are settings, and the settings travel beside the weights.
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (slices, width) and logits (slices, 6) of uint8 images (slices, channels, y, x)."""
        normalised = (images.float() - self.mean) / self.std
        embeddings = self.encoder(normalised.contiguous(memory_format=torch.channels_last))  # (slices, width)
        return embeddings, self.head(embeddings)
