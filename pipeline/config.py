"""Settings: every number of a run once, and who owns an artefact. Standard library only, so that Make can ask early."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

LABELS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
"""The six labels of RSNA 2019, in the order of its submission file."""

P_LABELS = tuple(f"p_{label}" for label in LABELS)
"""Columns of probabilities, in label order."""

METRIC_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
"""Weights of the labels in the challenge's log loss; divided by their sum."""

SCORE_CLIP = 1e-15
"""Probabilities are clipped to [SCORE_CLIP, 1 - SCORE_CLIP] for scoring, as Kaggle does (in float64)."""


class UserError(Exception):
    """A mistake of the user's: its one-line text says what is wrong, with which value, and what to do."""


@dataclass(frozen=True)
class View:
    """How a slice becomes a cached image (stage `window`)."""

    name: str = "brain3"
    kind: str = "windows"
    """`windows`: 8 bit, a channel a window; `hu`: Hounsfield units, 16 bit, one channel."""
    windows: tuple[tuple[float, float], ...] = ((40.0, 80.0), (80.0, 200.0), (40.0, 380.0))
    """(centre, width) in HU of each channel; not used by `hu`."""
    size: int = 256
    """Pixels of a side of the cached image."""
    pixel_mm: float = 0.0
    """Spacing that slices are resampled to in their plane, then cut or padded to `size` about their centre; at 0 the
    whole slice is resized to `size`. Of `hu` alone."""
    masks: bool = False
    """Whether masks of hemorrhage are cached beside the images, in the same geometry. Of `hu` alone."""


@dataclass(frozen=True)
class Split:
    """How patients are divided (stage `split`), and which division is used."""

    kind: str = "folds"
    """`folds`, or `holdout`: one model, trained on `train`, watched on `val`, predicting `test`; it is fold 0."""
    folds: int = 5
    holdout: tuple[float, ...] = (0.65, 0.15, 0.20)
    """Shares of train, val and test in the holdout column."""
    seed: int = 0


@dataclass(frozen=True)
class Train:
    """How the slice classifier is trained (stage `train`); `mean` and `std` are used wherever it runs."""

    network: str = "timm"
    """What is trained: `timm`, an encoder of that library with a linear head; `densenet`, the network of the section
    `dense`; `vgg`, that of `volume`; `mask_rcnn`, that of `boxes`, which draws."""
    encoder: str = "resnet18"
    """A timm model name."""
    growth: int = 0
    """Channels that each layer of a DenseNet of that library adds; 0: the encoder's own number."""
    weights: str = "none"
    """`hub` (timm's own download), `none`, or the path of a safetensors file or checkpoint."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    hu_range: tuple[float, ...] = (-1024.0, 3071.0)
    """HU that images of kind `hu` are clipped to; the default is all that 12 bits hold in CT."""
    input_range: tuple[float, ...] = (0.0, 1.0)
    """What `hu_range` is scaled to."""
    epochs: int = 1
    learning_rates: tuple[float, ...] = (1e-4,)
    """One an epoch; the last one holds for the epochs beyond."""
    momentum: float = 0.0
    """Of stochastic gradient descent; not used by networks that are trained by Adam."""
    weight_decay: float = 0.0
    balance: bool = False
    """Whether positive and negative samples are drawn equally often."""
    batch: int = 32
    """Slices in one optimiser step."""
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    """Weight of each label in the loss."""
    flip: float = 0.0
    """Chance of a horizontal flip."""
    flip_vertical: float = 0.0
    """Chance of a vertical flip."""
    shift: float = 0.0
    """Largest shift along each axis, as a share of the image's side."""
    rotate_deg: float = 0.0
    scale: float = 0.0
    """Largest relative change of scale."""
    brightness: float = 0.0
    """Largest change of brightness, as a share of the full range."""
    affine_chance: float = 0.0
    brightness_chance: float = 0.0
    seed: int = 0
    """Seeds weights, sample order, augmentation and dropout, of the sequence model too."""
    plateau_epochs: int = 0
    """Epochs without a lower training loss after which the one learning rate is divided by ten; 0: never. Of
    `mask_rcnn` alone."""
    one_of: bool = False
    """Whether each sample is exactly one of original, rotated, mirrored and shifted, with equal chance; `rotate_deg`
    and `shift` then say how far."""


