"""Files that are complete or not there: write beside, then rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on failure.

    The name starts with a dot and ends in `.partial`, so that a killed run's leftovers are known for what they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path, stem: str = "") -> int:
    """Remove temporary files that killed runs left for names beginning with `stem`; return how many."""
    leftovers = list(folder.glob(f".{stem}*.partial")) if folder.is_dir() else []
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)
