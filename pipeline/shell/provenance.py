"""Where an artefact comes from: settings, digests of what was read, versions, commit, threads, seconds."""

import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import digest
from pipeline.plan import file_digest
from pipeline.shell.atomic import atomic_path

PACKAGES = (
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "numba",
    "opencv-python-headless",
    "isal",
    "pydicom",
    "python-gdcm",
    "pylibjpeg-openjpeg",
    "albumentations",
    "torch",
    "timm",
    "pytorch-lightning",
)
"""Packages whose version can change an artefact."""


def commit() -> str:
    """Return the commit of the code that runs, with `+` behind it where tracked files differ; `unknown` without git."""
    root = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Return the installed version of Python and of each package that can change an artefact."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


class Provenance:
    """What one call of a stage read and was told, and the clock since it began."""

    def __init__(self, stage: str, settings: Mapping[str, Any], inputs: Iterable[Path], threads: int) -> None:
        self.started = time.monotonic()
        self.facts: dict[str, Any] = {
            "stage": stage,
            "settings": dict(settings),
            "inputs": {str(path): file_digest(path) for path in inputs},
            "versions": versions(),
            "commit": commit(),
            "threads": threads,
        }

    @contextmanager
    def recorded(self, path: Path, *outputs: Path) -> Iterator[dict[str, Any]]:
        """Remove a record while the files of which it speaks are written, then write it, with their digests.

        Yields a dictionary for what the record shall say besides. What Make finds without its record is made again: so
        a record never speaks of other files than it knows, whenever the stage is killed.
        """
        path.unlink(missing_ok=True)
        more: dict[str, Any] = {}
        yield more
        record = {
            **self.facts,
            "outputs": {str(output): file_digest(output) for output in outputs},
            **more,
            "seconds": round(time.monotonic() - self.started, 3),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(path, record)


def score_digest(score: Mapping[str, Any]) -> str:
    """Return the digest that a score file carries of all else in it."""
    return digest({key: value for key, value in score.items() if key != "digest"})


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Return the plain data of a JSON file."""
    return json.loads(path.read_text())
