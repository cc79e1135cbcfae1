"""The RSNA layout: what is accepted, what is left out with its reason, and the words of each error."""

import logging
import re

import pytest

from pipeline.config import LABELS, UserError
from pipeline.datasets import reader
from pipeline.datasets.rsna import read_labels, read_listing, read_sample_submission
from tests.dicom_files import label_rows, write_labels, write_raw, write_sample


def files(*stems: str) -> dict[str, bytes]:
    """Return files whose content plays no part."""
    return dict.fromkeys(stems, b"not opened")


@pytest.fixture
def raw(tmp_path):
    """Three training slices, two test slices."""
    folder = tmp_path / "raw"
    write_raw(folder, files("ID_a", "ID_b", "ID_c"), files("ID_d", "01"), positive=("ID_b",))
    return folder


def csv(tmp_path, *lines: str, ends: str = "\n"):
    path = tmp_path / "labels.csv"
    path.write_bytes(ends.join(["ID,Label", *lines, ""]).encode())
    return path


def reasons(listing) -> dict[str, str]:
    return {
        path.rsplit("/", 1)[1]: reason
        for path, reason in zip(listing.left_out["path"], listing.left_out["reason"], strict=True)
    }


def test_a_listing_joins_files_and_labels(raw):
    listing = read_listing(raw)
    assert len(listing.left_out) == 0
    assert listing.files["slice_id"].tolist() == ["01", "ID_d", "ID_a", "ID_b", "ID_c"]  # in order of path
    assert listing.files["split"].tolist() == ["test"] * 2 + ["train"] * 3
    assert listing.files["path"][2] == f"{raw.as_posix()}/stage_2_train/ID_a.dcm"
    assert listing.files["subdural"].isna().tolist() == [True, True, False, False, False]
    assert listing.files["any"][2:].tolist() == [0, 1, 0]
    assert listing.files["epidural"][2:].tolist() == [0, 0, 0]
    assert listing.files["mask"].isna().all()


def test_masks_are_found_by_slice_id(raw):
    (raw / "masks").mkdir()
    (raw / "masks" / "ID_b.png").touch()
    masks = dict(read_listing(raw).files[["slice_id", "mask"]].itertuples(index=False))
    assert masks["ID_b"] == f"{raw.as_posix()}/masks/ID_b.png"
    assert masks["ID_a"] is None or masks["ID_a"] != masks["ID_a"]


def test_folders_may_be_links_and_suffixes_upper_case(raw, tmp_path):
    (raw / "stage_2_test").rename(tmp_path / "elsewhere")
    (raw / "stage_2_test").symlink_to(tmp_path / "elsewhere")
    (raw / "stage_2_test" / "01.dcm").rename(raw / "stage_2_test" / "01.DCM")
    (raw / "stage_2_test" / "LICENSE").touch()
    (raw / "stage_2_test" / "folder.dcm").mkdir()
    assert set(read_listing(raw).files["slice_id"]) == {"ID_a", "ID_b", "ID_c", "ID_d", "01"}


def test_files_are_left_out_by_name(raw):
    (raw / "stage_2_train" / "ID_unlabelled.dcm").touch()
    (raw / "stage_2_test" / "ID_unasked.dcm").touch()
    (raw / "stage_2_train" / "ID_d.dcm").touch()  # also in the test folder
    listing = read_listing(raw)
    assert reasons(listing) == {
        "ID_unlabelled.dcm": "no label",
        "ID_unasked.dcm": "not in the sample submission",
        "ID_d.dcm": "repeated slice id",
    }
    repeated = listing.left_out.set_index("reason").loc["repeated slice id"]
    assert repeated["split"] == "train"
    assert repeated["detail"] == f"also {raw.as_posix()}/stage_2_test/ID_d.dcm"
    assert len(listing.files) == 5


def test_names_that_cannot_stand_in_a_csv_or_a_folder_are_left_out(raw):
    for name in ("two\nlines", "a\u2028b", "carriage\rreturn", "x" * 201, "\u00e4" * 101):
        (raw / "stage_2_train" / f"{name}.dcm").touch()
    listing = read_listing(raw)
    assert set(listing.left_out["reason"]) == {"unusable name"}
    assert len(listing.left_out) == 5
    assert len(listing.files) == 5


