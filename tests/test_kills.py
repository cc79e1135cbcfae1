"""`kill -9` at random moments of a stage: afterwards the same submission, byte for byte, and what was done stays done.

`make torture` does the same more often (`--kills`).
"""

import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.paths import record_of
from pipeline.shell.provenance import read_json
from tests.stages import ALL, TINY, job_of, run_stages

STAGES = ("phantom", "index", "window", "train", "embed", "sequence", "submit")
KILLS_AT_ONCE = 3
"""Kills before a run is let end: what was killed goes on from where it was killed before."""
KILLS_OF_MAKE, LONGEST_SECONDS = 6, 12.0
"""Of the whole of make: fewer kills on a machine that is done before."""
RENAMES = 12
"""Moments between two renames that are tried, one after the other."""

# Stages run in processes forked from one that has all imports behind it and has started no thread.
SERVER = multiprocessing.get_context("forkserver")
PRELOADED = ("pytest", "tests.test_kills", "pipeline.__main__", "pytorch_lightning.loggers.tensorboard")
SERVER.set_forkserver_preload([*PRELOADED, *(f"pipeline.{stage}" for stage in ALL)])


def _run(folder: Path, stage: str, arguments: tuple[str, ...], dies_at_rename: int | None, begun: Connection) -> None:
    """Run one stage in a process group of its own; optionally die where a file is about to get its name."""
    os.setsid()
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own: loaders' workers are forked
    begun.send(None)
    if dies_at_rename is not None:
        _die_at_rename(dies_at_rename)
    sys.argv = ["pipeline", stage, *arguments]
    sys.exit(main())


def _die_at_rename(number: int) -> None:
    count = iter(range(number))

    def rename_or_die(original):
        def renamed(*arguments, **keywords):
            if next(count, None) is None:
                os.killpg(os.getpid(), signal.SIGKILL)
            return original(*arguments, **keywords)

        return renamed

    os.replace, os.rename = rename_or_die(os.replace), rename_or_die(os.rename)


def run(folder: Path, stage: str, arguments, seconds: float | None = None, dies_at_rename: int | None = None) -> bool:
    """Run a stage in a process of its own; kill it and all its processes after `seconds`. Return whether it ended."""
    begins, begun = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=_run, args=(folder, stage, tuple(arguments), dies_at_rename, begun))
    process.start()
    begins.recv()
    process.join(timeout=seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    killed = process.exitcode == -signal.SIGKILL
    assert killed or process.exitcode == 0, f"{stage} failed with status {process.exitcode}"
    return not killed


def planned(folder: Path, goal: str = "submission") -> Iterator[tuple[str, list[str]]]:
    """Yield what Make would run, stages and the writing of settings files, with their arguments."""
    variables = ["RECIPE=tiny", "PHANTOM_SCANS=10", "THREADS=1", "N_JOBS=1", "FOLDS=0"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "PIPELINE"))}
    command = ["make", "-n", f"PYTHON={sys.executable}", f"BARE_PYTHON={sys.executable}", goal, *variables]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for stage, arguments in re.findall(r"-m pipeline (\w+) (.*)", found.stdout):
        if stage in (*ALL, "settings"):
            yield stage, arguments.replace('"', "").split()


def finish(folder: Path) -> None:
    """Do what `make submission` says is to be done."""
    for stage, arguments in planned(folder):
        assert run(folder, stage, arguments)


