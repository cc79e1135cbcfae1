"""What Make is told of a run: its files, what each stage depends on, what is incomplete. Standard library only."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.config import (
    STAGE_SECTIONS,
    draws,
    last_stage,
    owner,
    section_settings,
    speaks_of_all_labels,
    trains_whole,
)
from pipeline.job import PhantomSettings
from pipeline.paths import LEADERBOARD, Fold, Paths, division_settings, record_of

SUBMIT_STAGES = ("score", "submit")
"""Stages that read the list of folds, and so are redone when it changes."""

SETTINGS_STAGES = ("phantom", "index", *STAGE_SECTIONS, *SUBMIT_STAGES)


def stage_settings(paths: Paths, stage: str, folds: tuple[int, ...], phantom: PhantomSettings) -> dict[str, Any]:
    """Return what a stage's settings file holds: its own sections, and whose artefacts it reads.

    The latter makes a stage stale when the files it reads change hands: they may be older than its own.
    """
    run = paths.run
    if stage == "phantom":
        return {"stage": stage, "scans": phantom.scans, "seed": phantom.seed}
    if stage == "index":
        return {"stage": stage, "reader": paths.reader}
    if stage in SUBMIT_STAGES:
        return {"stage": stage, "predict": section_settings(run.settings, "predict"), "folds": list(folds)}
    if stage == "split":
        return {"stage": stage, "split": division_settings(run.settings)}
    reads = {
        "window": {},
        "train": {"view": paths.view, "folds": paths.folds.stem, "split": run.settings.split.kind},
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
