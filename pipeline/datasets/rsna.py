"""The layout of the RSNA 2019 challenge: two folders of slices, labels in one CSV, a sample submission.

stage_2_train/ID_*.dcm, stage_2_test/ID_*.dcm, stage_2_train.csv (`ID,Label`, six rows a slice),
stage_2_sample_submission.csv (the same shape), and where known masks/<slice_id>.png. The slice of a file is named by
the file's stem, those of a multi-frame file by the stem and the frame's number: ID_a.dcm holds ID_a, or ID_a.1, ...
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import LABELS, UserError
from pipeline.datasets.csv_text import some
from pipeline.datasets.label_csv import LabelCsv, read_label_csv
from pipeline.datasets.listing import Listing

log = logging.getLogger(__name__)

FOLDERS = {"train": "stage_2_train", "test": "stage_2_test"}
LABELS_CSV = "stage_2_train.csv"
SAMPLE_CSV = "stage_2_sample_submission.csv"
FRAME_ID = re.compile(r"(?P<stem>.+)\.[1-9][0-9]{0,8}", re.DOTALL)
"""What a slice id may look like that is no file's stem."""
LONGEST_STEM = 200
"""Bytes; a cached image bears the slice's id, and file systems take 255 with what stands before and behind it."""


def read_listing(raw: Path) -> Listing:
    """Return the files of a raw folder, joined with their labels, after checking both CSVs.

    Raises UserError for missing files, for labels that contradict each other or match no file, and for a sample
    submission with unknown, repeated or incomplete IDs.
    """
    if not (raw / FOLDERS["train"]).is_dir() or not (raw / LABELS_CSV).is_file():
        raise UserError(
            f"{raw}: no {FOLDERS['train']}/ or no {LABELS_CSV}; put or link the data set there in RSNA layout "
            f"({', '.join((*FOLDERS.values(), LABELS_CSV, SAMPLE_CSV))})"
        )
    return listing_of(raw, {split: _names_in(raw / FOLDERS[split]) for split in FOLDERS})


def listing_of(raw: Path, names: Mapping[str, Sequence[str]]) -> Listing:
    """Return the listing of a raw folder whose files' names, sorted, are known for each split.

    Raises UserError as `read_listing` does.
    """
    labels = read_labels(raw / LABELS_CSV)
    files = pd.concat([_files(raw, split, names[split]) for split in FOLDERS], ignore_index=True)
    if not (files["split"] == "train").any():
        raise UserError(f"{raw / FOLDERS['train']}: no .dcm files; put or link the training slices there")
    labelled = _slices_of(labels.index, files, "train")
    asked = _slices_of(_read_asked(raw / SAMPLE_CSV, files), files, "test")

    files = files.sort_values("path", ignore_index=True)
    files["reason"] = np.select(
        [
            files["stem"].duplicated(),
            [_is_unusable(stem) for stem in files["stem"]],
            (files["split"] == "train") & ~_is_in(files["stem"], labelled["stem"]),
            (files["split"] == "test") & ~_is_in(files["stem"], asked["stem"]),
        ],
        ["repeated slice id", "unusable name", "no label", "not in the sample submission"],
        default="",
    )
    _compare_with_labels(raw / LABELS_CSV, labels, labelled)
    files["detail"] = ""
    repeated = files["reason"] == "repeated slice id"
    first = files.drop_duplicates("stem").set_index("stem")["path"]
    files.loc[repeated, "detail"] = "also " + files.loc[repeated, "stem"].map(first)
    unusable = files["reason"] == "unusable name"
    files.loc[unusable, "detail"] = f"a slice id holds no line breaks and at most {LONGEST_STEM} bytes"

    kept = files[files["reason"] == ""].drop(columns=["reason", "detail"])
    kept = kept.merge(pd.concat([labelled, asked]), on=["stem", "split"])
    kept = kept.join(labels.astype("Int8"), on="slice_id")
    kept.loc[kept["split"] == "test", list(LABELS)] = pd.NA
    kept["mask"] = _masks(raw, kept["slice_id"])
    left_out = files[files["reason"] != ""].rename(columns={"stem": "slice_id"}).reset_index(drop=True)
    return Listing(kept, left_out)


def read_labels(path: Path) -> pd.DataFrame:
    """Return the labels of a CSV: int8 columns in label order, indexed by slice_id, in order of first appearance.

    Rows may repeat if they agree. Raises UserError with the line of the first row that cannot be read, or where rows
    of one ID differ, labels lack, or `any` is not the maximum of the five.
    """
    table = read_label_csv(path)
    if not len(table.ids):
        raise UserError(f"{path}: no rows below the header; six rows a slice belong there")
    slice_ids, values = table.slice_ids, table.values()
    differs = np.flatnonzero(values != values[table.firsts])
    if len(differs):
        row = differs[0]
        ids = pc.take(table.ids, pa.array(differs)).unique().to_pylist()
        raise UserError(f"{table.where(table.firsts[row], row)}: rows of the same ID differ: {some(ids)}; correct them")
    wide = np.full((len(slice_ids), len(LABELS)), -1, dtype=np.int8)
    wide[table.slice_codes, table.label_codes] = values
    _check_complete(table, wide >= 0, "given")
    wrong = wide[:, -1] != wide[:, :-1].max(axis=1)
    if wrong.any():
        row = np.argmax(wrong[table.slice_codes] & (table.label_codes == LABELS.index("any")))
        raise UserError(
            f"{table.where(row)}: `any` is not the maximum of the other labels for {some(slice_ids[wrong])}"
        )
    return pd.DataFrame(wide, columns=list(LABELS), index=pd.Index(slice_ids, name="slice_id"))


