"""One make at a time on a data set. Standard library only: taken while Make reads its Makefile.

The lock file names the make that holds it, which holds it for as long as it lives. Each stage holds a shared lock on
the file besides: where a make was killed, its stages may still be writing.
"""

import errno
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import UserError

NAME = ".lock"
"""In the data set's folder; it stays there, and says nothing once its make is gone."""

PATIENCE_S = 1.0
"""How long another make may take over reading the file."""


def hold(folder: Path, make_pid: int) -> None:
    """Enter a make as the one that works on the data set in `folder`.

    Raises UserError where another make does, or where a stage still runs that no make waits for.
    """
    give_up = time.monotonic() + PATIENCE_S
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        while not _try_lock(file.fileno()):
            _refuse_other(folder, _holder(file.fileno()), make_pid)
            if _holder(file.fileno()).get("pid") == make_pid:
                return
            if time.monotonic() > give_up:
                raise UserError(
                    f"{folder}: a stage is at work on this data set that no make waits for (its make was killed, or it "
                    "was started by hand); wait until it is done, or stop it"
                )
            time.sleep(PATIENCE_S / 20)
        _refuse_other(folder, _holder(file.fileno()), make_pid)
        file.truncate(0)
        file.write(json.dumps({"pid": make_pid, "started": _started(make_pid)}) + "\n")


def share(folder: Path) -> None:
    """Hold the shared lock of a stage until the process ends: the file is never closed."""
    folder.mkdir(parents=True, exist_ok=True)
    _try_lock(os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666), fcntl.LOCK_SH)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep all others that call this for the same folder waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a") as file:
        _try_lock(file.fileno(), fcntl.LOCK_EX)
        yield


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool:
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        # Some network file systems know no locks: there, two makes are the user's to keep apart.
    return True


def _holder(descriptor: int) -> dict:
    """Return what the lock file says, or nothing where it is empty or half written."""
    try:
        return json.loads(os.pread(descriptor, 1000, 0))
    except ValueError:
        return {}


def _refuse_other(folder: Path, holder: dict, make_pid: int) -> None:
    pid = holder.get("pid")
    if pid is not None and pid != make_pid and holder["started"] == _started(pid) != "":
        raise UserError(
            f"{folder}: another make is at work on this data set, process {pid}; wait until it is done, or stop it"
        )


def _started(pid: int) -> str:
    """Return what tells a process from a later one of the same number: when it started; empty where it is gone."""
    if Path("/proc/self/stat").exists():
        try:
            # Behind the command's name, which may hold spaces: the state, and as the 20th field the start.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip()
