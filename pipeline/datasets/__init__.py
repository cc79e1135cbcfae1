"""Readers: the raw files of one archive become a listing of slices with their labels."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import UserError
from pipeline.datasets import rsna
from pipeline.datasets.listing import Listing

READERS: dict[str, Callable[[Path], Listing]] = {"rsna": rsna.read_listing}


def reader(name: str) -> Callable[[Path], Listing]:
    """Return the function that lists an archive's raw folder; raises UserError with the known names."""
    if name not in READERS:
        raise UserError(f"READER={name}: no such reader; readers are {', '.join(sorted(READERS))}")
    return READERS[name]
