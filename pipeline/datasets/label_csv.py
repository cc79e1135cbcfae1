"""A CSV of `<slice>_<label>` rows, as labels and sample submissions are: read fast, and errors say the line."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.config import LABELS, UserError
from pipeline.datasets.csv_text import SHOWN_CHARACTERS, binary_value, check_width, read_text, records, separator_of

log = logging.getLogger(__name__)

ID, LABEL = HEADER = ("ID", "Label")
"""The two columns that count; they may stand in any order and among others."""


@dataclass(frozen=True)
class LabelCsv:
    """The rows of a CSV in the order of the file, blank lines left out.

    data: the file's bytes, in which errors look up lines; ids, texts: (rows,), the two columns, stripped of spaces;
    slice_ids: (slices,), in order of first appearance; slice_codes, label_codes: (rows,), each row's slice and label.
    """

    path: Path
    data: bytes
    ids: pa.StringArray
    texts: pa.StringArray
    slice_ids: np.ndarray
    slice_codes: np.ndarray
    label_codes: np.ndarray

    @cached_property
    def firsts(self) -> np.ndarray:
        """The first row with the same slice and label, (rows,): a row that repeats nothing is its own."""
        keys = self.slice_codes * len(LABELS) + self.label_codes
        return _first_positions(keys, len(self.slice_ids) * len(LABELS))[keys]

    def values(self) -> np.ndarray:
        """Return the labels, (rows,) int8, 0 or 1; they may be written with decimals. Raises UserError for others."""
        encoded = self.texts.dictionary_encode()
        known = np.array([binary_value(text) for text in encoded.dictionary.to_pylist()], dtype=np.int8)
        values = known[encoded.indices.to_numpy()]
        wrong = np.flatnonzero(values < 0)
        if len(wrong):
            text = self.texts[wrong[0]].as_py()
            raise UserError(f"{self.where(wrong[0])}: Label {text!r} is neither 0 nor 1 ({len(wrong)} such rows)")
        return values

    def where(self, *rows: int) -> str:
        """Return `path, line N` or `path, lines N and M`: where these rows stand, counted as an editor does."""
        return _where(self.path, self.data, rows)


def read_label_csv(path: Path) -> LabelCsv:
    """Return the rows of a CSV whose IDs are `<slice>_<label>`.

    UTF-8 with or without a byte order mark; lines may end as on any system, be blank or hold quoted fields; columns are
    found by name; there may be no rows. Raises UserError with the path and the line for all that cannot be read so.
    """
    data = read_text(path, HEADER)
    ids, texts = _read_columns(path, data)
    slice_ids, slice_codes, label_codes = _parse_ids(ids)
    unknown = np.flatnonzero(label_codes < 0)
    odd = np.array([len(text.splitlines()) > 1 for text in slice_ids], dtype=bool)  # no file's name can be so: see rsna
    if odd.any():
        unknown = np.flatnonzero((label_codes < 0) | odd[slice_codes])
    if len(unknown):
        raise UserError(
            f"{_where(path, data, unknown[:1])}: ID {ids[unknown[0]].as_py()!r} is not <slice>_<label> with a label "
            f"of {', '.join(LABELS)} ({len(unknown)} such rows)"
        )
    return LabelCsv(path, data, ids, texts, slice_ids, slice_codes, label_codes)


def _read_columns(path: Path, data: bytes) -> tuple[pa.StringArray, pa.StringArray]:
    """Return the columns ID and Label as stripped text, (rows,) each."""
    first = list(islice(records(path, data), 2))
    if not first:
        raise UserError(f"{path}: the file is empty; expected the header {','.join(HEADER)}, and rows")
    (line, last_line, fields), *rows = first
    names = _column_names(f"{path}, line {line}", fields)
    if not rows:  # Arrow refuses what has none
        return pa.array([], pa.string()), pa.array([], pa.string())
    numbers = [str(names.index(name)) for name in HEADER]
    quoted = data.count(b'"')
    if quoted % 2:
        _refuse_first_odd_record(path, data, len(names))
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(skip_rows=last_line, column_names=[str(k) for k in range(len(names))]),
            # Lines inside quotes cost Arrow half its speed, and are rare.
            parse_options=pa.csv.ParseOptions(newlines_in_values=quoted > 0),
            convert_options=pa.csv.ConvertOptions(
                include_columns=numbers, column_types=dict.fromkeys(numbers, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        _refuse_first_odd_record(path, data, len(names))
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a CSV of {','.join(HEADER)} ({reason}); correct the file") from error
    ids, texts = (pc.utf8_trim_whitespace(column.combine_chunks()) for column in table.columns)
    return ids, texts


def _column_names(where: str, fields: list[str]) -> list[str]:
    """Return the names in the header; raises UserError where ID and Label are not there once each."""
    names = [field.strip() for field in fields]
    shown = ",".join(names)[:SHOWN_CHARACTERS]
    header = ",".join(HEADER)
    if any(names.count(name) != 1 for name in HEADER):
        separator = separator_of(names)
        if any(name.endswith(f"_{label}") for name in names for label in LABELS):
            what = f"is data: put the header {header} above it"
        elif separator:
            what = f"is separated by {separator!r}: save it with commas, under the header {header}"
        else:
            what = f"is no header with one {ID} and one {LABEL}: correct it"
        raise UserError(f"{where}: {shown!r} {what}")
    others = [name for name in names if name not in HEADER]
    if others:
        log.warning("%s: columns %s are not read", where, ", ".join(map(repr, others)))
    return names


def _parse_ids(ids: pa.StringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unique slice ids in order of appearance, and for each row its slice's and its label's number.

    The label's number is -1, and the slice's without meaning, where the ID is not `<slice>_<label>`.
    """
    label_codes = np.full(len(ids), -1, dtype=np.int8)
    slice_codes = np.zeros(len(ids), dtype=np.int64)
    rows_of, stems = [], []
    for code, label in enumerate(LABELS):
        has_label = pc.and_(pc.ends_with(ids, f"_{label}"), pc.not_equal(ids, f"_{label}"))
        rows = np.flatnonzero(has_label.to_numpy(zero_copy_only=False))
        label_codes[rows] = code
        rows_of.append(rows)
        stems.append(pc.binary_slice(ids.filter(has_label).cast(pa.binary()), 0, -len(label) - 1).cast(pa.string()))
    # Label by label, not row by row: Arrow cuts and numbers such columns without a Python string for each row.
    encoded = pa.concat_arrays(stems).dictionary_encode()
    rows, codes = np.concatenate(rows_of), encoded.indices.to_numpy()
    slice_codes[rows] = codes
    in_order = np.sort(rows)
    order = np.argsort(_first_positions(slice_codes[in_order], len(encoded.dictionary)))
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    slice_codes[rows] = ranks[codes]
    return encoded.dictionary.to_numpy(zero_copy_only=False)[order], slice_codes, label_codes


def _first_positions(codes: np.ndarray, count: int) -> np.ndarray:
    """Return where each of the codes 0 to count - 1 first stands in `codes` (rows,): (count,), 0 for absent ones."""
    positions = np.zeros(count, dtype=np.int64)
    positions[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return positions


def _where(path: Path, data: bytes, rows: Iterable[int]) -> str:
    """Return `path, line N`, or `path, lines N and M`, for rows counted from 0 below the header."""
    wanted = {int(row) + 1 for row in rows}
    numbered = enumerate(islice(records(path, data), max(wanted) + 1))
    lines = [str(line) for number, (line, _, _) in numbered if number in wanted]
    return f"{path}, line{'s' if len(lines) > 1 else ''} {' and '.join(lines)}"


def _refuse_first_odd_record(path: Path, data: bytes, columns: int) -> None:
    """Raise UserError for the first record with another number of fields, or whose quotes do not match."""
    for line, _, fields in records(path, data, strict=True):
        check_width(path, line, fields, columns)
