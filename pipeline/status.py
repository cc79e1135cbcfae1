"""Stage `status`: each artefact of the run: fresh, stale and why, or missing. Make itself is asked, by a dry run."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pipeline.config import UserError, last_stage, speaks_of_all_labels, trains_whole
from pipeline.job import Job
from pipeline.paths import LEADERBOARD, Paths, record_of
from pipeline.shell.provenance import commit, read_json
from pipeline.shell.tables import read_table

log = logging.getLogger(__name__)

MISSING = re.compile(r"^ *File '(?P<file>.+)' does not exist\.$")
NEWER = re.compile(r"^ *Prerequisite '(?P<file>.+)' is newer than target '(?P<target>.+)'\.$")
REMADE = re.compile(r"^ *Must remake target '(?P<file>.+)'\.$")
FRESH = re.compile(r"^ *No need to remake target '(?P<file>.+)'\.$")
FAILED = re.compile(r"^\S+: \*\*\* (?P<text>.+)$")
"""What GNU Make 4 says under --debug=v in the C locale."""


@dataclass
class DryRun:
    """What Make found: files that are not there, to be made, and fresh; each one's cause, the first file newer than it;
    and what Make could not do.
    """

    missing: set[str] = field(default_factory=set)
    remade: set[str] = field(default_factory=set)
    fresh: set[str] = field(default_factory=set)
    cause: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def main(job: Job) -> None:
    """Print the state of the run's artefacts, and what Make does not watch: the code, and the number of raw files."""
    if "MAKELEVEL" not in os.environ:
        raise UserError("status asks Make with the variables of its command line: call it as `make status`")
    found = parse(dry_run(["submission"]))
    say_of(found, str(job.paths.slices), as_of=str(record_of(job.paths.slices)))
    files = artefacts(job.paths, job.folds)
    sys.stdout.write(states_text(found, files))
    for line in [*code_notes(files, commit()), *raw_notes(job.paths)]:
        sys.stdout.write(line + "\n")


def artefacts(paths: Paths, folds: Sequence[int]) -> list[Path]:
    """Return the files that Make makes for a run, in the order of the pipeline."""
    settings = paths.run.settings
    by_fold = [paths.cnn]
    if not trains_whole(settings):
        over_scans = {"cnn": 0, "sequence": 2, "endtoend": 3}[last_stage(settings)]
        by_fold += [paths.embeddings, *[paths.reduced, paths.sequence, paths.endtoend][:over_scans]]
    files = [paths.labels, paths.slices, paths.folds, paths.images]
    files += [artefact(fold) for artefact in [*by_fold, paths.predictions, paths.score] for fold in folds]
    return [*files, paths.score("oof"), *([paths.submission] if speaks_of_all_labels(settings) else []), LEADERBOARD]


def dry_run(goals: Sequence[str], folder: Path = Path()) -> str:
    """Return what Make says it would do for these goals, and why; nothing is done.

    The variables of the command line that called us reach it through MAKEFLAGS; FORCE would make all look stale.
    """
    kept = {key: value for key, value in os.environ.items() if key not in ("MAKELEVEL", "MFLAGS")}
    command = ["make", "--no-print-directory", "-n", "-k", "-j1", "--debug=v", *goals, "FORCE="]
    result = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.stdout


def parse(output: str) -> DryRun:
    """Return what a dry run says, from the output of `make -n --debug=v`."""
    found = DryRun()
    for line in output.splitlines():
        if match := MISSING.match(line):
            found.missing.add(match["file"])
        elif match := NEWER.match(line):
            found.cause.setdefault(match["target"], match["file"])
        elif match := REMADE.match(line):
            found.remade.add(match["file"])
        elif match := FRESH.match(line):
            found.fresh.add(match["file"])
        elif match := FAILED.match(line):
            found.faults.append(match["text"])
    return found


def say_of(found: DryRun, file: str, as_of: str) -> None:
    """Let all that Make said of the file `as_of` hold for `file` too.

    Make follows the index by its record: SLICES itself may be older, where the index found what it had found before.
    """
    for group in (found.remade, found.fresh):
        group.discard(file)
        group.update({file} if as_of in group else ())
    if as_of in found.cause:
        found.cause[file] = found.cause[as_of]


def state(found: DryRun, file: str, exists: bool) -> tuple[str, str]:
    """Return `fresh`, `stale`, `missing` or `blocked`, and for a stale file the reason: the first thing that changed.

    exists: whether the file is there; Make does not look at files behind one that it cannot make.
    """
    if not exists:
        return "missing", ""
    if file in found.fresh:
        return "fresh", ""
    if file not in found.remade:
        return "blocked", "by what Make cannot do, below"
    cause = found.cause.get(file)
    while cause in found.remade and cause not in found.missing:
        cause = found.cause.get(cause)
    if cause is None:
        return "stale", "to be redone"
    return "stale", _missing_text(cause) if cause in found.missing else f"{cause} is newer"


def _missing_text(file: str) -> str:
    """Return the reason in words: a settings file that is not there stands for settings that changed."""
    match = re.fullmatch(r"(?P<name>.+)-[0-9a-f]{8}\.json|(?P<plain>.+)\.settings\.json", Path(file).name)
    return f"settings of {match['name'] or match['plain']} changed" if match else f"{file} is missing"


def states_text(found: DryRun, files: Sequence[Path]) -> str:
    """Return the table of states as text, and what Make could not do."""
    rows = [(str(file), *state(found, str(file), file.exists())) for file in files]
    width = max(len(file) for file, _, _ in rows)
    lines = [f"{file.ljust(width)}  {what.ljust(7)}  {why}".rstrip() for file, what, why in rows]
    return "\n".join([*lines, *(f"make: {fault}" for fault in found.faults)]) + "\n"


def code_notes(files: Sequence[Path], now: str) -> list[str]:
    """Return a line that says which artefacts were made by other code; code is no input, so they count as fresh."""
    others = {}
    for file in files:
        record = record_of(file)
        made_by = read_json(record).get("commit") if file.exists() and record.exists() else None
        if made_by not in (None, now):
            others.setdefault(made_by, []).append(file.name)
    return [
        f"code: {len(names)} artefacts were made by commit {made_by}, this is {now}: {', '.join(names[:3])}"
        f"{' ...' if len(names) > 3 else ''}; redo a stage with FORCE=1 where that matters"
        for made_by, names in others.items()
    ]


def raw_notes(paths: Paths) -> list[str]:
    """Return a line where raw/ holds another number of files than the index knows; Make does not watch that."""
    if not (paths.slices.exists() and paths.rejected.exists()):
        return []
    # A multi-frame file has several rows.
    known = pd.concat([read_table(path, ["path"]) for path in (paths.slices, paths.rejected)])["path"].nunique()
    held = sum(1 for path in paths.raw.glob("stage_2_*/*") if path.suffix.lower() == ".dcm")
    if held == known:
        return []
    return [f"raw: {paths.raw} holds {held} DICOM files, the index knows {known}; redo it with `make index FORCE=1`"]
