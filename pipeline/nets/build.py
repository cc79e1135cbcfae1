"""The one place that chooses a network from settings."""

import difflib
import math
from typing import TYPE_CHECKING

from torch import nn

from pipeline.config import Settings, UserError
from pipeline.nets.end_to_end import EndToEnd
from pipeline.nets.scan_bilstm import ScanBiLSTM
from pipeline.nets.summed_bilstm import SummedBiLSTM
from pipeline.nets.vgg import SliceVGG

if TYPE_CHECKING:
    from pipeline.nets.densenet import DenseNet
    from pipeline.nets.mask_rcnn import SlabDetector
    from pipeline.nets.slice_classifier import SliceClassifier


def build_network(settings: Settings, pretrained: bool) -> nn.Module:
    """Return the network that stage `train` trains; `pretrained` and errors as in its own builder."""
    builders = {"densenet": build_densenet, "vgg": build_vgg, "mask_rcnn": build_mask_rcnn}
    if settings.train.network in builders:
        return builders[settings.train.network](settings)
    return build_slice_classifier(settings, pretrained)


def build_slice_classifier(settings: Settings, pretrained: bool) -> "SliceClassifier":
    """Return the recipe's slice classifier.

    With `pretrained`, the encoder holds the weights that the settings ask for; without, it waits for a state to be
    loaded. Raises UserError where the weights cannot be had, and for a view that it cannot read.
    """
    if settings.view.kind != "windows":
        raise UserError(f"view.kind={settings.view.kind}: train.network=timm sees 8-bit windows, set view.kind=windows")
    # timm takes two seconds to import, which stages without a CNN need not wait for.
    from pipeline.nets.slice_classifier import SliceClassifier
    from pipeline.nets.weights import load_encoder

    train = settings.train
    check_encoder(train.encoder)
    network = SliceClassifier(train.encoder, train.mean, train.std, train.growth)
    if pretrained:
        load_encoder(network.encoder, train.encoder, train.weights)
    return network


def check_encoder(name: str) -> None:
    """Raise UserError, with similar names, where timm knows no encoder of that name or no such weights of it."""
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise UserError(f"train.encoder={name}: timm has no such model; similar: {', '.join(similar) or 'none'}")
    if tag and name not in timm.list_pretrained():
        known = timm.list_pretrained(f"{architecture}.*")
        raise UserError(f"train.encoder={name}: timm has no weights of that name; it has {', '.join(known) or 'none'}")


def build_densenet(settings: Settings) -> "DenseNet":
    """Return the recipe's DenseNet with new weights, drawn from torch's random numbers.

    Raises UserError for settings that contradict each other.
    """
    from pipeline.nets.densenet import DenseNet

    view, train, dense = settings.view, settings.train, settings.dense
    if view.kind != "hu":
        raise UserError(f"train.network=densenet reads images in HU, and view.kind={view.kind}: set view.kind=hu")
    if dense.mask_weight and not view.masks:
        raise UserError(
            f"dense.mask_weight={dense.mask_weight:g} learns from masks, and view.masks=False: set view.masks=true, "
            f"or dense.mask_weight=0"
        )
    if min(dense.block_layers, dense.growth, dense.stem_filters, dense.run_slices) < 1:
        raise UserError(f"{dense}: block_layers, growth, stem_filters and run_slices are at least 1")
    if dense.run_slices > 1 and not dense.hidden:
        raise UserError(
            f"dense.run_slices={dense.run_slices} without an LSTM: give dense.hidden cells, or set dense.run_slices=1"
        )
    hu_range, input_range = _range("train.hu_range", train.hu_range), _range("train.input_range", train.input_range)
    return DenseNet(
        dense.stem_filters, dense.block_layers, dense.growth, dense.mask_weight > 0, dense.hidden, hu_range, input_range
    )


def _range(name: str, limits: tuple[float, ...]) -> tuple[float, float]:
    if len(limits) != 2 or limits[0] >= limits[1]:
        raise UserError(f"{name}={','.join(map(str, limits))}: give two numbers, the lower one first")
    return limits[0], limits[1]


def build_sequence(settings: Settings, features: int) -> ScanBiLSTM:
    """Return the recipe's sequence model for `features` values a slice; `predictions_only` brings the six labels'."""
    sequence = settings.sequence
    return ScanBiLSTM(features, sequence.hidden, sequence.layers, sequence.dropout, sequence.probabilities)


def build_vgg(settings: Settings) -> SliceVGG:
    """Return the slice network of a recipe whose `train.network` is `vgg`, for images behind the maximum filter.

    Raises UserError for a maximum filter that leaves no squares, and where images are too small for the units.
    """
    volume, train = settings.volume, settings.train
    if len(volume.maximum_filter) != 3 or volume.maximum_filter[1] != volume.maximum_filter[2]:
        kernel = ",".join(map(str, volume.maximum_filter))
        raise UserError(
            f"volume.maximum_filter={kernel}: give three sizes, z,y,x, the last two alike: images are square"
        )
    side = math.ceil(settings.view.size / volume.maximum_filter[1])
    try:
        return SliceVGG(
            side, volume.filters, volume.units, volume.features, volume.drop, train.hu_range, train.input_range
        )
    except ValueError as error:
        raise UserError(f"view.size={settings.view.size}, volume.units={volume.units}: {error}") from error


def build_summed_bilstm(settings: Settings, features: int) -> SummedBiLSTM:
    """Return the network over whole scans of a recipe whose `sequence.kind` is `bilstm_sum`."""
    return SummedBiLSTM(features, settings.sequence.hidden, settings.sequence.layers)


def build_end_to_end(settings: Settings) -> EndToEnd:
    """Return both networks as one, for a recipe with a stage `endtoend`."""
    cnn = build_vgg(settings)
    return EndToEnd(cnn, build_summed_bilstm(settings, cnn.width), settings.endtoend.chunk_slices)


def build_mask_rcnn(settings: Settings) -> "SlabDetector":
    """Return the recipe's detector of lesions in slabs of slices, its weights drawn anew.

    Raises UserError for settings that no network can be made of.
    """
    from pipeline.core.lesions import CLASSES
    from pipeline.nets.mask_rcnn import SlabDetector, build_detector

    view, train = settings.view, settings.train
    if view.kind != "hu":
        raise UserError(f"view.kind={view.kind}: train.network=mask_rcnn sees Hounsfield units, use view.kind=hu")
    try:
        detector = build_detector(settings.boxes, view.size, len(CLASSES))
    except ValueError as error:
        raise UserError(f"settings boxes and view.size: {error}") from error
    return SlabDetector(detector, train.hu_range, train.input_range)


def parameter_count(network: nn.Module) -> int:
    """Return the number of learnable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
