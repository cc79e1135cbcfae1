"""Files that are complete or not there: write beside, then rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on failure."""
    with temporary_path(path) as partial:
        yield partial
        partial.replace(path)


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder for what may become `path`; in the end nothing is left under it.

    The name starts with a dot and ends in `.partial`, so that a killed run's leftovers are known for what they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(_partial_name(path.name))
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a small file as `atomic_path` does, in as few calls to the system as that takes."""
    folder, name = os.path.split(path)
    partial = os.path.join(folder, _partial_name(name))
    try:
        descriptor = os.open(partial, NEW_FILE, 0o666)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(partial, NEW_FILE, 0o666)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _partial_name(name: str) -> str:
    return f".{name}.{os.getpid()}.partial"


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files that processes which are gone left in a folder; return how many."""
    leftovers = [path for path in folder.glob(".*.partial") if not _is_alive(path)] if folder.is_dir() else []
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def _is_alive(partial: Path) -> bool:
    """Return whether the process that a temporary file is named after still runs."""
    pid = partial.stem.rpartition(".")[2]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
