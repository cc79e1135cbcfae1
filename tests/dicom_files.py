"""Small CT slices as DICOM bytes, with RSNA's tags, for tests; any element can be changed or left out."""

import csv
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

from pipeline.config import LABELS

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
ROWS, COLUMNS = 48, 40
"""Never a square: a swap of rows and columns is to be seen."""


def slice_bytes(
    stored: np.ndarray | None = None, z_mm: float = 0.0, syntax: str = ExplicitVRLittleEndian, **changes
) -> bytes:
    """Return a DICOM file of stored values (rows, columns), signed if their type is; a change to None leaves it out.

    Values of several frames (frames, rows, columns) lie one behind the other.
    """
    stored = np.full((ROWS, COLUMNS), 1064, np.int16) if stored is None else stored
    little = syntax != ExplicitVRBigEndian
    elements = {
        "Modality": "CT",
        "PatientID": "ID_patient",
        "StudyInstanceUID": "ID_study",
        "SeriesInstanceUID": "ID_series",
        "ImagePositionPatient": [-125.0, -130.5, z_mm],
        "ImageOrientationPatient": AXIAL,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "PixelSpacing": [0.45, 0.5],
        "BitsAllocated": 8 * stored.dtype.itemsize,
        "BitsStored": 8 * stored.dtype.itemsize,
        "HighBit": 8 * stored.dtype.itemsize - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "WindowCenter": [40, 30],
        "WindowWidth": [80, 90],
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "PixelData": stored.astype(stored.dtype.newbyteorder("<" if little else ">")).tobytes(),
    } | changes
    if "BitsStored" in changes:
        elements["HighBit"] = changes.get("HighBit", changes["BitsStored"] - 1)
    dataset = Dataset()
    with disable_value_validation():  # RSNA's UIDs are none, and some tests want worse
        for keyword, value in elements.items():
            if value is not None:
                setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    buffer = BytesIO()
    with disable_value_validation():
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def items(**elements) -> list[Dataset]:
    """Return a sequence of one item with these elements."""
    item = Dataset()
    with disable_value_validation():
        for keyword, value in elements.items():
            setattr(item, keyword, value)
    return [item]


def frame_group(z_mm: float, **macros: Sequence[Dataset]) -> Dataset:
    """Return a frame's functional groups: its place, and other macros."""
    place = {"PlanePositionSequence": items(ImagePositionPatient=[-125.0, -130.5, z_mm])}
    return items(**place | macros)[0]


def shared_groups(**macros: Sequence[Dataset]) -> list[Dataset]:
    """Return the shared functional groups: orientation, pixel measures, rescale, or others."""
    usual = {
        "PlaneOrientationSequence": items(ImageOrientationPatient=AXIAL),
        "PixelMeasuresSequence": items(PixelSpacing=[0.45, 0.5], SliceThickness=5.0),
        "PixelValueTransformationSequence": items(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU"),
        "CTImageFrameTypeSequence": items(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
    }
    return items(**usual | macros)


IN_GROUPS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleIntercept", "RescaleSlope")


def enhanced_bytes(stored: np.ndarray, groups: list[Dataset], shared: list[Dataset] | None = None, **changes) -> bytes:
    """Return an enhanced CT (DICOM PS3.3 A.38) of stored values (frames, rows, columns)."""
    sequences = {
        "NumberOfFrames": len(stored),
        "SharedFunctionalGroupsSequence": shared_groups() if shared is None else shared,
        "PerFrameFunctionalGroupsSequence": groups,
    }
    return slice_bytes(stored, **dict.fromkeys(IN_GROUPS) | sequences | changes)


def truncated(data: bytes, lost: int = 1000) -> bytes:
    """Return a file's bytes without the last ones."""
    return data[:-lost]


def write_raw(raw: Path, train: dict[str, bytes], test: dict[str, bytes], positive: tuple[str, ...] = ()) -> None:
    """Write a raw folder in RSNA layout: file stem to bytes; `positive` slices are subdural."""
    for folder, files in (("stage_2_train", train), ("stage_2_test", test)):
        (raw / folder).mkdir(parents=True)
        for stem, data in files.items():
            (raw / folder / f"{stem}.dcm").write_bytes(data)
    write_labels(raw / "stage_2_train.csv", {stem: "subdural" if stem in positive else None for stem in train})
    write_sample(raw / "stage_2_sample_submission.csv", list(test))


def label_rows(slice_id: str, positive: str | None = None) -> list[str]:
    """Return the six rows of a slice that has one subtype, or none."""
    return [f"{slice_id}_{label},{int(positive is not None and label in (positive, 'any'))}" for label in LABELS]


def write_labels(path: Path, slices: dict[str, str | None]) -> None:
    """Write a label CSV: slice id to its one subtype, or None."""
    rows = [row.rsplit(",", 1) for slice_id, positive in slices.items() for row in label_rows(slice_id, positive)]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["ID", "Label"], *rows])


def write_sample(path: Path, slice_ids: list[str]) -> None:
    """Write a sample submission that asks for these slices."""
    rows = [f"{slice_id}_{label},0.5" for slice_id in slice_ids for label in LABELS]
    path.write_text("\n".join(["ID,Label", *rows]) + "\n")