def read_sample_submission(path: Path) -> np.ndarray:
    """Return the slice ids (slices,) that a sample submission asks for, in its order.

    Raises UserError, with the line, for IDs that repeat, and slices whose six rows are not complete.
    """
    return _read_sample(path).slice_ids


def read_sample_ids(path: Path) -> np.ndarray:
    """Return the IDs (rows,) of a sample submission, `<slice_id>_<label>`, in its order.

    Raises UserError as `read_sample_submission` does.
    """
    return _read_sample(path).ids.to_numpy(zero_copy_only=False)


def _read_sample(path: Path) -> LabelCsv:
    table = read_label_csv(path)
    repeated = np.flatnonzero(table.firsts != np.arange(len(table.ids)))
    if len(repeated):
        row = repeated[0]
        ids = pc.take(table.ids, pa.array(repeated)).unique().to_pylist()
        raise UserError(f"{table.where(table.firsts[row], row)}: IDs are repeated: {some(ids)}; correct the file")
    asked = np.zeros((len(table.slice_ids), len(LABELS)), dtype=bool)
    asked[table.slice_codes, table.label_codes] = True
    _check_complete(table, asked, "asked")
    return table


def _check_complete(table: LabelCsv, present: np.ndarray, what: str) -> None:
    """Raise UserError for slices without a row of each label; present: (slices, labels)."""
    lacking = ~present.all(axis=1)
    if lacking.any():
        row = np.argmax(lacking[table.slice_codes])
        slice_ids = some(table.slice_ids[lacking])
        raise UserError(f"{table.where(row)}: not all of {', '.join(LABELS)} are {what} for {slice_ids}")


def _read_asked(path: Path, files: pd.DataFrame) -> pd.Index:
    """Return the slice ids of the sample submission, each of which a file in the test folder may hold."""
    is_test = files["split"] == "test"
    if not path.is_file():
        if is_test.any():
            raise UserError(f"{path} is missing: it says which of the {is_test.sum()} test slices to predict")
        return pd.Index([], dtype=object)
    asked = pd.Index(read_sample_submission(path))
    unknown = asked[~_is_in(asked, _slices_of(asked, files, "test")["slice_id"])]
    if len(unknown):
        raise UserError(f"{path}: {len(unknown)} slices have no file in {FOLDERS['test']}/: {some(unknown)}")
    return asked


def _slices_of(slice_ids: pd.Index, files: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return slice_id, stem and split of those ids that a file of the split may hold.

    An id that is a file's stem is that file's, even where it looks like another's frame: UIDs name many files.
    """
    stems = files.loc[files["split"] == split, "stem"]
    is_stem = _is_in(slice_ids, stems)
    found = slice_ids.to_numpy(dtype=object, copy=True)
    for i in np.flatnonzero(~is_stem):
        frame = FRAME_ID.fullmatch(found[i])
        found[i] = frame["stem"] if frame else None
    slices = pd.DataFrame({"slice_id": slice_ids.to_numpy(dtype=object), "stem": found, "split": split}, dtype=object)
    return slices[_is_in(slices["stem"], stems)]


def _is_in(texts: pd.Series | pd.Index, known: pd.Series) -> np.ndarray:
    """Return which of the texts are known; pandas takes seconds over a million, as it looks at each by itself."""
    arrays = (pa.array(values.to_numpy(dtype=object), pa.string()) for values in (texts, known))
    values, value_set = arrays
    return pc.is_in(values, value_set=value_set, skip_nulls=True).to_numpy(zero_copy_only=False)


def _is_unusable(stem: str) -> bool:
    """Return whether a slice of this name could not stand in a line of a CSV, or its image not in a folder."""
    return len(f"{stem}.".splitlines()) > 1 or len(stem.encode()) > LONGEST_STEM


def _compare_with_labels(path: Path, labels: pd.DataFrame, labelled: pd.DataFrame) -> None:
    has_file = _is_in(labels.index, labelled["slice_id"])
    if not has_file.any():
        raise UserError(f"{path} does not match: none of its slices has a file in {FOLDERS['train']}/")
    if not has_file.all():
        log.warning("%s: %d labelled slices have no file: %s", path, (~has_file).sum(), some(labels.index[~has_file]))


def _names_in(folder: Path) -> list[str]:
    names = []
    if folder.is_dir():
        with os.scandir(folder) as entries:
            # A broken link is no folder either: it is to be found, and left out with its reason.
            names = sorted(e.name for e in entries if e.name.lower().endswith(".dcm") and not e.is_dir())
    unwritable = [name for name in names if not _is_utf8(name)]
    if unwritable:
        raise UserError(f"{folder}: file names are not UTF-8: {some(map(ascii, unwritable))}; rename them")
    return names


def _files(raw: Path, split: str, names: Sequence[str]) -> pd.DataFrame:
    prefix = (raw / FOLDERS[split]).as_posix() + "/"
    columns = {"path": [prefix + name for name in names], "stem": [name[: -len(".dcm")] for name in names]}
    return pd.DataFrame({**columns, "split": split}, columns=["path", "stem", "split"], dtype=object)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _masks(raw: Path, slice_ids: pd.Series) -> list[str | None]:
    folder = raw / "masks"
    known = set(os.listdir(folder)) if folder.is_dir() else set()
    return [f"{folder.as_posix()}/{i}.png" if f"{i}.png" in known else None for i in slice_ids]