def test_names_with_spaces_quotes_and_other_letters_are_names(raw):
    names = ["a b", 'the "first", it says', "Sch\u00e4del", "it's", "tab\there"]
    for name in names:
        (raw / "stage_2_train" / f"{name}.dcm").touch()
    write_labels(raw / "stage_2_train.csv", dict.fromkeys(["ID_a", "ID_b", "ID_c", *names], "subdural"))
    found = read_listing(raw).files.set_index("slice_id")
    assert (found.loc[names, "subdural"] == 1).all()


def test_frames_of_a_file_are_asked_for_by_number(raw, caplog):
    labels = ["ID_a.1", "ID_a.12", "ID_b", "ID_b.3", "ID_c.0", "ID_c.01", "ID_c.x", "ID_x.1"]
    write_labels(raw / "stage_2_train.csv", dict.fromkeys(labels))
    write_sample(raw / "stage_2_sample_submission.csv", ["ID_d.2", "01"])
    with caplog.at_level(logging.WARNING):
        listing = read_listing(raw)
    assert listing.files[["stem", "slice_id", "split"]].to_numpy().tolist() == [
        ["01", "01", "test"],
        ["ID_d", "ID_d.2", "test"],
        ["ID_a", "ID_a.1", "train"],
        ["ID_a", "ID_a.12", "train"],
        ["ID_b", "ID_b", "train"],
        ["ID_b", "ID_b.3", "train"],
    ]
    assert reasons(listing) == {"ID_c.dcm": "no label"}
    assert "4 labelled slices have no file: ID_c.0, ID_c.01, ID_c.x, ID_x.1" in caplog.text


def test_a_file_whose_stem_looks_like_a_frame(raw):
    """Files named by UIDs: 1.2.3 and 1.2.3.4 are two files."""
    (raw / "stage_2_train" / "ID_a.4.dcm").touch()
    write_labels(raw / "stage_2_train.csv", dict.fromkeys(["ID_a", "ID_a.4", "ID_b", "ID_c"]))
    found = read_listing(raw).files
    assert found.loc[found["slice_id"] == "ID_a.4", "path"].tolist() == [f"{raw.as_posix()}/stage_2_train/ID_a.4.dcm"]


def test_labels_without_files_are_counted(raw, caplog):
    write_labels(raw / "stage_2_train.csv", dict.fromkeys(["ID_a", "ID_b", "ID_c", "ID_gone"]))
    with caplog.at_level(logging.WARNING):
        assert len(read_listing(raw).files) == 5
    assert "1 labelled slices have no file: ID_gone" in caplog.text


def test_a_csv_that_does_not_match(raw):
    write_labels(raw / "stage_2_train.csv", dict.fromkeys(["ID_x", "ID_y"]))
    with pytest.raises(UserError, match="does not match: none of its slices has a file"):
        read_listing(raw)


def test_a_data_set_without_a_test_part(raw):
    for path in (raw / "stage_2_test").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"2 slices have no file in stage_2_test/: ID_d, 01"):
        read_listing(raw)
    (raw / "stage_2_sample_submission.csv").unlink()
    assert set(read_listing(raw).files["split"]) == {"train"}


def test_what_is_missing_is_named(raw, tmp_path):
    with pytest.raises(UserError, match="put or link the data set there in RSNA layout"):
        read_listing(tmp_path / "absent")
    (raw / "stage_2_sample_submission.csv").unlink()
    with pytest.raises(UserError, match="stage_2_sample_submission.csv is missing"):
        read_listing(raw)
    for path in (raw / "stage_2_train").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no .dcm files"):
        read_listing(raw)


