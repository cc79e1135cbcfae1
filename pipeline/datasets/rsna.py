"""The layout of the RSNA 2019 challenge: two folders of slices, labels in one CSV, a sample submission.

stage_2_train/ID_*.dcm, stage_2_test/ID_*.dcm, stage_2_train.csv (`ID,Label`, six rows a slice),
stage_2_sample_submission.csv (the same shape), and where known masks/<slice_id>.png. The slice of a file is named by
the file's stem, those of a multi-frame file by the stem and the frame's number: ID_a.dcm holds ID_a, or ID_a.1, ...
"""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.config import LABELS, UserError
from pipeline.datasets.listing import Listing

log = logging.getLogger(__name__)

FOLDERS = {"train": "stage_2_train", "test": "stage_2_test"}
LABELS_CSV = "stage_2_train.csv"
SAMPLE_CSV = "stage_2_sample_submission.csv"
HEADER = ["ID", "Label"]
FRAME_ID = re.compile(r"(?P<stem>.+)\.[1-9][0-9]{0,8}", re.DOTALL)
"""What a slice id may look like that is no file's stem."""
LONGEST_STEM = 200
"""Bytes; a cached image bears the slice's id, and file systems take 255 with what stands before and behind it."""
SHOWN = 5
"""IDs that an error names."""


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
    labels = read_labels(raw / LABELS_CSV)
    files = pd.concat([_list_folder(raw, split) for split in FOLDERS], ignore_index=True)
    if not (files["split"] == "train").any():
        raise UserError(f"{raw / FOLDERS['train']}: no .dcm files; put or link the training slices there")
    labelled = _slices_of(labels.index, files, "train")
    asked = _slices_of(_read_asked(raw / SAMPLE_CSV, files), files, "test")

    files = files.sort_values("path", ignore_index=True)
    files["reason"] = np.select(
        [
            files["stem"].duplicated(),
            [_is_unusable(stem) for stem in files["stem"]],
            (files["split"] == "train") & ~files["stem"].isin(labelled["stem"]),
            (files["split"] == "test") & ~files["stem"].isin(asked["stem"]),
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

    Rows may repeat if they agree. Raises UserError naming IDs where rows differ, labels lack, or `any` is not the
    maximum of the five, and line numbers where a row cannot be read.
    """
    table = _read_csv(path)
    slice_ids, slice_codes, label_codes = _parse_ids(path, table.column("ID"))
    values = _parse_values(path, table)
    wide = np.full((len(slice_ids), len(LABELS)), -1, dtype=np.int8)
    wide[slice_codes, label_codes] = values
    differs = wide[slice_codes, label_codes] != values
    if differs.any():
        ids = pc.take(table.column("ID"), pa.array(np.flatnonzero(differs))).to_pylist()
        raise UserError(f"{path}: rows of the same ID differ: {_some(ids)}; correct the file")
    lacking = (wide < 0).any(axis=1)
    if lacking.any():
        raise UserError(f"{path}: not all of {', '.join(LABELS)} are given for {_some(slice_ids[lacking])}")
    wrong = wide[:, -1] != wide[:, :-1].max(axis=1)
    if wrong.any():
        raise UserError(f"{path}: `any` is not the maximum of the other labels for {_some(slice_ids[wrong])}")
    return pd.DataFrame(wide, columns=list(LABELS), index=pd.Index(slice_ids, name="slice_id"))


def read_sample_submission(path: Path) -> np.ndarray:
    """Return the slice ids (slices,) that a sample submission asks for, in its order.

    Raises UserError naming IDs that repeat, or slices whose six rows are not complete.
    """
    table = _read_csv(path)
    slice_ids, slice_codes, label_codes = _parse_ids(path, table.column("ID"))
    counts = np.zeros((len(slice_ids), len(LABELS)), dtype=np.int32)
    np.add.at(counts, (slice_codes, label_codes), 1)
    repeated = (counts > 1).any(axis=1)
    if repeated.any():
        raise UserError(f"{path}: IDs are repeated, of {_some(slice_ids[repeated])}")
    lacking = (counts == 0).any(axis=1)
    if lacking.any():
        raise UserError(f"{path}: not all of {', '.join(LABELS)} are asked for {_some(slice_ids[lacking])}")
    return slice_ids


def _read_asked(path: Path, files: pd.DataFrame) -> pd.Index:
    """Return the slice ids of the sample submission, each of which a file in the test folder may hold."""
    is_test = files["split"] == "test"
    if not path.is_file():
        if is_test.any():
            raise UserError(f"{path} is missing: it says which of the {is_test.sum()} test slices to predict")
        return pd.Index([], dtype=object)
    asked = pd.Index(read_sample_submission(path))
    unknown = asked[~asked.isin(_slices_of(asked, files, "test")["slice_id"])]
    if len(unknown):
        raise UserError(f"{path}: {len(unknown)} slices have no file in {FOLDERS['test']}/: {_some(unknown)}")
    return asked


def _slices_of(slice_ids: pd.Index, files: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return slice_id, stem and split of those ids that a file of the split may hold.

    An id that is a file's stem is that file's, even where it looks like another's frame: UIDs name many files.
    """
    stems = pd.Index(files.loc[files["split"] == split, "stem"]).unique()
    is_stem = slice_ids.isin(stems)
    found = slice_ids.to_numpy(dtype=object, copy=True)
    for i in np.flatnonzero(~is_stem):
        frame = FRAME_ID.fullmatch(found[i])
        found[i] = frame["stem"] if frame else None
    slices = pd.DataFrame({"slice_id": slice_ids.to_numpy(dtype=object), "stem": found, "split": split}, dtype=object)
    return slices[slices["stem"].isin(stems)]


def _is_unusable(stem: str) -> bool:
    """Return whether a slice of this name could not stand in a line of a CSV, or its image not in a folder."""
    return len(f"{stem}.".splitlines()) > 1 or len(stem.encode()) > LONGEST_STEM


def _compare_with_labels(path: Path, labels: pd.DataFrame, labelled: pd.DataFrame) -> None:
    has_file = labels.index.isin(labelled["slice_id"])
    if not has_file.any():
        raise UserError(f"{path} does not match: none of its slices has a file in {FOLDERS['train']}/")
    if not has_file.all():
        log.warning("%s: %d labelled slices have no file: %s", path, (~has_file).sum(), _some(labels.index[~has_file]))


def _list_folder(raw: Path, split: str) -> pd.DataFrame:
    folder = raw / FOLDERS[split]
    names = []
    if folder.is_dir():
        with os.scandir(folder) as entries:
            # A broken link is no folder either: it is to be found, and left out with its reason.
            names = sorted(e.name for e in entries if e.name.lower().endswith(".dcm") and not e.is_dir())
    unwritable = [name for name in names if not _is_utf8(name)]
    if unwritable:
        raise UserError(f"{folder}: file names are not UTF-8: {_some(map(ascii, unwritable))}; rename them")
    prefix = folder.as_posix() + "/"
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


def _read_csv(path: Path) -> pa.Table:
    """Return the two columns of a CSV as text."""
    options = pa.csv.ConvertOptions(column_types=dict.fromkeys(HEADER, pa.string()), strings_can_be_null=False)
    try:
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a CSV of {','.join(HEADER)} ({' '.join(str(error).split())[:200]})") from error
    if table.column_names != HEADER:
        found = ",".join(table.column_names)[:80]
        raise UserError(f"{path}: line 1 is {found!r}, expected the header {','.join(HEADER)}")
    return table.combine_chunks()


def _parse_ids(path: Path, ids: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unique slice ids, and for each row its slice's and its label's number."""
    label_codes = np.full(len(ids), -1, dtype=np.int8)
    slice_texts = np.empty(len(ids), dtype=object)
    for code, label in enumerate(LABELS):
        rows = pc.ends_with(ids, f"_{label}").to_numpy()
        label_codes[rows] = code
        slice_texts[rows] = pc.utf8_slice_codeunits(ids.filter(pa.array(rows)), 0, -len(label) - 1).to_numpy()
    unknown = np.flatnonzero((label_codes < 0) | (slice_texts == ""))
    if len(unknown):
        first = ids[unknown[0]].as_py()
        raise UserError(
            f"{path}{_line_of(path, first)}: ID {first!r} is not <slice>_<label> with a label of "
            f"{', '.join(LABELS)} ({len(unknown)} such rows)"
        )
    slice_codes, slice_ids = pd.factorize(slice_texts)
    return slice_ids, slice_codes, label_codes


def _parse_values(path: Path, table: pa.Table) -> np.ndarray:
    """Return labels (rows,) of 0 and 1; they may be written with decimals."""
    encoded = table.column("Label").combine_chunks().dictionary_encode()
    known = np.array([_label(text) for text in encoded.dictionary.to_pylist()], dtype=np.int8)
    values = known[encoded.indices.to_numpy()]
    wrong = np.flatnonzero(values < 0)
    if len(wrong):
        row_id, text = (column[wrong[0]].as_py() for column in table.columns)
        raise UserError(
            f"{path}{_line_of(path, row_id, text)}: Label {text!r} is neither 0 nor 1 ({len(wrong)} such rows)"
        )
    return values


def _label(text: str) -> int:
    """Return 0 or 1, or -1 for a text that is neither."""
    try:
        number = float(text)
    except ValueError:
        return -1
    return int(number) if number in (0.0, 1.0) else -1


def _line_of(path: Path, *fields: str) -> str:
    """Return `, line N` for the first line that begins with these fields, or nothing."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if [field.strip('"') for field in line.rstrip("\r\n").split(",")][: len(fields)] == list(fields):
                return f", line {number}"
    return ""


def _some(ids: Iterable[str]) -> str:
    """Return the first few of some ids, and how many more there are."""
    ids = list(ids)
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more
