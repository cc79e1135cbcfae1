"""Which files a run's stages read and write. Standard library only: Make asks before anything is installed."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import (
    BASE,
    STAGE_SECTIONS,
    Run,
    Settings,
    UserError,
    digest,
    draws,
    last_stage,
    owner,
    section_settings,
    speaks_of_all_labels,
    trains_whole,
)
from pipeline.published import FigureTable, PublishedReaders, PublishedTable

SUBMIT_STAGES = ("score", "submit")
"""Stages that read the list of folds, and so are redone when it changes."""


SETTINGS_STAGES = ("phantom", "index", *STAGE_SECTIONS, *SUBMIT_STAGES)

Fold = int | str
"""A fold's number, or `%` for Make's pattern."""


@dataclass(frozen=True)
class PhantomSettings:
    """What decides the bytes of the phantom data set."""

    scans: int = 144
    """Of the train part and of the test part together."""
    seed: int = 0


@dataclass(frozen=True)
class Paths:
    """Every file name of one run on one data set, relative to the project's root."""

    dataset: str
    run: Run
    reader: str

    @property
    def data(self) -> Path:
        return Path("data") / self.dataset

    @property
    def raw(self) -> Path:
        return self.data / "raw"

    @property
    def labels(self) -> Path:
        return self.raw / "stage_2_train.csv"

    @property
    def sample_submission(self) -> Path:
        return self.raw / "stage_2_sample_submission.csv"

    @property
    def truth(self) -> Path:
        """Labels of test slices, where they are known; read by `score` alone."""
        return self.raw / "truth.csv"

    @property
    def slices(self) -> Path:
        return self.data / "slices.parquet"

    @property
    def rejected(self) -> Path:
        return self.data / "rejected.parquet"

    @property
    def folds(self) -> Path:
        """Named plainly for the usual split; another split stands beside it under its digest."""
        division = division_settings(self.run.settings)
        suffix = "" if division == division_settings(BASE) else f"-{digest(division)}"
        return self.data / f"folds{suffix}.parquet"

    @property
    def view(self) -> str:
        view = section_settings(self.run.settings, "view")
        return f"{view['name']}-{digest(view)}"

    @property
    def images(self) -> Path:
        """The table of cached PNGs; the PNGs lie in the folder of the same name."""
        return self.data / "png" / f"{self.view}.parquet"

    @property
    def images_rejected(self) -> Path:
        return self.data / "png" / f"{self.view}.rejected.parquet"

    @property
    def png(self) -> Path:
        return self.data / "png" / self.view

    def models(self, stage: str) -> Path:
        return Path("models") / self.dataset / owner(self.run, stage).name

    def features(self, stage: str) -> Path:
        return Path("features") / self.dataset / owner(self.run, stage).name

    def cnn(self, fold: Fold) -> Path:
        return self.models("train") / f"fold-{fold}.safetensors"

    def cnn_run(self, fold: Fold) -> Path:
        """Lightning's checkpoints and logs; no other stage reads them."""
        return self.models("train") / f"fold-{fold}.run"

    def embeddings(self, fold: Fold) -> Path:
        return self.features("embed") / f"fold-{fold}.embeddings.parquet"

    def reduced(self, fold: Fold) -> Path:
        return self.features("reduce") / f"fold-{fold}.reduced.parquet"

    def reducer(self, fold: Fold) -> Path:
        return self.features("reduce") / f"fold-{fold}.reducer.npz"

    def sequence(self, fold: Fold) -> Path:
        return self.models("sequence") / f"fold-{fold}.sequence.safetensors"

    def sequence_run(self, fold: Fold) -> Path:
        return self.models("sequence") / f"fold-{fold}.sequence.run"

    def endtoend(self, fold: Fold) -> Path:
        return self.models("endtoend") / f"fold-{fold}.endtoend.safetensors"

    def endtoend_run(self, fold: Fold) -> Path:
        return self.models("endtoend") / f"fold-{fold}.endtoend.run"

    @property
    def submissions(self) -> Path:
        return Path("submissions") / self.dataset / self.run.name

    def predictions(self, fold: Fold) -> Path:
        return self.submissions / f"fold-{fold}.parquet"

    def detections(self, fold: Fold) -> Path:
        return self.submissions / f"fold-{fold}.detections.parquet"

    def measurements(self, fold: Fold) -> Path:
        return self.submissions / f"fold-{fold}.measurements.parquet"

    def overlaps(self, fold: Fold) -> Path:
        return self.submissions / f"fold-{fold}.overlaps.parquet"

    def scan_predictions(self, fold: Fold) -> Path:
        return self.submissions / f"fold-{fold}.scans.parquet"

    def score(self, fold: Fold) -> Path:
        """The score file of a fold, of `oof` (out of fold) or of `test`."""
        name = fold if fold in ("oof", "test") else f"fold-{fold}"
        return self.submissions / f"{name}.score.json"

    @property
    def submission(self) -> Path:
        return Path("submissions") / self.dataset / f"{self.run.name}.csv"

    def folders(self) -> set[Path]:
        """Return the folders in which stages leave their files; images lie deeper, in `png`."""
        models = {self.models(stage) for stage in ("train", "sequence", "endtoend")}
        features = {self.features(stage) for stage in ("embed", "reduce")}
        return {
            self.data,
            self.images.parent,
            *models,
            *features,
            self.submissions,
            self.submission.parent,
            *LEADERBOARD.parents[:1],
        }

    def settings_file(self, stage: str, contents: dict[str, Any]) -> Path:
        """The file that stands for a stage's settings in Make; its name carries their digest."""
        folder = {
            "index": self.data,
            "phantom": self.data,
            "split": self.data,
            "window": self.data / "png",
            "train": self.models("train"),
            "embed": self.features("embed"),
            "reduce": self.features("reduce"),
            "sequence": self.models("sequence"),
            "endtoend": self.models("endtoend"),
        }.get(stage, self.submissions)
        name = {"split": self.folds.stem, "window": self.view}.get(stage)
        return folder / (f"{name}.settings.json" if name else f"{stage}-{digest(contents)}.json")


