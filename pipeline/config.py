"""Settings: every number of a run once, and who owns an artefact. Standard library only, so that Make can ask early."""

import dataclasses
import hashlib
import importlib
import json
import pkgutil
import re
from collections.abc import Mapping
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
    windows: tuple[tuple[float, float], ...] = ((40.0, 80.0), (80.0, 200.0), (40.0, 380.0))
    """(centre, width) in HU of each channel."""
    size: int = 256
    """Pixels of a side of the cached image."""


@dataclass(frozen=True)
class Split:
    """How patients are divided (stage `split`)."""

    folds: int = 5
    holdout: tuple[float, ...] = (0.65, 0.15, 0.20)
    """Shares of train, val and test in the holdout column."""
    seed: int = 0


@dataclass(frozen=True)
class Train:
    """How the slice classifier is trained (stage `train`); `mean` and `std` are used wherever it runs."""

    encoder: str = "resnet18"
    """A timm model name."""
    weights: str = "none"
    """`hub` (timm's own download), `none`, or the path of a safetensors file or checkpoint."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    epochs: int = 1
    learning_rates: tuple[float, ...] = (1e-4,)
    """One an epoch; the last one holds for the epochs beyond."""
    batch: int = 32
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    """Weight of each label in the loss."""
    flip: float = 0.0
    """Chance of a horizontal flip."""
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
    """`bilstm` or `none` (the recipe ends with its slice classifier)."""
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
class Predict:
    """What is handed in and how it is judged (stages `predict`, `score`, `submit`)."""

    clip: float = 1e-6
    """A submission's probabilities are clipped to [clip, 1 - clip]."""
    resamples: int = 1000
    """Patient-level bootstrap resamples."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """All settings of a run, one section a stage."""

    view: View = field(default_factory=View)
    split: Split = field(default_factory=Split)
    train: Train = field(default_factory=Train)
    embed: Embed = field(default_factory=Embed)
    reduce: Reduce = field(default_factory=Reduce)
    sequence: Sequence = field(default_factory=Sequence)
    predict: Predict = field(default_factory=Predict)


BASE = Settings()
"""What every recipe starts from: nothing learned from, nothing augmented, no paper's number."""

CHOICES = {
    "view.kind": ("windows",),
    "reduce.method": ("pca", "largest_weights", "smallest_weights", "largest_std", "none", "predictions_only"),
    "sequence.kind": ("bilstm", "none"),
}

STAGE_SECTION = {
    "window": "view",
    "split": "split",
    "train": "train",
    "embed": "embed",
    "reduce": "reduce",
    "sequence": "sequence",
    "predict": "predict",
}
"""The section that each stage reads, in the pipeline's order: a stage also depends on the sections before its own."""


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


def last_stage(settings: Settings) -> str:
    """Return the stage whose predictions are handed in: `sequence`, or `cnn` for a recipe that ends there."""
    return "cnn" if settings.sequence.kind == "none" else "sequence"


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


@dataclass(frozen=True)
class Variant:
    """How the run `<recipe>-<variant>` differs from its recipe, or from the recipe's variant `of`."""

    changes: Mapping[str, Any]
    of: str = ""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table: what the paper calls it, the variant that it is, and the paper's figure."""

    text: str
    variant: str
    """Empty for the recipe itself."""
    figure: float


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper whose rows are variants of its recipe."""

    title: str
    figure: str
    """What the figure is, and of which data."""
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class PublishedReader:
    """A reader or a model of a paper's reader study: what the paper calls it, and its figures."""

    text: str
    stage: str
    """Ours that it stands beside; empty for a human reader."""
    figures: Mapping[str, tuple[float | None, ...]]
    """By figure, a value a label in label order; None where the paper has none."""


@dataclass(frozen=True)
class PublishedReaders:
    """A paper's table of readers and models on the same scans."""

    title: str
    scans: str
    """Which scans they read."""
    figures: tuple[str, ...]
    """The table's figures, in its order; `readers` prints it beside its own table of the same ones."""
    rows: tuple[PublishedReader, ...]
    decimals: int
    """That the paper gives."""
    note: str = ""
    """What is to be known before its figures are compared with ours; a sentence."""


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
    stages = list(STAGE_SECTION)
    return [section_settings(run.settings, STAGE_SECTION[s]) for s in stages[: stages.index(stage) + 1]]


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    import pipeline.recipes

    return sorted(module.name for module in pkgutil.iter_modules(pipeline.recipes.__path__))


