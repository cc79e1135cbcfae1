"""A CSV as text: bytes that are UTF-8, and records that know on which line they stand."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.config import UserError

SEPARATORS = (";", "\t", "|")
"""What other programs write between columns; refused by name."""

SHOWN_CHARACTERS = 80
"""Of a line in an error."""

SHOWN = 5
"""IDs that an error names."""


def read_text(path: Path, header: Sequence[str]) -> bytes:
    """Return a file's bytes, which are UTF-8 without NUL; raises UserError with the line for others.

    header: the columns that belong there, for the error.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); put a CSV of {','.join(header)} there") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}, line 1: the text is UTF-16; save it as UTF-8")
    nul = data.find(b"\0")
    if nul >= 0:
        raise UserError(
            f"{path}, line {_line_at(data, nul)}: holds a NUL byte: no text, or not UTF-8; save it as a CSV in UTF-8"
        )
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = data[error.start : error.start + 1].hex()
        raise UserError(
            f"{path}, line {_line_at(data, error.start)}: byte 0x{wrong} is not UTF-8; save it as UTF-8"
        ) from error
    return data


def _line_at(data: bytes, offset: int) -> int:
    """Return the number of the line, from 1, in which a byte stands."""
    return len((data[:offset] + b".").splitlines())


def records(path: Path, data: bytes, strict: bool = False) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the first line, the last line and the fields of each record that is not blank, the header among them.

    Slower than Arrow by far, but it knows on which line it is. Raises UserError where quotes do not match.
    """
    # newline="" leaves line ends to the csv module, which counts them inside quotes, too.
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=strict)
    before = 0
    try:
        for fields in reader:
            if fields:
                yield before + 1, reader.line_num, fields
            before = reader.line_num
    except csv.Error as error:
        raise UserError(f"{path}, line {before + 1}: a quoted field does not end ({error}); correct it") from error


def check_width(path: Path, line: int, fields: Sequence[str], columns: int) -> None:
    """Raise UserError where a record has another number of fields than the header."""
    if len(fields) != columns:
        shown = ",".join(fields)[:SHOWN_CHARACTERS]
        raise UserError(
            f"{path}, line {line}: expected {columns} fields, as in the header, found {len(fields)}: {shown!r}; "
            f"correct the line"
        )


def separator_of(names: Sequence[str]) -> str | None:
    """Return what separates a header's columns where it is no comma, else None."""
    return next((mark for mark in SEPARATORS if len(names) == 1 and mark in names[0]), None)


def some(ids: Iterable[str]) -> str:
    """Return the first few of some ids, and how many more there are."""
    ids = list(ids)
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more


def binary_value(text: str) -> int:
    """Return 0 or 1, which may be written with decimals, or -1 for a text that is neither."""
    try:
        number = float(text)
    except ValueError:
        return -1
    return int(number) if number in (0.0, 1.0) else -1