LEADERBOARD = Path("submissions") / "leaderboard.csv"


@dataclass(frozen=True)
class Job:
    """One call of a stage: the run, the fold, and facts of the machine that no digest holds."""

    run: Run
    paths: Paths
    fold: int | None
    folds: tuple[int, ...]
    phantom: PhantomSettings
    n_jobs: int
    threads: int
    max_rejected: float
    force: bool
    tables: tuple[PublishedTable, ...] = ()
    """For `ablation`: the paper's tables whose rows are variants of the recipe."""
    table_runs: Mapping[str, Run] = field(default_factory=dict)
    """For `ablation`: the recipe under the empty name, and its variants, all with the same SET and SEED."""
    figure_tables: tuple[FigureTable, ...] = ()
    """For `tables`: the paper's tables of several figures."""
    figure_runs: Mapping[str, Run] = field(default_factory=dict)
    """For `tables`: the run of each variant that those tables name, all with the same SET and SEED."""
    system_runs: tuple[Run, ...] = ()
    """For `systems`: a run of each published system, at a size that two cores manage."""
    readers: Path | None = None
    """For `readers`: the CSV of what human readers said."""
    reader_table: PublishedReaders | None = None
    """For `readers`: the reader study of the recipe's paper."""

    def require_fold(self) -> int:
        """Return the fold asked for; raises UserError where none was."""
        if self.fold is None:
            raise UserError("this stage works on one fold: say which, as in --fold 0")
        return self.fold

    def require_readers(self) -> Path:
        """Return the CSV of human readers; raises UserError where none was named."""
        if self.readers is None:
            raise UserError("READERS= is not given: name the CSV of what human readers said, as in READERS=readers.csv")
        return self.readers


def record_of(artefact: Path) -> Path:
    """Return the JSON record that stands beside an artefact: settings, inputs, versions, seconds."""
    return artefact.with_suffix(".json")


def require(path: Path, stage: str) -> Path:
    """Return the path of a stage's input; raises UserError naming the stage that makes it where it is missing."""
    if not path.exists():
        raise UserError(f"{path} is missing: make it with `make {stage}`")
    return path


