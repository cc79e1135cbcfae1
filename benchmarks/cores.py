"""All cores at work with nothing between them: the most that handing out work to processes can reach."""

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def processes_apart(function: Callable[[Any], Any], parts: Sequence[Sequence[Any]]) -> Iterator[Callable[[], float]]:
    """Start plain processes, each with a part of its own; yield what lets all of them work through it once.

    It returns the seconds until the last has called `function` for each of its items. All begin at once, after one
    call that does not count; nothing is handed out or gathered while they work.
    """
    context = multiprocessing.get_context("spawn")
    start, seconds = context.Barrier(len(parts) + 1), context.SimpleQueue()

    def work_once() -> float:
        start.wait()
        return max(seconds.get() for _ in parts)

    processes = [context.Process(target=_work, args=(function, part, start, seconds), daemon=True) for part in parts]
    for process in processes:
        process.start()
    try:
        yield work_once
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(function: Callable[[Any], Any], part: Sequence[Any], start: Barrier, seconds: SimpleQueue) -> None:
    function(part[0])
    gc.freeze()
    while True:
        start.wait()
        began = time.perf_counter()
        for item in part:
            function(item)
        seconds.put(time.perf_counter() - began)
