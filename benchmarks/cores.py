"""How many cores there are, and how much they do together of what one does alone, which may be less than they are."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

import numpy as np

from pipeline.config import BASE
from pipeline.core.windows import window_image

CALLS = 50_000
"""Of a pure function: a second or two."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def machine_note() -> str:
    """Say how much the cores together do of what one does alone, by a pure function in plain processes."""
    together = cores() * busy_seconds(1) / busy_seconds(cores())
    return f"plain processes that compute and nothing else do {together:.2f} times as much on {cores()} cores as on one"


def gathering_note(parallel: Callable[[], object]) -> str:
    """Say how much of the cores' time this process itself takes, to hand out items and to gather results."""
    own, began = time.process_time(), time.perf_counter()
    parallel()
    share = (time.process_time() - own) / (cores() * (time.perf_counter() - began))
    return f"handing out and gathering takes {share:.0%} of their time"


def busy_seconds(processes: int) -> float:
    """Return the seconds that each of so many processes needs for the same pure computation, all at once: the mean."""
    context = multiprocessing.get_context("spawn")
    start, seconds = context.Barrier(processes), context.SimpleQueue()
    started = [context.Process(target=_be_busy, args=(start, seconds)) for _ in range(processes)]
    for process in started:
        process.start()
    found = [seconds.get() for _ in started]
    for process in started:
        process.join()
    return sum(found) / processes


def _be_busy(start: Barrier, seconds: SimpleQueue) -> None:
    """Wait until all processes are there, compute, and say how long it took."""
    hu = np.random.default_rng(0).integers(-160, 240, (512, 512)).astype(np.int16)
    window_image(hu, BASE.view.windows, BASE.view.size)
    start.wait()
    began = time.perf_counter()
    for _ in range(CALLS):
        window_image(hu, BASE.view.windows, BASE.view.size)
    seconds.put(time.perf_counter() - began)
