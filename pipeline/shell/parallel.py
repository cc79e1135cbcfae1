"""A parallel map over files with a progress bar; the order of results is the order of the items."""

import gc
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any

from joblib import Parallel, delayed

from pipeline.shell.progress import progress

CHUNK_ITEMS = 128
"""Items that one task works through: large enough that sending a task costs nothing beside it."""


def parallel_map(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    n_jobs: int,
    what: str,
    chunk_items: int = CHUNK_ITEMS,
    total: int | None = None,
) -> Iterator[Any]:
    """Yield function(item) for each item, in order, from `n_jobs` processes, `chunk_items` at a time.

    Items that are not a sequence are taken as they are needed, a few chunks ahead of the results, maybe in another
    thread; `total` then says how many they are. `what` names the items in the progress bar and in the log.
    """
    total = len(items) if total is None else total
    logging.getLogger(__name__).info("%d %s, %d processes", total, what, n_jobs)
    parallel = Parallel(n_jobs=n_jobs if total > chunk_items else 1, batch_size=1, return_as="generator")
    folder = os.getcwd()
    with progress(total, what) as bar:
        for results in parallel(delayed(_map_chunk)(function, chunk, folder) for chunk in _chunks(items, chunk_items)):
            bar.update(len(results))
            yield from results


def _chunks(items: Iterable[Any], chunk_items: int) -> Iterator[list[Any]]:
    items = iter(items)
    while chunk := list(islice(items, chunk_items)):
        yield chunk


def _map_chunk(function: Callable[[Any], Any], chunk: Sequence[Any], folder: str) -> list[Any]:
    # Processes are kept between calls, and file names are relative: the caller may have moved since they began.
    os.chdir(folder)
    _freeze()
    return [function(item) for item in chunk]


@cache
def _freeze() -> None:
    """Exempt all that was imported from garbage collection, once a process.

    Without psutil, joblib's processes collect garbage every second, and would look through all of that each time.
    """
    gc.freeze()