@dataclass(frozen=True)
class Volume:
    """How scans in Hounsfield units become a vector a slice (networks of kind `vgg`; stages `train` to `endtoend`)."""

    filters: int = 16
    """Of the first unit's convolutions; doubled from unit to unit."""
    units: int = 5
    """Of two convolutions each; a unit of one convolution follows."""
    features: int = 512
    """Values of a slice's vector."""
    drop: float = 0.0
    """Dropout before the first and the last dense layer."""
    maximum_filter: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Kernel and stride along z, y and x, in voxels."""


@dataclass(frozen=True)
class Dense:
    """The densely connected network over runs of slices (stage `train`, `train.network` densenet)."""

    block_layers: int = 4
    """Layers of each of the three dense blocks."""
    growth: int = 8
    """Channels that each layer adds."""
    stem_filters: int = 16
    mask_weight: float = 0.0
    """Weight in the loss of the three masks' losses together; at 0 the network draws no masks."""
    blood_weight: float = 1.0
    """Weight of a mask's pixels with hemorrhage in its loss; those without have 1."""
    run_slices: int = 1
    """Neighbouring slices that go through the LSTM together."""
    hidden: int = 0
    """Cells per direction of the LSTM; at 0 there is none, and each slice stands for itself."""


@dataclass(frozen=True)
class Boxes:
    """The network that draws, `mask_rcnn` (stage `train`); lengths in pixels of the view."""

    slab_slices: int = 5
    """Neighbouring slices that the network sees, an odd number; the middle one is drawn on."""
    filters: int = 64
    """Channels of the bottom-up path's first level, a multiple of 4; each level after it has twice as many."""
    blocks: int = 2
    """Residual bottlenecks a level."""
    channels: int = 128
    """Of every map of the top-down path."""
    stride_px: int = 4
    """Of the finest map, a power of two from 2; each level after it has twice that."""
    anchors_px: tuple[float, ...] = (16.0, 32.0, 64.0, 128.0)
    """One a level, the finest first; their number is that of the levels."""
    ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    """Height over width of the anchors of each size."""
    box_head: int = 1024
    """Units of each of the two layers that judge a region."""
    mask_head: int = 256
    """Channels of each of the layers that draw in a region."""
    anchors_sampled: int = 256
    """Anchors an image that region proposals are learned from, half of them on lesions where so many are."""
    rois: int = 128
    """Regions sampled an image in training."""
    positive_share: float = 0.25
    """Of them, at most."""
    training_proposals: int = 1000
    """Regions proposed an image in training, before they are sampled."""
    proposals: int = 256
    """Regions proposed an image when the network is used."""
    least_score: float = 0.05
    """Detections below it are not kept."""
    drawn_score: float = 0.5
    """From which a detection is drawn: its mask counts in volumes and overlaps."""
    mask_threshold: float = 0.5
    """From which a pixel of a region belongs to its mask."""
    least_px: int = 1
    """Smaller parts of a true mask are not trained on, but for the largest of a slice."""
    negatives: float = 0.0
    """Slices without hemorrhage that an epoch shows for each one with; 0: all of them."""


@dataclass(frozen=True)
class Embed:
    """How embeddings are computed (stage `embed`)."""

    batch: int = 64


@dataclass(frozen=True)
class Reduce:
    """How embeddings become the sequence model's input (stage `reduce`)."""

    method: str = "none"
    """`pca`, `largest_weights`, `smallest_weights`, `largest_std`, `none` or `predictions_only`."""
    count: int = 120
    """Features kept; not used by `none` and `predictions_only`."""
    fit_rows: int = 0
    """Training rows that the PCA is fitted on, drawn by `seed`; 0 = all of them, streamed."""
    seed: int = 0


