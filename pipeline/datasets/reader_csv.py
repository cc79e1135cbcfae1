"""The CSV of a reader study: what each human reader said of each scan; errors say the line."""

from pathlib import Path

import pandas as pd

from pipeline.config import LABELS, UserError
from pipeline.datasets.csv_text import SHOWN_CHARACTERS, binary_value, check_width, read_text, records, separator_of

SCAN, READER = "scan_id", "reader"
HEADER = (SCAN, READER, *LABELS)
"""The columns, in any order."""


def read_readings(path: Path) -> pd.DataFrame:
    """Return what readers said, a row a scan and reader: columns scan_id, reader, the six labels (0 or 1) and line.

    `line` is the row's in the file, from 1, as an editor counts it. UTF-8 with or without a byte order mark; lines may
    end as on any system, be blank or hold quoted fields; fields are stripped of spaces. Raises UserError with the path
    and the line for missing or unknown columns, empty names, labels other than 0 and 1 (decimals allowed), an `any`
    that is not the maximum of the five, a scan that a reader read twice, and where there are no rows.
    """
    data = read_text(path, HEADER)
    rows, names, lines = [], [], {}
    for line, _, texts in records(path, data, strict=True):
        fields = [" ".join(text.split()) for text in texts]
        if not any(fields):
            continue
        if not names:
            names = _checked_header(f"{path}, line {line}", [text.strip() for text in texts])
            continue
        check_width(path, line, fields, len(names))
        row = _checked_row(f"{path}, line {line}", dict(zip(names, fields, strict=True)))
        first = lines.setdefault((row[SCAN], row[READER]), line)
        if first != line:
            raise UserError(
                f"{path}, lines {first} and {line}: reader {row[READER]!r} has scan {row[SCAN]} twice; keep one row"
            )
        rows.append(row | {"line": line})
    if not rows:
        raise UserError(f"{path}: no rows below the header {','.join(HEADER)}; put one a scan and reader there")
    return pd.DataFrame(rows)


def _checked_header(where: str, names: list[str]) -> list[str]:
    """Return the names in the header; raises UserError where they are not those of HEADER, once each."""
    header, separator = ",".join(HEADER), separator_of(names)
    if separator:
        shown = names[0][:SHOWN_CHARACTERS]
        raise UserError(
            f"{where}: {shown!r} is separated by {separator!r}: save it with commas, under the header {header}"
        )
    missing = [name for name in HEADER if name not in names]
    unknown = [name for name in names if name not in HEADER]
    repeated = [name for name in HEADER if names.count(name) > 1]
    for what, wrong in (("missing", missing), ("unknown", unknown), ("repeated", repeated)):
        if wrong:
            shown = ", ".join(map(repr, wrong))[:SHOWN_CHARACTERS]
            raise UserError(f"{where}: columns {what}: {shown}; the header is {header}")
    return names


def _checked_row(where: str, fields: dict[str, str]) -> dict[str, str | int]:
    """Return a row with its labels as numbers, or raise UserError."""
    for name in (SCAN, READER):
        if not fields[name]:
            raise UserError(f"{where}: {name} is empty; say whose reading of which scan it is")
    labels = {label: binary_value(fields[label]) for label in LABELS}
    for label, value in labels.items():
        if value < 0:
            raise UserError(f"{where}: {label} {fields[label]!r} is neither 0 nor 1; correct it")
    *subtypes, any_label = labels.values()
    if any_label != max(subtypes):
        raise UserError(f"{where}: any is {any_label}, the maximum of the five others {max(subtypes)}; correct the row")
    return {SCAN: fields[SCAN], READER: fields[READER], **labels}
