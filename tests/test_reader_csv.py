"""The CSV of a reader study as people save it: what is read all the same, and errors that name the line."""

import pytest

from pipeline.config import LABELS, UserError
from pipeline.datasets.reader_csv import HEADER, read_readings

BOM = b"\xef\xbb\xbf"
HEAD = ",".join(HEADER)
ROWS = ["S1,Anna,0,1,0,0,0,1", "S1,Ben,0,0,0,0,0,0", "S2,Anna,0,0,0,0,1,1"]


def write(tmp_path, rows: list[str], ends: str = "\n", mark: bytes = b"", head: str = HEAD):
    path = tmp_path / "readers.csv"
    path.write_bytes(mark + ends.join([head, *rows, ""]).encode())
    return path


def said(path) -> str:
    """Return the error without the path, after seeing that it is one line that begins with the path."""
    with pytest.raises(UserError) as caught:
        read_readings(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


def test_rows_columns_and_lines(tmp_path):
    found = read_readings(write(tmp_path, ROWS))
    assert list(found.columns) == ["scan_id", "reader", *LABELS, "line"]
    assert found["scan_id"].tolist() == ["S1", "S1", "S2"]
    assert found["reader"].tolist() == ["Anna", "Ben", "Anna"]
    assert found[list(LABELS)].to_numpy().tolist() == [[0, 1, 0, 0, 0, 1], [0] * 6, [0, 0, 0, 0, 1, 1]]
    assert found["line"].tolist() == [2, 3, 4]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", BOM])
@pytest.mark.parametrize("blank", [[], ["", "   ", ",,,,,,,"]], ids=["no blanks", "blanks"])
def test_line_ends_marks_and_blank_lines(tmp_path, ends, mark, blank):
    plain = read_readings(write(tmp_path, ROWS))
    found = read_readings(write(tmp_path, [*blank, *ROWS[:2], *blank, *ROWS[2:], *blank], ends, mark))
    assert found.drop(columns="line").equals(plain.drop(columns="line"))
    assert found["line"].tolist() == [line + len(blank) * (1 + (line > 3)) for line in (2, 3, 4)]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f'"{text}"',
        lambda text: f"  {text}\t",
        lambda text: f"{text}\N{NO-BREAK SPACE}",
        lambda text: f'"{text}\r\n"',
        lambda text: f"{text}.0" if text in "01" else text,
    ],
    ids=["quotes", "spaces", "no-break space", "line breaks in quotes", "decimals"],
)
def test_fields_are_stripped_and_may_be_quoted_or_floats(tmp_path, change):
    plain = read_readings(write(tmp_path, ROWS)).drop(columns="line")
    rows = [",".join(map(change, row.split(","))) for row in ROWS]
    assert read_readings(write(tmp_path, rows)).drop(columns="line").equals(plain)


def test_columns_are_found_by_name_and_names_may_hold_commas(tmp_path):
    swapped = [",".join(reversed(row.split(","))) for row in ROWS]
    found = read_readings(write(tmp_path, swapped, head=",".join(reversed(HEADER)).replace("any", '" any"')))
    assert found.equals(read_readings(write(tmp_path, ROWS))[list(found.columns)])
    named = read_readings(write(tmp_path, ['S1,"Mora, É.",0,0,0,0,0,0']))
    assert named["reader"].tolist() == ["Mora, É."]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("S3,Anna,0,0,0,0,0", ", line 5: expected 8 fields, as in the header, found 7: 'S3,Anna,0,0,0,0,0'"),
        ("S3,Anna,0,0,0,0,0,0,x", ", line 5: expected 8 fields, as in the header, found 9"),
        (",Anna,0,0,0,0,0,0", ", line 5: scan_id is empty; say whose reading of which scan it is"),
        ("S3,  ,0,0,0,0,0,0", ", line 5: reader is empty; say whose reading of which scan it is"),
        ("S3,Anna,2,0,0,0,0,1", ", line 5: epidural '2' is neither 0 nor 1; correct it"),
        ("S3,Anna,0,0,0.5,0,0,1", ", line 5: intraventricular '0.5' is neither 0 nor 1"),
        ("S3,Anna,0,0,0,,0,1", ", line 5: subarachnoid '' is neither 0 nor 1"),
        ("S3,Anna,0,0,0,0,yes,1", ", line 5: subdural 'yes' is neither 0 nor 1"),
        ("S3,Anna,0,0,0,0,0,NaN", ", line 5: any 'NaN' is neither 0 nor 1"),
        ('S3,Anna,0,0,0,0,0,"1,0"', ", line 5: any '1,0' is neither 0 nor 1"),
        ("S3,Anna,0,1,0,0,0,0", ", line 5: any is 0, the maximum of the five others 1; correct the row"),
        ("S3,Anna,0,0,0,0,0,1", ", line 5: any is 1, the maximum of the five others 0; correct the row"),
        ("S1, Anna ,0,1,0,0,0,1", ", lines 2 and 5: reader 'Anna' has scan S1 twice; keep one row"),
        ('S3,"Anna,0,0,0,0,0,0', ", line 5: a quoted field does not end (unexpected end of data); correct it"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(tmp_path, row, message):
    for ends, mark in (("\n", b""), ("\r\n", BOM)):
        assert said(write(tmp_path, [*ROWS, row], ends, mark)).startswith(message)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            HEAD.replace("subdural,", ""),
            ", line 1: columns missing: 'subdural'; the header is scan_id,reader,epidural,",
        ),
        (HEAD.replace("reader", "Reader"), ", line 1: columns missing: 'reader'; the header is"),
        (HEAD + ",note", ", line 1: columns unknown: 'note'; the header is"),
        (HEAD + ",any", ", line 1: columns repeated: 'any'; the header is"),
        (HEAD.replace(",", ";"), ", line 1: 'scan_id;reader;epidural;"),
        ("S0,Anna,0,0,0,0,0,0", ", line 1: columns missing: 'scan_id', 'reader', 'epidural'"),
    ],
)
def test_a_header_that_is_none(tmp_path, head, message):
    assert said(write(tmp_path, ROWS, head=head)).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", f": no rows below the header {HEAD}; put one a scan and reader there"),
        (BOM + b"\r\n\r\n", ": no rows below the header"),
        (HEAD.encode(), ": no rows below the header"),
        ((HEAD + "\n").encode("utf-16"), ", line 1: the text is UTF-16; save it as UTF-8"),
        (
            (HEAD + "\nS1,Zo\N{LATIN SMALL LETTER E WITH DIAERESIS},").encode("latin-1"),
            ", line 2: byte 0xeb is not UTF-8",
        ),
        (b"PK\x03\x04\0\0", ", line 1: holds a NUL byte: no text, or not UTF-8"),
    ],
)
def test_what_is_no_csv(tmp_path, data, message):
    path = tmp_path / "readers.csv"
    path.write_bytes(data)
    assert said(path).startswith(message)


def test_what_is_no_file(tmp_path):
    assert said(tmp_path) == f": cannot be read (Is a directory); put a CSV of {HEAD} there"
    assert said(tmp_path / "none.csv") == f": cannot be read (No such file or directory); put a CSV of {HEAD} there"