@dataclass(frozen=True)
class Sequence:
    """The model over whole scans (stage `sequence`)."""

    kind: str = "none"
    """`bilstm`; `bilstm_sum`, which sums its directions and speaks of the scan; or `none` (the recipe ends with its
    slice classifier)."""
    layers: int = 1
    hidden: int = 64
    """Cells per direction."""
    dropout: float = 0.0
    probabilities: bool = False
    """Whether the classifier also sees the CNN's six probabilities."""
    epochs: int = 1
    learning_rates: tuple[float, ...] = (1e-4,)
    batch_scans: int = 1
    """Scans in one optimiser step."""
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Endtoend:
    """Training of slice classifier and sequence model together on whole scans (stage `endtoend`)."""

    epochs: int = 0
    """0: the recipe has no such stage."""
    learning_rates: tuple[float, ...] = (1e-4,)
    chunk_slices: int = 16
    """Slices whose activations are in memory at a time; changes no number but by rounding."""
    pretrained_cnn: bool = True
    """Whether the slice classifier begins as the stage `train` left it; otherwise it begins at random."""
    pretrained_sequence: bool = True
    """Whether the sequence model begins as the stage `sequence` left it; otherwise it begins at random."""


@dataclass(frozen=True)
class Predict:
    """What is handed in and how it is judged (stages `predict`, `score`, `submit`)."""

    consecutive: tuple[int, ...] = ()
    """Rules from slices to scans: for each number, the highest threshold that so many consecutive slices reach."""

    clip: float = 1e-6
    """A submission's probabilities are clipped to [clip, 1 - clip]."""
    resamples: int = 1000
    """Patient-level bootstrap resamples."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """All settings of a run, by section; a stage reads one or more."""

    view: View = field(default_factory=View)
    split: Split = field(default_factory=Split)
    train: Train = field(default_factory=Train)
    dense: Dense = field(default_factory=Dense)
    volume: Volume = field(default_factory=Volume)
    boxes: Boxes = field(default_factory=Boxes)
    embed: Embed = field(default_factory=Embed)
    reduce: Reduce = field(default_factory=Reduce)
    sequence: Sequence = field(default_factory=Sequence)
    endtoend: Endtoend = field(default_factory=Endtoend)
    predict: Predict = field(default_factory=Predict)


BASE = Settings()
"""What every recipe starts from: nothing learned from, nothing augmented, no paper's number."""

CHOICES = {
    "view.kind": ("windows", "hu"),
    "split.kind": ("folds", "holdout"),
    "train.network": ("timm", "densenet", "vgg", "mask_rcnn"),
    "reduce.method": ("pca", "largest_weights", "smallest_weights", "largest_std", "none", "predictions_only"),
    "sequence.kind": ("bilstm", "bilstm_sum", "none"),
}

WHOLE_NETWORKS = ("densenet", "mask_rcnn")
"""Networks that take slices with their neighbours and are trained in one piece: no embeddings, nothing to reduce."""

STAGE_SECTIONS = {
    "window": ("view",),
    "split": ("split",),
    "train": ("train", "dense", "volume", "boxes"),
    "embed": ("embed",),
    "reduce": ("reduce",),
    "sequence": ("sequence",),
    "endtoend": ("endtoend",),
    "predict": ("predict",),
}
"""The sections that each stage reads, in the pipeline's order: a stage also depends on those before its own."""


def section_settings(settings: Settings, section: str) -> dict[str, Any]:
    """Return one section as plain data, ready for JSON."""
    return dataclasses.asdict(getattr(settings, section))


