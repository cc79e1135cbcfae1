"""The label CSV as people save it: what is read all the same, and errors that name the line as an editor counts it."""

import logging
import os

import pytest

from pipeline.config import LABELS, UserError
from pipeline.datasets.label_csv import read_label_csv
from pipeline.datasets.rsna import read_labels, read_sample_ids, read_sample_submission
from tests.dicom_files import label_rows

BOM = b"\xef\xbb\xbf"
ROWS = [*label_rows("ID_a", "subdural"), *label_rows("01")]
"""Lines 2 to 13 under a header of one line."""

BAD_ROWS = {
    "an unknown label": ("ID_a_extradural,0", "ID 'ID_a_extradural' is not <slice>_<label> with a label of epidural,"),
    "no value": ("ID_a_any,", "Label '' is neither 0 nor 1 (1 such rows)"),
    "a float": ("ID_a_any,0.25", "Label '0.25' is neither 0 nor 1"),
    "NaN": ("ID_a_any,NaN", "Label 'NaN' is neither 0 nor 1"),
    "a decimal comma": ('ID_a_any,"1,0"', "Label '1,0' is neither 0 nor 1"),
    "a field too few": ("ID_a_any", "expected 2 fields, as in the header, found 1: 'ID_a_any'; correct the line"),
    "a field too many": ("ID_a_any,0,1", "expected 2 fields, as in the header, found 3: 'ID_a_any,0,1'"),
    "spaces alone": ("   ", "expected 2 fields, as in the header, found 1: '   '"),
    "a row that differs": ("ID_a_any,0", "rows of the same ID differ: ID_a_any; correct them"),
    "a lacking label": ("ID_b_any,0", "not all of epidural, intraparenchymal"),
    "a line break in an ID": ('"ID_b\nx_any",0', r"ID 'ID_b\nx_any' is not <slice>_<label>"),
    "a NUL byte": ("ID_\0_any,0", "holds a NUL byte: no text, or not UTF-8; save it as a CSV in UTF-8"),
}
"""A row, and what is said of it."""


def write(tmp_path, lines: list[str], ends: str = "\n", mark: bytes = b"", header: str = "ID,Label"):
    path = tmp_path / "labels.csv"
    path.write_bytes(mark + ends.join([header, *lines, ""]).encode())
    return path


