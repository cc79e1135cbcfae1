"""How long the command line takes to say something: `python -m benchmarks.start`. Half a minute."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.comparison import Comparison, Target
from benchmarks.parts import run_part
from pipeline.__main__ import STAGES

MOST_SECONDS = 0.3
RUNS = 5
ROOT = Path(__file__).resolve().parents[1]


def rows() -> list[Comparison]:
    """Measure the help and the slowest of all stages' first lines, each the median of several runs."""
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        help_seconds = statistics.median(seconds_to_help(folder) for _ in range(RUNS))
        stages = {
            stage: statistics.median(seconds_to_first_line(stage, folder) for _ in range(RUNS)) for stage in STAGES
        }
    slowest = max(stages, key=lambda stage: stages[stage])
    target = Target("most", MOST_SECONDS)
    return [
        Comparison("python -m pipeline --help", "s", help_seconds, target),
        Comparison("a stage's first log line", "s", stages[slowest], target, note=f"the slowest of all, {slowest}"),
    ]


def seconds_to_help(folder: str) -> float:
    """Return the seconds until the help is printed and the process has ended."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"],
        cwd=folder,
        env=_environment(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def seconds_to_first_line(stage: str, folder: str) -> float:
    """Return the seconds until a stage has written its first line to standard error; then it is ended.

    Raises RuntimeError where it says something else than what it is about to do.
    """
    command = [sys.executable, "-m", "pipeline", stage, "--fold", "0"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stderr.readline()
        seconds = time.perf_counter() - began
        process.kill()
    if f"pipeline: {stage}: data set phantom" not in line:
        raise RuntimeError(f"{stage}: its first line is {line.strip()!r}")
    return seconds


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    run_part("start", rows, __doc__.splitlines()[0])
