"""A parallel map over files with a progress bar; the order of results is the order of the items."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed
from tqdm import tqdm

CHUNK_ITEMS = 64
"""Items that one task works through: large enough that sending a task costs nothing beside it."""


def parallel_map(
    function: Callable[[Any], Any], items: Sequence[Any], n_jobs: int, what: str, chunk_items: int = CHUNK_ITEMS
) -> Iterator[Any]:
    """Yield function(item) for each item, in order, from `n_jobs` processes, `chunk_items` at a time.

    `what` names the items in the progress bar, which is quiet where standard error is not a terminal; then the log
    says how many there are.
    """
    logging.getLogger(__name__).info("%d %s, %d processes", len(items), what, n_jobs)
    chunks = [items[start : start + chunk_items] for start in range(0, len(items), chunk_items)]
    parallel = Parallel(n_jobs=n_jobs if len(chunks) > 1 else 1, batch_size=1, return_as="generator")
    folder = os.getcwd()
    with tqdm(total=len(items), unit=" " + what, disable=None, smoothing=0.1) as bar:
        for results in parallel(delayed(_map_chunk)(function, chunk, folder) for chunk in chunks):
            bar.update(len(results))
            yield from results


def _map_chunk(function: Callable[[Any], Any], chunk: Sequence[Any], folder: str) -> list[Any]:
    # Processes are kept between calls, and file names are relative: the caller may have moved since they began.
    os.chdir(folder)
    return [function(item) for item in chunk]
