"""The parts of the benchmark: each a module of that name and a process of its own, whose rows make one table."""

import argparse
import gc
import logging
import sys
from collections.abc import Callable, Sequence

from benchmarks.comparison import HEAD, Comparison
from benchmarks.results import COST_HEAD, FOLDER, Cost, write_results
from pipeline.core.text_table import text_table

log = logging.getLogger(__name__)

THREADS = 2
"""Threads a process, as in the pipeline's default."""

PARTS = ("window", "loader", "network", "reduce", "sequence", "scan", "start")
"""Tables of stages beside the straightforward way, in README's order; a part is the module of its name."""

SLOW_PARTS: tuple[str, ...] = ("memory",)
"""Further rows of the same table, which would not fit into twenty minutes with the others."""

FULL_SIZE = "full_size"
"""The table of what RSNA's size costs, and its module."""


def run_part(table: str, rows: Callable[[], Sequence[Cost | Comparison]], description: str) -> None:
    """Be the command line of a part: measure its rows, print them, write them into the machine's file."""
    argparse.ArgumentParser(prog=f"python -m benchmarks.{table}", description=description).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    gc.freeze()  # as the pipeline's command line does behind its imports
    write_and_print(table, rows())


def print_rows(rows: Sequence[Cost | Comparison]) -> None:
    """Print rows of one kind as a table."""
    head = COST_HEAD if isinstance(rows[0], Cost) else HEAD
    sys.stdout.write(text_table(list(head), [row.cells() for row in rows], left=1))
    sys.stdout.flush()


def write_and_print(table: str, rows: Sequence[Cost | Comparison]) -> None:
    """Write a part's rows into the machine's file, and print them."""
    path = write_results(FOLDER, table, rows, THREADS)
    print_rows(rows)
    log.info("%s; `python -m benchmarks.render` writes it into README.md", path)