def division_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of the stage `split`: FOLDS holds folds and holdout, so that their choice is not its own."""
    return {name: value for name, value in section_settings(settings, "split").items() if name != "kind"}


def stage_settings(job_paths: Paths, stage: str, folds: tuple[int, ...], phantom: PhantomSettings) -> dict[str, Any]:
    """Return what a stage's settings file holds: its own sections, and whose artefacts it reads.

    The latter makes a stage stale when the files it reads change hands: they may be older than its own.
    """
    run = job_paths.run
    if stage == "phantom":
        return {"stage": stage, "scans": phantom.scans, "seed": phantom.seed}
    if stage == "index":
        return {"stage": stage, "reader": job_paths.reader}
    if stage in SUBMIT_STAGES:
        return {"stage": stage, "predict": section_settings(run.settings, "predict"), "folds": list(folds)}
    if stage == "split":
        return {"stage": stage, "split": division_settings(run.settings)}
    reads = {
        "window": {},
        "train": {"view": job_paths.view, "folds": job_paths.folds.stem, "split": run.settings.split.kind},
        "embed": {"train": owner(run, "train").name},
        "reduce": {"embed": owner(run, "embed").name},
        "sequence": {"reduce": owner(run, "reduce").name},
        "endtoend": {stage: owner(run, stage).name for stage in ("train", "sequence")},
        "predict": {stage: owner(run, stage).name for stage in ("embed", "sequence", "endtoend")},
    }[stage]
    sections = {section: section_settings(run.settings, section) for section in STAGE_SECTIONS[stage]}
    return {"stage": stage, **sections, "reads": reads}


def companions(paths: Paths, folds: tuple[int, ...]) -> dict[Path, list[Path]]:
    """Return the files that each artefact's stage leaves beside it; Make itself follows the artefact alone."""
    phantom_files = [paths.sample_submission, paths.truth, record_of(paths.raw)]
    beside = {
        paths.labels: phantom_files if paths.dataset == "phantom" else [],
        # Of the index, Make follows the record: see Makefile.
        record_of(paths.slices): [paths.slices, paths.rejected],
        paths.folds: [record_of(paths.folds)],
        paths.images: [paths.images_rejected, record_of(paths.images)],
        paths.score("oof"): [paths.score("test")] if paths.truth.exists() else [],
        paths.submission: [record_of(paths.submission)],
        LEADERBOARD: [record_of(LEADERBOARD)],
    }
    for fold in folds:
        models = (paths.cnn(fold), paths.sequence(fold), paths.endtoend(fold))
        for artefact in (*models, paths.embeddings(fold), paths.predictions(fold)):
            beside[artefact] = [record_of(artefact)]
        beside[paths.predictions(fold)] += beside_predictions(paths, fold)
        beside[paths.reduced(fold)] = [paths.reducer(fold), record_of(paths.reduced(fold))]
    return beside


def beside_predictions(paths: Paths, fold: int) -> list[Path]:
    """Return the tables that `predict` leaves beside PREDICTIONS: of scans, and of what is drawn."""
    settings = paths.run.settings
    speaks_of_scans = bool(settings.predict.consecutive) or settings.sequence.kind == "bilstm_sum"
    drawn = [paths.detections(fold), paths.measurements(fold), paths.overlaps(fold)]
    of_scans = [paths.scan_predictions(fold)] if speaks_of_scans else []
    return of_scans + (drawn if draws(settings) else [])


def records(paths: Paths, folds: tuple[int, ...]) -> list[Path]:
    """Return the records of all that a run's stages leave; score files say themselves what they were made of."""
    files = [paths.slices, paths.folds, paths.images, paths.submission, LEADERBOARD]
    for fold in folds:
        files += [paths.cnn(fold), paths.embeddings(fold), paths.reduced(fold), paths.sequence(fold)]
        files += [paths.endtoend(fold), paths.predictions(fold)]
    return [record_of(path) for path in ([paths.raw] if paths.dataset == "phantom" else []) + files]


def incomplete(paths: Paths, folds: tuple[int, ...]) -> list[Path]:
    """Return the artefacts that are there while one of their companions is not."""
    beside = companions(paths, folds).items()
    return [path for path, others in beside if path.exists() and not all(other.exists() for other in others)]


