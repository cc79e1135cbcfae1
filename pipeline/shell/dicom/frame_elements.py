"""The elements of each frame of an enhanced or legacy-converted multi-frame CT, from its functional groups."""

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag

from pipeline.shell.dicom.bounded_file import Budget
from pipeline.shell.dicom.file import sequence_items

SHARED_GROUPS = Tag("SharedFunctionalGroupsSequence")
PER_FRAME_GROUPS = Tag("PerFrameFunctionalGroupsSequence")
MACROS = tuple(
    map(
        Tag,
        (
            "PlanePositionSequence",
            "PlaneOrientationSequence",
            "PixelMeasuresSequence",
            "PixelValueTransformationSequence",
            "CTImageFrameTypeSequence",
        ),
    )
)
"""Functional groups that say where a frame lies and what its values mean (DICOM PS3.3 C.7.6.16.2, C.8.15.3)."""


class FrameElements:
    """The elements of one frame: its own functional groups', else the shared ones', else the data set's own."""

    def __init__(self, layers: Sequence[Dataset]) -> None:
        self._layers = layers

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return an element's value from the first layer that has one, as Dataset.get does."""
        for layer in self._layers:
            value = layer.get(keyword)
            if value is not None and value != "":
                return value
        return default


def has_functional_groups(dataset: Dataset) -> bool:
    """Return whether a data set says of each frame where it lies."""
    return SHARED_GROUPS in dataset or PER_FRAME_GROUPS in dataset


def frame_groups(dataset: Dataset, budget: Budget) -> tuple[list[Dataset], list[Dataset]]:
    """Return the functional groups of each frame, and the item of shared ones (or none).

    Raises one of BROKEN_DICOM where they cannot be parsed.
    """
    shared = sequence_items(dataset, SHARED_GROUPS, budget)[:1]
    return sequence_items(dataset, PER_FRAME_GROUPS, budget), shared


def macro_items(groups: Sequence[Dataset], budget: Budget) -> list[Dataset]:
    """Return the items of the functional groups MACROS; raises one of BROKEN_DICOM where they cannot be parsed."""
    return [item for group in groups for macro in MACROS for item in sequence_items(group, macro, budget)[:1]]