def said(path, read=read_labels) -> str:
    """Return the error without the path, after seeing that it is one line that begins with the path."""
    with pytest.raises(UserError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


class TestRead:
    @pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("mark", [b"", BOM])
    @pytest.mark.parametrize("blank", [[], ["", ""]])
    def test_line_ends_marks_and_blank_lines(self, tmp_path, ends, mark, blank):
        labels = read_labels(write(tmp_path, [*blank, *ROWS[:3], *blank, *ROWS[3:], *blank], ends, mark))
        assert labels.index.tolist() == ["ID_a", "01"]
        assert labels.loc["ID_a"].tolist() == [0, 0, 0, 0, 1, 1]
        assert labels.loc["01"].tolist() == [0] * 6

    @pytest.mark.parametrize(
        "change",
        [
            lambda row_id, value: f'"{row_id}","{value}"',
            lambda row_id, value: f"  {row_id} ,\t{value} ",
            lambda row_id, value: f"{row_id}\N{NO-BREAK SPACE},{value}",
            lambda row_id, value: f'"\r\n{row_id}\n",{value}',
            lambda row_id, value: f"{row_id},{value}.0",
            lambda row_id, value: f"{row_id},{value}e0",
        ],
        ids=["quotes", "spaces", "no-break space", "line breaks in quotes", "decimals", "exponents"],
    )
    def test_fields_are_stripped_and_may_be_quoted_or_floats(self, tmp_path, change):
        labels = read_labels(write(tmp_path, [change(*row.split(",")) for row in ROWS]))
        assert labels.index.tolist() == ["ID_a", "01"]
        assert labels.loc["ID_a"].tolist() == [0, 0, 0, 0, 1, 1]

    def test_columns_are_found_by_name(self, tmp_path, caplog):
        swapped = [",".join([str(k), *reversed(row.split(",")), '"a, b\nc"']) for k, row in enumerate(ROWS)]
        with caplog.at_level(logging.WARNING):
            labels = read_labels(write(tmp_path, swapped, header=',"Label", ID ,note'))
        assert labels.loc["ID_a"].tolist() == [0, 0, 0, 0, 1, 1]
        assert "labels.csv, line 1: columns '', 'note' are not read" in caplog.text

    def test_the_header_may_stand_below_blank_lines_and_the_last_line_need_not_end(self, tmp_path):
        path = write(tmp_path, ROWS)
        path.write_bytes(BOM + b"\r\n\n" + path.read_bytes().rstrip())
        assert len(read_labels(path)) == 2
        path.write_bytes(path.read_bytes() + b"\nID_c_any,3")
        assert said(path).startswith(", line 16: Label '3'")

    def test_slices_come_in_order_of_appearance_whatever_the_order_of_labels(self, tmp_path):
        lines = [f"{slice_id}_{label},0" for label in reversed(LABELS) for slice_id in ("c", "a", "b")]
        table = read_label_csv(write(tmp_path, [*lines, *lines[::-1]]))
        assert table.slice_ids.tolist() == ["c", "a", "b"]
        assert table.slice_codes.tolist() == [0, 1, 2] * 6 + [2, 1, 0] * 6
        assert table.label_codes[:7].tolist() == [5, 5, 5, 4, 4, 4, 3]
        assert table.firsts.tolist() == [*range(18), *reversed(range(18))]

    def test_a_slice_id_may_hold_a_labels_name_and_a_comma(self, tmp_path):
        rows = [f'"x_any, é_{label}",1' for label in LABELS]
        assert read_labels(write(tmp_path, rows)).index.tolist() == ["x_any, é"]


class TestErrors:
    @pytest.mark.parametrize("row", BAD_ROWS.values(), ids=list(BAD_ROWS))
    @pytest.mark.parametrize(
        ("before", "ends", "mark", "line"),
        [
            ([], "\n", b"", "14"),
            (["", ""], "\r\n", BOM, "16"),
            (["", '"ID_q_any\r\n\r\n",0', *label_rows("ID_q"), ""], "\r", b"", "25"),
            (['"ID_q_any\n",0', *label_rows("ID_q")], "\n", BOM, "22"),
        ],
        ids=["plain", "blank lines, BOM, CRLF", "blank lines, line breaks in quotes, CR", "line break in quotes, BOM"],
    )
    def test_a_row_is_named_by_its_line(self, tmp_path, row, before, ends, mark, line):
        bad, message = row
        text = said(write(tmp_path, [*before, *ROWS, bad], ends, mark))
        number, _, rest = text.partition(": ")
        if bad == "ID_a_any,0":
            assert number == f", lines {int(line) - 7} and {line}"
        else:
            assert number == f", line {line}"
        assert rest.startswith(message)

    def test_the_first_of_several_is_named_and_the_rest_counted(self, tmp_path):
        text = said(write(tmp_path, [*ROWS[:2], "ID_a_any,7", *ROWS[2:], "ID_a_any,8", "01_any,9"]))
        assert text == ", line 4: Label '7' is neither 0 nor 1 (3 such rows)"

    def test_a_lacking_label_is_named_where_the_slice_first_stands(self, tmp_path):
        rows = [*ROWS, "ID_c_any,0", "ID_b_any,0", "ID_c_subdural,0"]
        assert said(write(tmp_path, rows)) == f", line 14: not all of {', '.join(LABELS)} are given for ID_c, ID_b"

    def test_any_below_the_maximum_is_named_where_any_stands(self, tmp_path):
        rows = [*ROWS, "ID_b_any,0", "ID_b_epidural,1", *(f"ID_b_{label},0" for label in LABELS[1:5])]
        assert said(write(tmp_path, rows)).startswith(", line 14: `any` is not the maximum of the other labels for")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", ": the file is empty; expected the header ID,Label, and rows"),
            (BOM + b"\n\r\n", ": the file is empty; expected the header"),
            (BOM + b"\nID_a_any,0\n", ", line 2: 'ID_a_any,0' is data: put the header ID,Label above it"),
            (b"ID;Label\na_any;0\n", ", line 1: 'ID;Label' is separated by ';': save it with commas"),
            (b"ID\tLabel\na_any\t0\n", r", line 1: 'ID\tLabel' is separated by '\t'"),
            (b"id,label\na_any,0\n", ", line 1: 'id,label' is no header with one ID and one Label: correct it"),
            (b"ID,Label,Label\na_any,0,0\n", ", line 1: 'ID,Label,Label' is no header with one ID"),
            (b"ID\na_any\n", ", line 1: 'ID' is no header with one ID"),
            ("ID,Label\na_any,0\n".encode("utf-16"), ", line 1: the text is UTF-16; save it as UTF-8"),
            ("ID,Label\na_any,0\n".encode("utf-16-le"), ", line 1: holds a NUL byte: no text, or not UTF-8"),
            (b"ID,Label\r\na_any,0\r\n\xe9_any,0\r\n", ", line 3: byte 0xe9 is not UTF-8; save it as UTF-8"),
            (b'ID,Label\n\na_any,0\nb_any,"0\nc_any,0\n', ", line 4: a quoted field does not end (unexpected end"),
            (b'ID,"Label\na_any,0\n', ", line 1: 'ID,Label\\na_any,0"),
            (b"ID,Label\na_any,0\nb_any,0,0\n" + b"c_any,0\n" * 300_000, ", line 3: expected 2 fields"),
            (b"ID,Label\n" + b"c_any,0\n" * 300_000 + b"b_any\n", ", line 300002: expected 2 fields"),
            (b'ID,Label\na_any,"' + b"c_any,0\n" * 300_000, ", line 2: a quoted field does not end (field larger"),
        ],
    )
    def test_what_is_no_label_csv(self, tmp_path, data, message):
        path = tmp_path / "labels.csv"
        path.write_bytes(data)
        for read in (read_labels, read_sample_submission, read_sample_ids):
            assert said(path, read).startswith(message)

    def test_a_header_alone_labels_nothing_but_may_ask_for_nothing(self, tmp_path):
        path = write(tmp_path, [""])
        assert said(path) == ": no rows below the header; six rows a slice belong there"
        assert read_sample_submission(path).tolist() == read_sample_ids(path).tolist() == []

    def test_what_is_no_file(self, tmp_path):
        assert said(tmp_path) == ": cannot be read (Is a directory); put a CSV of ID,Label there"
        assert (
            said(tmp_path / "absent.csv") == ": cannot be read (No such file or directory); put a CSV of ID,Label there"
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_what_may_not_be_read(self, tmp_path):
        path = write(tmp_path, ROWS)
        path.chmod(0)
        assert said(path) == ": cannot be read (Permission denied); put a CSV of ID,Label there"


class TestSample:
    def test_ids_and_slices_in_the_order_of_the_file(self, tmp_path):
        lines = [f"{slice_id}_{label},0.5" for slice_id in ("b", "a") for label in reversed(LABELS)]
        path = write(tmp_path, ["", *lines, ""], "\r\n", BOM)
        assert read_sample_ids(path).tolist() == [line.split(",")[0] for line in lines]
        assert read_sample_submission(path).tolist() == ["b", "a"]

    def test_what_stands_below_label_is_no_matter(self, tmp_path):
        path = write(tmp_path, [f"a_{label}," for label in LABELS])
        assert read_sample_submission(path).tolist() == ["a"]

    def test_a_repeated_id_names_both_lines(self, tmp_path):
        path = write(tmp_path, [*ROWS, "", "ID_a_any,0.5", "01_epidural,0.5"])
        assert (
            said(path, read_sample_ids) == ", lines 7 and 15: IDs are repeated: ID_a_any, 01_epidural; correct the file"
        )
