"""Progress bars: rate and time left on a terminal, not a byte elsewhere; and which stages show them."""

import fcntl
import io
import os
import re
import shutil
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline import ablation
from pipeline.config import BASE
from pipeline.shell.parallel import parallel_map
from pipeline.shell.progress import progress, tracked
from tests.stages import ALL, TINY, run_stages

RATE_AND_TIME_LEFT = r"100%\|.*\| \d+/\d+ \[\d\d:\d\d<\d\d:\d\d, +([\d.]+k? {what}/s|[\d.]+s/ {what})\]"

STAGES = {
    "index": ["headers", "series"],
    "window": ["folders", "files"],
    "embed": ["slices"],
    "reduce": ["slices"],
    "score": ["resamples"],
    "verify": ["images"],
}
"""Bars that stages show; those of `phantom` and of trainings are made by the same functions, or by Lightning."""


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Let standard error be a pseudo-terminal; yields the function that returns what was written there."""
    parent, child = os.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows and columns
    with open(child, "w") as error:
        monkeypatch.setattr(sys, "stderr", error)
        yield lambda: os.read(parent, 1 << 16).decode()
    os.close(parent)


def bar_of(what: str) -> re.Pattern:
    return re.compile(RATE_AND_TIME_LEFT.replace("{what}", what))


def work() -> None:
    """Show a bar in each of the ways that there are."""
    with progress(2_000_000, "B", scaled=True) as bar:
        bar.update(2_000_000)
    assert list(tracked(["a", "b", "c"], "runs")) == ["a", "b", "c"]
    assert list(parallel_map(float, (i for i in range(5)), 1, "files", total=5)) == [0, 1, 2, 3, 4]
    ablation.compare({"": np.ones(3), "x": np.zeros(3)}, np.arange(3), BASE.predict)


def test_on_a_terminal_there_are_rate_and_time_left(monkeypatch):
    with terminal(monkeypatch) as written:
        work()
        text = written()
    assert re.search(r"2\.00M/2\.00M \[\d\d:\d\d<\d\d:\d\d, ", text)
    for what in ("runs", "files", "resamples"):
        assert bar_of(what).search(text), text


def test_elsewhere_not_a_byte_is_written(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    work()
    assert sys.stderr.getvalue() == ""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder in which every stage of `tiny` has run on fold 0, and what each wrote where there is no terminal."""
    folder = tmp_path_factory.mktemp("finished")
    written = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (*ALL, "verify"):
            patch.setattr(sys, "stderr", io.StringIO())
            run_stages((stage,), *TINY)
            written[stage] = sys.stderr.getvalue()
    return folder, written


@pytest.mark.parametrize("stage", STAGES)
def test_every_long_stage_shows_its_bars_on_a_terminal_alone(stage, finished, tmp_path, monkeypatch):
    folder, written_elsewhere = finished
    assert written_elsewhere[stage] == ""
    shutil.copytree(folder, tmp_path / "copy", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "copy")
    with terminal(monkeypatch) as written:
        run_stages((stage,), *TINY)
        text = written()
    for what in STAGES[stage]:
        assert bar_of(what).search(text), text
