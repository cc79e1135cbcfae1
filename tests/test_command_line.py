"""The command line: help, statuses, one line for a mistake, and rooms that keep to themselves."""

import subprocess
import sys

import pytest

from pipeline.__main__ import MAKE_ONLY, STAGES, main
from pipeline.config import UserError
from tests.stages import job_of


def call(*arguments, cwd=None, root=None):
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {"PYTHONPATH": str(root)} if root else None
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_help_lists_every_stage_and_imports_nothing_heavy(project_root):
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", "--help"],
        cwd=project_root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"numpy", "pandas", "pyarrow", "torch", "cv2", "pydicom"}
    for stage in (*STAGES, *MAKE_ONLY):
        assert f"  {stage} " in found.stdout


def test_a_mistake_is_one_line_and_status_2(tmp_path, project_root):
    found = call("train", "--fold", "0", cwd=tmp_path, root=project_root)
    assert found.returncode == 2
    first, last = found.stderr.strip().splitlines()[0], found.stderr.strip().splitlines()[-1]
    assert "pipeline: train: data set phantom, run quickstart, fold 0" in first
    assert last == "error: data/phantom/slices.parquet is missing: make it with `make index`"
    assert "Traceback" not in found.stderr


def test_a_fault_of_ours_leaves_its_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["pipeline", "split", "--dataset", "x"])
    monkeypatch.setattr("pipeline.split.main", lambda job: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "epochs"), r"SET='epochs': write section.field=value"),
        (("--folds", "0 0"), r"FOLDS='0 0': give different numbers; folds are 0 to 4"),
        (("--fold", "5"), r"FOLD=5: folds are 0 to 4"),
        (("--n-jobs", "0"), r"N_JOBS=0: give at least 1"),
        (("--threads", "0"), r"THREADS=0: give at least 1"),
        (("--max-rejected", "5"), r"MAX_REJECTED=5.0: give a share between 0 and 1"),
        (("--dataset", "../x"), r"DATASET='../x': give the name of a folder below data/"),
    ],
)
def test_wrong_arguments_say_what_would_be_right(arguments, message):
    with pytest.raises(UserError, match=message):
        job_of("train", *arguments)


def test_the_recipe_depends_on_the_data_set_and_the_folds_on_the_recipe():
    assert (job_of("train").run.name, job_of("train").folds) == ("quickstart", (0, 1))
    real = job_of("train", "--dataset", "rsna")
    assert (real.run.name, real.folds) == ("burduja2020", (0, 1, 2, 3, 4))
    assert job_of("train", "--folds", "4,2").folds == (2, 4)


def test_rooms_know_only_the_rooms_they_may(project_root):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    found = subprocess.run(command, cwd=project_root, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:]


def test_ruff_finds_nothing(project_root):
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], cwd=project_root, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout[-2000:]