def index_state(paths: Paths, folds: tuple[int, ...], phantom: PhantomSettings) -> str:
    """Return `fresh`, `touched` (stale, but all that it was made of is what it was) or `changed`.

    A touched index will leave SLICES as it is. Only of a label CSV that is newer than the record is a digest taken.
    """
    record, settings, beside = record_of(paths.slices), settings_files(paths, folds, phantom), companions(paths, ())
    made_by = [settings["index"][0]] + ([settings["phantom"][0]] if paths.dataset == "phantom" else [])
    if not all(path.exists() for path in (record, *made_by, *beside[paths.labels], *beside[record])):
        return "changed"
    try:
        inputs = json.loads(record.read_text())["inputs"]
    except (ValueError, KeyError):
        return "changed"
    made_ns = record.stat().st_mtime_ns
    csvs = [path for path in (paths.labels, paths.sample_submission) if path.exists()]
    newer = [path for path in (*csvs, *made_by) if path.stat().st_mtime_ns > made_ns]
    if set(inputs) != set(map(str, csvs)) or any(file_digest(p) != inputs[str(p)] for p in newer if p in csvs):
        return "changed"
    return "touched" if newer else "fresh"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_files(
    paths: Paths, folds: tuple[int, ...], phantom: PhantomSettings
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return each stage's settings file and what it holds."""
    contents = {stage: stage_settings(paths, stage, folds, phantom) for stage in SETTINGS_STAGES}
    return {stage: (paths.settings_file(stage, held), held) for stage, held in contents.items()}


def last_model(paths: Paths, fold: Fold) -> Path:
    """Return what `predict` needs last: a model over scans, or for a recipe without one embeddings or the network."""
    if trains_whole(paths.run.settings):
        return paths.cnn(fold)
    last = {"endtoend": paths.endtoend, "sequence": paths.sequence, "cnn": paths.embeddings}
    return last[last_stage(paths.run.settings)](fold)


def write_settings_file(path: Path, contents: dict[str, Any]) -> None:
    """Write a stage's settings file and remove the ones it replaces (same folder and stage, another digest)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stem, _, hex_digits = path.stem.rpartition("-")
    if len(hex_digits) == 8 and not path.name.endswith(".settings.json"):
        for other in path.parent.glob(f"{stem}-????????.json"):
            if other != path:
                other.unlink()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


def make_variables(
    paths: Paths,
    folds: tuple[int, ...],
    phantom: PhantomSettings,
    table_recipes: Iterable[str] = (),
    system_recipes: Iterable[str] = (),
) -> dict[str, str]:
    """Return the Make variables that name a run's files; values hold no spaces.

    table_recipes: the recipe and its variants, whose runs `ablation` compares; system_recipes: those of `systems`.
    """
    any_fold = "%"
    variables = {
        "RUN": paths.run.name,
        "LABELS": paths.labels,
        "SAMPLE": paths.sample_submission,
        "INDEX_RECORD": record_of(paths.slices),
        "SLICES": paths.slices,
        "FOLDS_TABLE": paths.folds,
        "IMAGES": paths.images,
        "CNN": paths.cnn(any_fold),
        "EMBEDDINGS": paths.embeddings(any_fold),
        "REDUCED": paths.reduced(any_fold),
        "SEQUENCE": paths.sequence(any_fold),
        "ENDTOEND": paths.endtoend(any_fold),
        "LAST_MODEL": last_model(paths, any_fold),
        "PREDICTIONS": paths.predictions(any_fold),
        "FOLD_SCORE": paths.score(any_fold),
        "OOF_SCORE": paths.score("oof"),
        "CSV": paths.submission,
        "SUBMISSION": paths.submission if speaks_of_all_labels(paths.run.settings) else "",
        "FOLD_LIST": ",".join(map(str, folds)),
        "TABLE_RECIPES": ",".join(table_recipes),
        "SYSTEM_RECIPES": ",".join(system_recipes),
    }
    variables["INDEX_STATE"] = index_state(paths, folds, phantom)
    variables["INCOMPLETE"] = ",".join(map(str, incomplete(paths, folds)))
    for stage, (path, _contents) in settings_files(paths, folds, phantom).items():
        variables[f"{stage.upper()}_SETTINGS"] = path
    return {name: str(value) for name, value in variables.items()}