def digest(data: Any) -> str:
    """Return 8 hex digits that name plain data: equal data, equal digits, whatever the order of keys."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def settings_digest(settings: Settings) -> str:
    """Return 8 hex digits that name all settings of a run."""
    return digest(dataclasses.asdict(settings))


def fold_count(settings: Settings) -> int:
    """Return how many models a run may have: one a fold, or the one of the holdout division."""
    return settings.split.folds if settings.split.kind == "folds" else 1


def network_name(settings: Settings) -> str:
    """Return what is trained: timm's name of the encoder, or the network's own."""
    return settings.train.encoder if settings.train.network == "timm" else settings.train.network


def trains_whole(settings: Settings) -> bool:
    """Return whether the stage `train` leaves all that `predict` needs: a network that is trained in one piece."""
    return settings.train.network in WHOLE_NETWORKS


def draws(settings: Settings) -> bool:
    """Return whether a run draws hemorrhages, which then are measured."""
    return settings.train.network == "mask_rcnn"


def last_stage(settings: Settings) -> str:
    """Return the stage whose predictions count in the end: `endtoend` or `sequence`, or `cnn` where there is neither.

    A network with an LSTM of its own is `sequence`, also where it is trained in one piece.
    """
    has_lstm = settings.sequence.kind != "none" or settings.dense.hidden > 0
    return "endtoend" if settings.endtoend.epochs else "sequence" if has_lstm else "cnn"


def speaks_of_all_labels(settings: Settings) -> bool:
    """Return whether a run gives six probabilities a slice, as a submission needs."""
    return settings.train.network == "timm"


def variant(settings: Settings, **changes: Any) -> Settings:
    """Return settings with dotted fields changed: `variant(BASE, **{"train.epochs": 3})`.

    Values may be given as text (from a command line). Raises UserError for an unknown section or field, with the
    alternatives, and for a value of the wrong type or outside the field's choices.
    """
    for dotted, value in changes.items():
        section_name, _, field_name = dotted.partition(".")
        sections = [f.name for f in dataclasses.fields(settings)]
        if section_name not in sections:
            raise UserError(f"setting {dotted!r}: no section {section_name!r}; sections are {', '.join(sections)}")
        section = getattr(settings, section_name)
        fields = {f.name: f for f in dataclasses.fields(section)}
        if field_name not in fields:
            raise UserError(
                f"setting {dotted!r}: no field {field_name!r} in {section_name}; fields are {', '.join(fields)}"
            )
        converted = _convert(dotted, value, getattr(section, field_name))
        settings = dataclasses.replace(
            settings, **{section_name: dataclasses.replace(section, **{field_name: converted})}
        )
    return settings


def _convert(dotted: str, value: Any, like: Any) -> Any:
    """Return `value` in the type of `like`, the field's present value."""
    try:
        if isinstance(like, bool):
            converted = _to_bool(value)
        elif isinstance(like, int):
            converted = int(value)
            if converted != float(value):
                raise ValueError
        elif isinstance(like, float):
            converted = float(value)
        elif isinstance(like, tuple):
            converted = _to_tuple(value)
        else:
            converted = str(value)
    except (TypeError, ValueError):
        raise UserError(f"setting {dotted}={value!r}: expected a value like {_show(like)!r}") from None
    if dotted in CHOICES and converted not in CHOICES[dotted]:
        raise UserError(f"setting {dotted}={value!r}: choose one of {', '.join(CHOICES[dotted])}")
    return converted


def _to_bool(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    text = str(value).lower()
    if text not in known:
        raise ValueError(value)
    return known[text]


def _to_tuple(value: Any) -> tuple:
    """Return numbers from `1e-4,2e-5`, pairs from `40/80,80/200`, or a tuple given as such, all floats."""
    if isinstance(value, str):
        value = [part.split("/") if "/" in part else part for part in value.split(",") if part]
    elif isinstance(value, (int, float)):
        value = [value]
    return tuple(tuple(float(v) for v in item) if isinstance(item, (list, tuple)) else float(item) for item in value)


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join("/".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value)
    return str(value)


@dataclass(frozen=True)
class Run:
    """A named set of settings, and the runs it differs from, the nearest first."""

    name: str
    settings: Settings
    parents: "tuple[Run, ...]" = ()


def owner(run: Run, stage: str) -> Run:
    """Return the run under whose name a stage's artefacts lie.

    It is the furthest ancestor reached by going from run to parent while the settings of the stage and of all stages
    before it stay the same. Predictions, scores and submissions always belong to the run itself.
    """
    if stage == "predict":
        return run
    own = _settings_up_to(run, stage)
    alike = (parent for parent in run.parents if _settings_up_to(parent, stage) == own)
    parent = next(alike, None)
    return run if parent is None else owner(parent, stage)


def _settings_up_to(run: Run, stage: str) -> list[dict[str, Any]]:
    stages = list(STAGE_SECTIONS)
    before = stages[: stages.index(stage) + 1]
    return [section_settings(run.settings, section) for s in before for section in STAGE_SECTIONS[s]]