def files(folder: Path, *parts: str) -> dict[str, bytes]:
    """Return all artefacts but logs, checkpoints and records, whose seconds differ from run to run."""
    found = {}
    for part in parts or ("data", "models", "features", "submissions"):
        for path in sorted((folder / part).rglob("*")):
            kept = path.is_file() and path.suffix != ".json" and not any(p.endswith(".run") for p in path.parts)
            if kept and path.name not in (".lock", "leaderboard.csv"):
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, project_root):
    """A folder in which nothing was ever killed, and the seconds of each stage there."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(project_root / "Makefile", folder)
    (folder / "pipeline").symlink_to(project_root / "pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finish(folder)
        job = job_of("submit", *TINY)
        records = {
            "phantom": record_of(job.paths.raw),
            "index": record_of(job.paths.slices),
            "window": record_of(job.paths.images),
            "train": record_of(job.paths.cnn(0)),
            "embed": record_of(job.paths.embeddings(0)),
            "sequence": record_of(job.paths.sequence(0)),
            "submit": record_of(job.paths.submission),
        }
        seconds = {stage: read_json(record)["seconds"] for stage, record in records.items()}
    return folder, seconds


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """A folder that holds the same files by hard links: what replaces files by renaming leaves the others alone."""
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder, symlinks=True, copy_function=os.link)
    return folder


def undo(folder: Path, stage: str) -> None:
    """Remove what a stage made."""
    paths = job_of("submit", *TINY).paths
    made = {
        "phantom": [paths.raw, record_of(paths.raw)],
        "index": [paths.slices, paths.rejected, record_of(paths.slices)],
        "window": [paths.png, paths.images, paths.images_rejected, record_of(paths.images)],
        "train": [paths.cnn(0), record_of(paths.cnn(0)), paths.cnn_run(0)],
        "embed": [paths.embeddings(0), record_of(paths.embeddings(0))],
        "sequence": [paths.sequence(0), record_of(paths.sequence(0)), paths.sequence_run(0)],
        "submit": [paths.submission, record_of(paths.submission)],
    }[stage]
    for path in made:
        if (folder / path).is_dir():
            shutil.rmtree(folder / path)
        else:
            (folder / path).unlink(missing_ok=True)


def arguments_of(stage: str) -> tuple[str, ...]:
    return (*TINY, "--fold", "0") if stage in ("train", "embed", "sequence") else TINY


def leftovers(folder: Path) -> list[Path]:
    names = ("*.partial", "*.old")
    return [
        path
        for part in ("data", "models", "features", "submissions")
        for n in names
        for path in (folder / part).rglob(n)
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_to_the_same_submission(stage, whole, copy, request):
    uninterrupted, seconds = whole
    rng = random.Random(f"{stage} {request.config.getoption('--kills-seed')}")
    kills = request.config.getoption("--kills")
    killed = 0
    while killed < kills:
        undo(copy, stage)
        for _ in range(min(KILLS_AT_ONCE, kills - killed)):
            while run(copy, stage, arguments_of(stage), seconds=rng.uniform(0, seconds[stage])):
                undo(copy, stage)  # it was done before its time
            killed += 1
        finish(copy)
        assert not leftovers(copy)
        assert files(copy) == files(uninterrupted)


@pytest.mark.parametrize("stage", ["index", "window", "embed", "submit"])
def test_between_any_two_files_a_kill_leaves_nothing_that_passes_for_whole(stage, whole, copy):
    undo(copy, stage)
    # The last files of `window` are its tables: behind the images.
    first = 0 if stage != "window" else len(list((whole[0] / job_of("window", *TINY).paths.png).rglob("*.png"))) - 2
    for number in range(first, first + RENAMES):
        undo(copy, stage)
        if run(copy, stage, arguments_of(stage), dies_at_rename=number):
            break
        assert next(planned(copy), (None,))[0] == stage, f"killed at rename {number}, {stage} passes for done"
    else:
        raise AssertionError(f"{stage} has more than {RENAMES} files to rename: test them all")
    assert not leftovers(copy)
    assert files(copy) == files(whole[0])


def test_images_that_were_done_stay_done(whole, copy):
    undo(copy, "window")
    assert not run(copy, "window", arguments_of("window"), dies_at_rename=40)
    paths = job_of("window", *TINY).paths
    done = {path: path.stat().st_mtime_ns for path in (copy / paths.png).rglob("*.png")}
    assert len(done) == 40
    assert run(copy, "window", arguments_of("window"))
    counts = read_json(copy / record_of(paths.images))["counts"]
    assert counts["new"] == counts["images"] - 40
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


@pytest.mark.parametrize("stage", ["train", "sequence"])
def test_a_training_costs_at_most_its_unfinished_epoch(stage, whole, copy):
    """Killed at the rename of the second epoch's checkpoint: the first epoch is not run again."""
    undo(copy, stage)
    paths = job_of(stage, *TINY).paths
    artefact = paths.cnn(0) if stage == "train" else paths.sequence(0)
    # The first file is the note of what is trained, then comes a checkpoint an epoch.
    assert not run(copy, stage, arguments_of(stage), dies_at_rename=2)
    assert run(copy, stage, arguments_of(stage))
    record = read_json(copy / record_of(artefact))
    assert (record["epochs"], record["epochs_run"], record["resumed"]) == (2, 1, True)
    assert (copy / artefact).read_bytes() == (whole[0] / artefact).read_bytes()


@pytest.mark.torture
def test_a_killed_make_goes_on_to_the_same_submission(whole, tmp_path, project_root, request):
    """The whole of make, with all its processes, is killed several times before it may end."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(project_root / name, tmp_path)
    (tmp_path / "pipeline").symlink_to(project_root / "pipeline")
    command = ["make", f"PYTHON={sys.executable}", f"BARE_PYTHON={sys.executable}", "submission", "-j2"]
    command += ["RECIPE=tiny", "PHANTOM_SCANS=10", "FOLDS=0", "THREADS=1", "N_JOBS=1"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "PIPELINE"))}
    rng = random.Random(request.config.getoption("--kills-seed"))
    kills = 0
    for _ in range(KILLS_OF_MAKE):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
        try:
            process.wait(timeout=rng.uniform(1, LONGEST_SECONDS))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 2
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
    assert not leftovers(tmp_path)
    assert files(tmp_path) == files(whole[0])


def test_the_uninterrupted_run_is_what_the_stages_give_in_one_process(whole, tmp_path, monkeypatch):
    """Two routes: what the kills are held against does not come from the way in which they are made."""
    monkeypatch.chdir(tmp_path)
    run_stages(ALL, *TINY)
    assert files(tmp_path, "submissions/phantom/tiny.csv") == files(whole[0], "submissions/phantom/tiny.csv")
    submission = Path("submissions/phantom/tiny.csv")
    assert submission.read_bytes() == (whole[0] / submission).read_bytes()
