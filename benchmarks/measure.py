"""A command's wall seconds and peak memory, as the kernel counted them for that process alone.

Run as a script it is the launcher in between: Linux counts the memory of the process that forks towards the child's
peak, so the one that forks must be small. Standard library only.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

MB = 1024 * 1024
TAIL_LINES = 20
"""Of a failed command's output, in the error."""


def measure(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """Return the wall seconds and the peak resident memory in MB of a command run in a folder.

    Raises RuntimeError with the end of its output where it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "usage.json"
        launcher = [sys.executable, "-I", "-S", __file__, str(report), *command]
        done = subprocess.run(
            launcher,
            check=False,  # its output goes into the error below
            cwd=folder,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{tail}")
        usage = json.loads(report.read_text())
    return usage["seconds"], usage["peak_mb"]


def _launch(report: Path, command: Sequence[str]) -> int:
    """Run a command, write what it used, and return its exit status (128 + the signal's number where one ended it)."""
    started = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    report.write_text(json.dumps({"seconds": seconds, "peak_mb": kilobytes * 1024 / MB}))
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(_launch(Path(sys.argv[1]), sys.argv[2:]))
