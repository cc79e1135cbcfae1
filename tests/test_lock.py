"""Two makes at once: the second one stops with a clear message, and whoever died holds nothing."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.shell import lock
from tests.test_makefile import clone, finish, make

__all__ = ["clone"]

STAGE = """#!/bin/sh
# Stands for the stages' python: says that it runs, and goes on when it is told to, which is never.
echo started > {folder}/started
exec cat {folder}/go
"""


@pytest.fixture
def stage(clone) -> Path:
    """A stage that runs until it is killed, and says through a named pipe that it has begun."""
    for name in ("started", "go"):
        os.mkfifo(clone / name)
    path = clone / "stage"
    path.write_text(STAGE.format(folder=clone))
    path.chmod(0o755)
    return path


def begin(clone: Path, stage: Path) -> subprocess.Popen:
    """Start a make in a process group of its own and return it once its first stage runs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PIPELINE"))}
    command = ["make", f"BARE_PYTHON={sys.executable}", f"PYTHON={stage}", "split"]
    first = subprocess.Popen(command, cwd=clone, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    assert (clone / "started").read_text() == "started\n"
    return first


def test_a_second_make_on_the_same_data_set_stops_and_says_why(clone, stage):
    finish(clone)
    (clone / "data/phantom/folds.parquet").unlink()
    first = begin(clone, stage)
    second = make(clone, "submission", f"PYTHON={sys.executable}")
    looking = make(clone, "-n", "submission", f"PYTHON={sys.executable}")
    other = make(clone, "split", "DATASET=mine", f"PYTHON={sys.executable}")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.returncode == 2
    assert f"data/phantom: another make is at work on this data set, process {first.pid}; wait until" in second.stderr
    assert "Traceback" not in second.stderr
    assert looking.returncode == 0
    assert "data/mine/raw/stage_2_train.csv is missing" in other.stderr
    # Killed: it holds nothing any more.
    finish(clone)
    again = make(clone, "submission", f"PYTHON={sys.executable}")
    assert "Nothing to be done for 'submission'" in again.stdout, again.stderr


def test_a_stage_that_outlives_its_make_keeps_the_next_make_off(clone):
    finish(clone)
    with (clone / "data/phantom/.lock").open("w") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)
        found = make(clone, "submission", f"PYTHON={sys.executable}")
        assert found.returncode == 2
        assert "data/phantom: a stage is at work on this data set that no make waits for" in found.stderr
    assert make(clone, "submission", f"PYTHON={sys.executable}").returncode == 0


def test_a_make_called_by_the_one_that_holds_the_data_set_goes_on(tmp_path):
    lock.hold(tmp_path, os.getpid())
    with (tmp_path / lock.NAME).open() as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)  # a stage of the first one
        lock.hold(tmp_path, os.getpid())
        with pytest.raises(UserError, match=rf"another make is at work .* process {os.getpid()}"):
            lock.hold(tmp_path, os.getppid())


@pytest.mark.parametrize(
    "text", ["", "{", '{"pid": 1, "started": "of another time"}', '{"pid": 99999999, "started": ""}']
)
def test_what_a_dead_make_left_holds_nothing(tmp_path, text):
    (tmp_path / lock.NAME).write_text(text)
    lock.hold(tmp_path, os.getpid())
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()


def test_a_dry_run_leaves_no_lock_behind(clone):
    assert make(clone, "-n", "submission", f"PYTHON={sys.executable}").returncode == 0
    assert not (clone / "data").exists()