def variant_names(recipe_name: str) -> list[str]:
    """Return the names of a recipe's variants, in its own order; `<recipe>-<variant>` is a run."""
    return list(_module(recipe_name).VARIANTS)


def recipe(name: str) -> Run:
    """Return the recipe of that name, or `<recipe>-<variant>`; raises UserError with the known names."""
    base = base_recipe(name)
    return _variant_run(base, name[len(base) + 1 :])


def base_recipe(name: str) -> str:
    """Return the recipe that a name or the name of its variant belongs to; raises UserError with the known names."""
    bases = [known for known in recipe_names() if name == known or name.startswith(f"{known}-")]
    if not bases:
        raise UserError(f"RECIPE={name}: no such recipe; recipes are {', '.join(recipe_names())}")
    base = max(bases, key=len)
    if name != base and name[len(base) + 1 :] not in variant_names(base):
        raise UserError(
            f"RECIPE={name}: no such variant of {base}; its variants are {', '.join(variant_names(base)) or 'none'}"
        )
    return base


def _variant_run(recipe_name: str, name: str) -> Run:
    if not name:
        return _module(recipe_name).RECIPE
    own = _module(recipe_name).VARIANTS[name]
    parent = _variant_run(recipe_name, own.of)
    return Run(f"{recipe_name}-{name}", variant(parent.settings, **own.changes), (parent,))


def _module(recipe_name: str) -> Any:
    return importlib.import_module(f"pipeline.recipes.{recipe_name}")


def recipe_folds(name: str) -> tuple[int, ...]:
    """Return the folds that a recipe, or a variant of it, trains when none are asked for."""
    return _module(base_recipe(name)).FOLDS


def published_tables(recipe_name: str) -> tuple[PublishedTable, ...]:
    """Return the paper's tables whose rows a recipe's variants are."""
    return _module(recipe_name).TABLES


def published_readers(recipe_name: str) -> PublishedReaders | None:
    """Return the reader study of the paper of a recipe, or of a variant's recipe; None where it has none."""
    return getattr(_module(base_recipe(recipe_name)), "READER_TABLE", None)


def make_run(recipe_name: str, changes: dict[str, str] | None = None, name: str | None = None, seed: int = 0) -> Run:
    """Return the run of a recipe or variant, or one that stands beside it under a name of its own.

    `changes` (dotted field to text) make `<recipe>+<8 hex>`, or `name`; a seed other than 0 adds `-s<seed>`.
    Raises UserError for unknown recipes, fields, values, and for names that are taken or cannot be a folder's.
    """
    run = recipe(recipe_name)
    if changes:
        settings = variant(run.settings, **changes)
        run = _changed(run, changes, f"+{digest({key: _field_value(settings, key) for key in changes})}")
    if name:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
            raise UserError(f"NAME={name!r}: use letters, digits and . _ + - only, a letter or digit first")
        if name in _taken_names():
            raise UserError(f"NAME={name}: a recipe has that name; choose another")
        run = Run(name, run.settings, run.parents if changes else (run,))
    if seed:
        run = _changed(run, {"train.seed": seed}, f"-s{seed}")
    return run


def _changed(run: Run, changes: Mapping[str, Any], suffix: str) -> Run:
    """Return a run with changes. Its parents are the run itself, and the run's parents with the same changes.

    So a variant and its recipe still share what they share, where the same changes were made to both.
    """
    parents = tuple(_changed(parent, changes, suffix) for parent in run.parents)
    return Run(run.name + suffix, variant(run.settings, **changes), (run, *parents))


def _taken_names() -> set[str]:
    return {name if not own else f"{name}-{own}" for name in recipe_names() for own in ("", *variant_names(name))}


def _field_value(settings: Settings, dotted: str) -> Any:
    section, _, name = dotted.partition(".")
    return getattr(getattr(settings, section), name)