class TestLabels:
    @pytest.mark.parametrize("ends", ["\n", "\r\n"])
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_line_ends_marks_quotes_blank_lines_and_decimals(self, tmp_path, ends, mark):
        lines = label_rows("ID_a", "epidural")
        lines[0] = '"ID_a_epidural","1"'
        lines[1] = "ID_a_intraparenchymal,0.0"
        path = csv(tmp_path, *lines, "", ends=ends)
        path.write_bytes(mark + path.read_bytes())
        labels = read_labels(path)
        assert labels.columns.tolist() == list(LABELS)
        assert labels.loc["ID_a"].tolist() == [1, 0, 0, 0, 0, 1]

    def test_rows_may_repeat_and_come_in_any_order(self, tmp_path):
        rows = label_rows("ID_a", "subdural") + label_rows("ID_b")
        labels = read_labels(csv(tmp_path, *reversed(rows), *label_rows("ID_a", "subdural")))
        assert labels.loc["ID_a"].tolist() == [0, 0, 0, 0, 1, 1]
        assert labels.loc["ID_b"].tolist() == [0] * 6
        assert len(labels) == 2

    def test_repeated_rows_that_differ(self, tmp_path):
        path = csv(tmp_path, *label_rows("ID_a"), *label_rows("ID_b"), "ID_b_subdural,1")
        with pytest.raises(UserError, match="labels.csv, lines 12 and 14: rows of the same ID differ: ID_b_subdural;"):
            read_labels(path)

    @pytest.mark.parametrize(("subtype", "any_label"), [(1, 0), (0, 1)])
    def test_any_that_is_not_the_maximum(self, tmp_path, subtype, any_label):
        rows = [*label_rows("ID_b")[:4], f"ID_b_subdural,{subtype}", f"ID_b_any,{any_label}"]
        with pytest.raises(UserError, match="line 13: `any` is not the maximum of the other labels for ID_b$"):
            read_labels(csv(tmp_path, *label_rows("ID_a"), *rows))

    def test_a_label_that_lacks(self, tmp_path):
        with pytest.raises(UserError, match=r"line 8: not all of epidural, .* are given for ID_b$"):
            read_labels(csv(tmp_path, *label_rows("ID_a"), *label_rows("ID_b")[1:]))

    def test_many_ids_are_cut_short(self, tmp_path):
        rows = [row for i in range(9) for row in label_rows(f"ID_{i}")[1:]]
        with pytest.raises(UserError, match="ID_0, ID_1, ID_2, ID_3, ID_4 and 4 more$"):
            read_labels(csv(tmp_path, *rows))

    @pytest.mark.parametrize("row", ["ID_a_extradural,0", "ID_a,0", "_any,0"])
    def test_an_unknown_label(self, tmp_path, row):
        path = csv(tmp_path, *label_rows("ID_a"), row)
        with pytest.raises(UserError, match=rf"line 8: ID '{row[:-2]}' is not <slice>_<label>"):
            read_labels(path)

    @pytest.mark.parametrize("value", ["2", "0.5", "-1", "x", "", "nan"])
    def test_a_value_that_is_neither_0_nor_1(self, tmp_path, value):
        path = csv(tmp_path, *label_rows("ID_a"), f"ID_b_any,{value}")
        with pytest.raises(UserError, match=re.escape(f"line 8: Label '{value}' is neither 0 nor 1 (1 such rows)")):
            read_labels(path)


class TestSampleSubmission:
    def test_ids_in_their_order(self, tmp_path):
        path = tmp_path / "sample.csv"
        write_sample(path, ["ID_b", "01", "ID_a"])
        assert read_sample_submission(path).tolist() == ["ID_b", "01", "ID_a"]

    def test_repeated_ids(self, tmp_path):
        path = tmp_path / "sample.csv"
        write_sample(path, ["ID_b", "ID_a", "ID_b"])
        with pytest.raises(UserError, match="lines 2 and 14: IDs are repeated: ID_b_epidural, ID_b_intra"):
            read_sample_submission(path)

    def test_incomplete_slices(self, tmp_path):
        with pytest.raises(UserError, match="line 2: not all of .* are asked for ID_a$"):
            read_sample_submission(csv(tmp_path, *label_rows("ID_a")[:3]))

    def test_unknown_ids(self, raw):
        write_sample(raw / "stage_2_sample_submission.csv", ["ID_d", "01", "ID_a"])
        with pytest.raises(UserError, match=r"1 slices have no file in stage_2_test/: ID_a"):
            read_listing(raw)


def test_an_unknown_reader_names_the_known():
    assert reader("rsna") is read_listing
    with pytest.raises(UserError, match="READER=nifti: no such reader; readers are rsna"):
        reader("nifti")
