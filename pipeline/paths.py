"""Every file name of a run, once. Standard library only: Make asks before anything is installed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import BASE, Run, Settings, UserError, digest, owner, section_settings

LEADERBOARD = Path("submissions") / "leaderboard.csv"

Fold = int | str
"""A fold's number, or `%` for Make's pattern."""


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
