"""The reader study on a small phantom: every printed figure by hand, which scans are compared, and all refusals."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.config import LABELS, P_LABELS, UserError
from pipeline.core.reader_study import common_scans, figures_of, kappas, reader_rows, scan_maxima
from pipeline.datasets.rsna import read_labels
from pipeline.runs import published_readers, recipe_names
from pipeline.schema import PREDICTIONS
from pipeline.shell.tables import read_table, write_table
from tests.stages import ALL, TINY, job_of, run_stage, run_stages

BOTH = (*TINY[:-1], "0 1")
"""TINY with folds 0 and 1."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which `tiny` was trained and has predicted, on fold 0."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_stages(ALL[:-2], *TINY)
    return folder


@pytest.fixture
def truth(finished, tmp_path, monkeypatch) -> pd.DataFrame:
    """A folder with what `readers` reads; return its scans' truth: labels, split and fold (-1 for test), by scan."""
    for name in ("slices.parquet", "folds.parquet", "raw/truth.csv"):
        (tmp_path / "data/phantom" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished / "data/phantom" / name, tmp_path / "data/phantom" / name)
    shutil.copytree(finished / "submissions", tmp_path / "submissions")
    monkeypatch.chdir(tmp_path)
    slices = read_table(Path("data/phantom/slices.parquet")).set_index("slice_id")
    slices.update(read_labels(Path("data/phantom/raw/truth.csv")))
    folds = read_table(Path("data/phantom/folds.parquet")).set_index("patient_id")["fold"]
    scans = slices.groupby("scan_id").agg({**dict.fromkeys(LABELS, "max"), "split": "first", "patient_id": "first"})
    scans["fold"] = scans["patient_id"].map(folds).where(scans["split"] == "train", -1).astype(int)
    return scans.astype(dict.fromkeys(LABELS, int))


@pytest.fixture
def five(truth) -> pd.DataFrame:
    """The scans of folds 0 and 1 and of the test part: five, two of them positive, the first of them negative."""
    own = truth[truth["fold"] < 2]
    own = own.sort_values(["any", "fold"])
    assert own["any"].tolist() == [0, 0, 0, 1, 1]
    assert sorted(own["fold"]) == [-1, -1, 0, 0, 1]
    return own


def write_readers(path: str, **readers: pd.DataFrame) -> str:
    """Write what readers said, labels by scan, as a CSV; return its path."""
    parts = [said[list(LABELS)].reset_index().assign(reader=name) for name, said in readers.items()]
    pd.concat(parts).to_csv(path, index=False)
    return path


def predict(stages: dict[str, dict[str, float | tuple[float, float]]]) -> None:
    """Write predictions of folds 0 and 1: each slice 0.1, and a scan's second slice what is said of the scan.

    stages: by stage and scan, the probability of all labels; two for a test scan: each fold's.
    """
    slices = read_table(Path("data/phantom/slices.parquet"))
    fold_of = read_table(Path("data/phantom/folds.parquet")).set_index("patient_id")["fold"]
    for fold in (0, 1):
        own = slices[(slices["split"] == "test") | (slices["patient_id"].map(fold_of) == fold)]
        tables = []
        for stage, said in stages.items():
            table = own[["slice_id", "scan_id", "split"]].assign(stage=stage, fold=fold, **dict.fromkeys(P_LABELS, 0.1))
            for scan, value in said.items():
                second = table.index[table["scan_id"] == scan][1:2]
                table.loc[second, list(P_LABELS)] = value[fold] if isinstance(value, tuple) else value
            tables.append(table)
        path = job_of("readers", *BOTH).paths.predictions(fold)
        write_table(path, PREDICTIONS, pd.concat(tables), {"commit": "0123456789ab"})


def printed(capsys, *arguments: str) -> tuple[str, dict[tuple[str, ...], dict[str, str]]]:
    """Run the stage; return the lines above the tables, and the rows of all tables, by title and first columns.

    Of columns of one name, `interval` and `paper` bear the name of the figure before them.
    """
    capsys.readouterr()
    run_stage("readers", *BOTH, *arguments)
    opening, *tables = capsys.readouterr().out.split("\n\n")
    rows = {}
    for text in tables:
        lines = text.splitlines()
        ruled = next(i for i, line in enumerate(lines) if line and set(line) <= {"-", " "})
        rule = lines[ruled]
        starts = [i for i in range(len(rule)) if rule[i] == "-" and (i == 0 or rule[i - 1] == " ")]
        spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
        names, figure = [], ""
        for span in spans:
            name = lines[ruled - 1][span].strip()
            figure = figure if name in ("interval", "paper") else name
            names.append(name if name == figure else f"{figure} {name}")
        for line in lines[ruled + 1 :]:
            cells = {name: line[span].strip() for name, span in zip(names, spans, strict=True)}
            keys = 3 if "by" in names else 2
            rows[(lines[0].split(",")[0].rstrip(":"), *list(cells.values())[:keys])] = cells
    return opening, rows


def mistaken(five: pd.DataFrame) -> pd.DataFrame:
    """Return a reader's calls: right but for the first scan, a negative one, of which he says everything."""
    calls = five.copy()
    calls.iloc[0, : len(LABELS)] = 1
    return calls


def test_readers_figures_by_hand(five, capsys):
    predict({"cnn": {}, "sequence": {}})
    file = write_readers("readers.csv", Perfect=five, Mistaken=mistaken(five))
    opening, rows = printed(capsys, "--readers", file)
    for label in LABELS:
        perfect = rows["Each label", label, "reader", "Perfect"]
        assert {perfect[name] for name in ("accuracy", "ROC AUC", "sensitivity", "specificity")} == {"1.000"}
    # Of five scans two are positive: Mistaken has one false positive among three negatives.
    found = rows["Each label", "any", "reader", "Mistaken"]
    assert (found["accuracy"], found["accuracy interval"]) == ("0.800", "0.376 to 0.964")  # Wilson, 4 of 5
    assert (found["sensitivity"], found["sensitivity interval"]) == ("1.000", "0.342 to 1.000")  # 2 of 2
    assert (found["specificity"], found["specificity interval"]) == ("0.667", "0.208 to 0.939")  # 2 of 3
    # (1 + 2/3) / 2; the negatives' wins are 1, 1 and 1/2: variance 1/12 / 3, and the positives' have none.
    assert found["ROC AUC"] == "0.833"
    assert found["ROC AUC interval"] == f"{5 / 6 - 1.959964 / 6:.3f} to 1.000"
    found = rows["Any hemorrhage", "any", "reader", "Mistaken"]
    assert [found[name] for name in ("accuracy", "recall", "precision", "F1")] == ["0.800", "1.000", "0.667", "0.800"]
    # Agree on 4 of 5; by chance 2/5 * 3/5 + 3/5 * 2/5 = 12/25: (20/25 - 12/25) / (13/25).
    assert rows["Cohen's kappa of each two readers", "Perfect", "Mistaken"]["any"] == f"{8 / 13:.3f}"
    positives = ", ".join(f"{label} {five[label].sum()}" for label in LABELS)
    assert opening.startswith(
        "5 of the 5 scans in readers.csv were read by all readers (Perfect, Mistaken); positive: " + positives + ".\n"
        "Models: tiny on the data set phantom, folds 0, 1: 3 out of fold and 2 of the test part; "
    )
    assert "A phantom is not a head" in opening


def test_models_figures_by_hand(five, capsys):
    negative, positive = five.index[five["any"] == 0], five.index[five["any"] == 1]

    def pair(scan: str, mean: float) -> float | tuple[float, float]:
        """Return the probability of a training scan, or those of both folds of a test scan, with this mean."""
        return (mean + 0.3, mean - 0.3) if five.loc[scan, "fold"] < 0 else mean

    predict(
        {
            # All five right, the positives by the mean over folds or by 0.5 itself.
            "cnn": {scan: pair(scan, 0.5) for scan in positive},
            # One positive is missed, and scores lower than one of the negatives, which is called.
            "sequence": {positive[0]: pair(positive[0], 0.6), positive[1]: pair(positive[1], 0.45)}
            | {negative[2]: pair(negative[2], 0.55)},
        }
    )
    _, rows = printed(capsys, "--readers", write_readers("readers.csv", Perfect=five))
    found = rows["Each label", "any", "model", "cnn"]
    assert {found[name] for name in ("accuracy", "ROC AUC", "sensitivity", "specificity")} == {"1.000"}
    found = rows["Each label", "any", "model", "sequence"]
    # 3 of 5 right, 1 of 2 found, 2 of 3 left alone; of 2 x 3 pairs one is in the wrong order.
    assert [found[name] for name in ("accuracy", "sensitivity", "specificity")] == ["0.600", "0.500", "0.667"]
    assert found["ROC AUC"] == "0.833"
    found = rows["Any hemorrhage", "any", "model", "sequence"]
    assert [found[name] for name in ("accuracy", "recall", "precision", "F1")] == ["0.600", "0.500", "0.500", "0.500"]
    # One reader agrees with nobody.
    assert not any(key[0].startswith("Cohen") for key in rows)


@pytest.mark.parametrize("swap", [False, True])
def test_a_test_scan_is_called_by_the_mean_over_folds_and_by_neither_alone(five, capsys, swap):
    test = five[five["fold"] < 0]
    said = {scan: (0.9, 0.15) if label else (0.05, 0.9) for scan, label in test["any"].items()}  # means 0.525, 0.475
    predict({"cnn": {scan: pair[::-1] if swap else pair for scan, pair in said.items()}})
    _, rows = printed(capsys, "--readers", write_readers("readers.csv", Perfect=test))
    assert rows["Each label", "any", "model", "cnn"]["accuracy"] == "1.000"


def test_the_papers_figures_stand_beside_the_models_and_its_doctors_below(five, capsys):
    predict({"cnn": {}, "sequence": {}})
    _, rows = printed(capsys, "--readers", write_readers("readers.csv", Perfect=five))
    beside = [rows["Each label", "any", "model", stage] for stage in ("cnn", "sequence")]
    assert [row["accuracy paper"] for row in beside] == ["0.98", "0.97"]
    assert [row["specificity paper"] for row in beside] == ["0.98", "0.98"]
    doctor = rows["Each label", "subarachnoid", "paper", "doctor 3"]
    assert [doctor[f"{name} paper"] for name in ("accuracy", "ROC AUC", "sensitivity", "specificity")] == [
        "0.83", "0.68", "0.40", "0.97",
    ]  # fmt: skip
    assert doctor["accuracy"] == doctor["accuracy interval"] == ""
    # None of the paper's scans held an epidural hemorrhage.
    assert rows["Each label", "epidural", "model", "cnn"]["sensitivity paper"] == ""
    assert rows["Each label", "any", "reader", "Perfect"]["accuracy paper"] == ""
    assert "accuracy paper" not in rows["Any hemorrhage", "any", "model", "cnn"]


def test_a_trained_runs_own_predictions(five, capsys, finished):
    own = five[five["fold"] < 1]
    table = read_table(finished / "submissions/phantom/tiny/fold-0.parquet")
    capsys.readouterr()
    run_stage("readers", *TINY, "--readers", write_readers("readers.csv", A=own, B=own, C=own))
    text = capsys.readouterr().out
    assert "4 of the 4 scans" in text
    assert "fold 0: 2 out of fold and 2 of the test part" in text
    for stage in ("cnn", "sequence"):
        said = table[table["stage"] == stage].groupby("scan_id")["p_any"].max()
        right = sum((said[scan] >= 0.5) == bool(own.loc[scan, "any"]) for scan in own.index)
        line = next(line for line in text.splitlines() if line.split()[:3] == ["any", "model", stage])
        assert line.split()[3] == f"{right / 4:.3f}"


def test_only_scans_that_all_readers_read_are_compared(five, capsys):
    predict({"cnn": {}, "sequence": {}})
    file = write_readers("readers.csv", First=five.iloc[:4], Second=mistaken(five).iloc[[0, 2, 3, 4]])
    opening, rows = printed(capsys, "--readers", file)
    assert opening.startswith("3 of the 5 scans in readers.csv were read by all readers (First, Second); positive: ")
    assert rows["Each label", "any", "reader", "Second"]["accuracy"] == "0.667"
    # First says 0 0 1, Second 1 0 1: agree on 2 of 3, by chance 1/3 * 2/3 + 2/3 * 1/3 = 4/9.
    assert rows["Cohen's kappa of each two readers", "First", "Second"]["any"] == "0.400"
    file = write_readers("readers.csv", First=five.iloc[:2], Second=five.iloc[2:])
    with pytest.raises(UserError, match=r"readers.csv: no scan was read by all of the readers First, Second; leave"):
        run_stage("readers", *BOTH, "--readers", file)


def test_readers_who_agree_have_a_kappa_of_1_and_none_where_there_is_nothing_to_tell_apart(five, capsys):
    predict({"cnn": {}, "sequence": {}})
    same = five.assign(**{label: 0 for label in LABELS[:4]}, subdural=five["any"])
    _, rows = printed(capsys, "--readers", write_readers("readers.csv", First=same, Second=same))
    found = rows["Cohen's kappa of each two readers", "First", "Second"]
    assert [found[label] for label in ("epidural", "subdural", "any")] == ["", "1.000", "1.000"]


def test_undefined_figures_are_empty(truth, capsys):
    predict({"cnn": {}, "sequence": {}})
    negative = truth[(truth["fold"].isin([0, 1])) & (truth["any"] == 0)]
    _, rows = printed(capsys, "--readers", write_readers("readers.csv", Alone=negative))
    found = rows["Each label", "any", "reader", "Alone"]
    assert [found[name] for name in ("accuracy", "specificity", "ROC AUC", "sensitivity")] == ["1.000", "1.000", "", ""]
    found = rows["Any hemorrhage", "any", "reader", "Alone"]
    assert [found[name] for name in ("recall", "recall interval", "precision", "F1")] == ["", "", "", ""]


def test_a_run_without_sequence_model_and_labels_that_a_system_does_not_give(five, capsys):
    predict({"cnn": {}})
    for fold in (0, 1):
        path = job_of("readers", *BOTH).paths.predictions(fold)
        table = read_table(path).assign(**dict.fromkeys(P_LABELS[:5], np.nan))
        write_table(path, PREDICTIONS, table, {"commit": "0123456789ab"})
    _, rows = printed(capsys, "--readers", write_readers("readers.csv", Perfect=five))
    ours = [key for key in rows if key[2] == "model"]
    assert ours == [("Each label", "any", "model", "cnn"), ("Any hemorrhage", "any", "model", "cnn")]
    # The paper's model with a BiLSTM has none of ours to stand beside.
    assert rows["Each label", "any", "paper", "ResNeXt-101 32x8d + BiLSTM"]["accuracy paper"] == "0.97"


def test_other_data_than_the_phantom_are_not_called_a_phantom(five, capsys):
    predict({"cnn": {}, "sequence": {}})
    for part in ("data", "submissions"):
        shutil.copytree(f"{part}/phantom", f"{part}/mine")
    opening, _ = printed(capsys, "--readers", write_readers("readers.csv", Perfect=five), "--dataset", "mine")
    assert "on the data set mine, folds 0, 1" in opening
    assert "hantom" not in opening
    assert opening.endswith(
        "Not the same scans and readers as the paper's: the figures stand beside each other, no more."
    )


def test_scans_of_one_part_alone(five, capsys):
    predict({"cnn": {}, "sequence": {}})
    test, train = five[five["fold"] < 0], five[five["fold"] >= 0]
    opening, _ = printed(capsys, "--readers", write_readers("readers.csv", Perfect=test))
    assert "folds 0, 1: 2 of the test part; a scan" in opening
    Path("data/phantom/raw/truth.csv").unlink()
    opening, _ = printed(capsys, "--readers", write_readers("readers.csv", Perfect=train))
    assert "folds 0, 1: 3 out of fold; a scan" in opening


def test_a_scan_is_positive_where_one_slice_is_even_if_its_image_could_not_be_decoded(five, capsys):
    predict({"cnn": {}, "sequence": {}})
    scan = five.index[(five["any"] == 1) & (five["fold"] >= 0)][0]
    slices = read_table(Path("data/phantom/slices.parquet")).set_index("slice_id")
    for fold in (0, 1):
        path = job_of("readers", *BOTH).paths.predictions(fold)
        table = read_table(path)
        lost = (table["scan_id"] == scan) & (table["slice_id"].map(slices["any"]) == 1).fillna(False)
        write_table(path, PREDICTIONS, table[~lost], {"commit": "0123456789ab"})
    _, rows = printed(capsys, "--readers", write_readers("readers.csv", Perfect=five))
    assert rows["Each label", "any", "reader", "Perfect"]["accuracy"] == "1.000"


class TestRefusals:
    @pytest.fixture(autouse=True)
    def _predicted(self, truth):
        predict({"cnn": {}, "sequence": {}})

    def said(self, *arguments: str) -> str:
        """Return the error, after seeing that it is one line and that no file was made or changed."""
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        with pytest.raises(UserError) as caught:
            run_stage("readers", *BOTH, *arguments)
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        return str(caught.value)

    def test_a_scan_that_nobody_knows_is_named_by_its_line(self, five):
        strange = pd.concat([five, five.tail(1).rename(index=lambda _: "S77")])
        file = write_readers("readers.csv", Perfect=strange)
        assert self.said("--readers", file) == (
            "readers.csv, line 7: S77: not in data/phantom/slices.parquet; correct the names"
        )

    def test_a_scan_of_a_fold_that_was_not_trained(self, truth):
        others = truth[truth["fold"] >= 2].sort_index()
        file = write_readers("readers.csv", A=truth[truth["fold"] == 0], B=others)
        folds = sorted(set(others["fold"]))
        assert folds == [2, 3, 4]
        assert self.said("--readers", file) == (
            f"readers.csv, line 4: {', '.join(others.index[:5])} and {len(others) - 5} more: no prediction, for their "
            f"fold was not trained (folds 2, 3, 4; this run has folds 0, 1); add "
            f'FOLDS="0 1 2 3 4" after `make predict FOLDS="0 1 2 3 4"`, or leave them out'
        )

    def test_a_scan_none_of_whose_slices_could_be_decoded(self, five):
        scan = five.index[five["fold"] == 1][0]
        path = job_of("readers", *BOTH).paths.predictions(1)
        table = read_table(path)
        other = table[table["scan_id"] == scan].assign(scan_id="another")
        write_table(path, PREDICTIONS, pd.concat([table[table["scan_id"] != scan], other]), {"commit": "0"})
        line = 2 + five.index.get_loc(scan)
        assert self.said("--readers", write_readers("readers.csv", Perfect=five)) == (
            f"readers.csv, line {line}: {scan}: no prediction, for no slice of theirs could be decoded; leave them out"
        )

    def test_a_test_scan_whose_truth_is_not_known(self, five):
        Path("data/phantom/raw/truth.csv").unlink()
        text = self.said("--readers", write_readers("readers.csv", Perfect=five[five["fold"] < 0].sort_index()))
        names = ", ".join(sorted(five.index[five["fold"] < 0]))
        assert text == (
            f"readers.csv, line 2: {names}: test scans, whose truth is not known; put it into "
            "data/phantom/raw/truth.csv, or leave them out"
        )

    def test_truth_that_lacks_a_slice(self, five):
        path = Path("data/phantom/raw/truth.csv")
        scan = five.index[five["fold"] < 0][0]
        slices = read_table(Path("data/phantom/slices.parquet"))
        lost = slices.loc[slices["scan_id"] == scan, "slice_id"].iloc[0]
        path.write_text("".join(line for line in path.open() if not line.startswith(lost)))
        text = self.said("--readers", write_readers("readers.csv", Perfect=five))
        assert text == (
            f"data/phantom/raw/truth.csv: 1 predicted slices are not in it, such as {lost}; "
            "add them, or leave their scans out"
        )

    def test_what_is_missing_is_named_with_what_to_do(self, five):
        assert self.said() == (
            "READERS= is not given: name the CSV of what human readers said, as in READERS=readers.csv"
        )
        assert self.said("--readers", "none.csv").startswith("none.csv: cannot be read (No such file or directory)")
        file = write_readers("readers.csv", Perfect=five)
        path = job_of("readers", *BOTH).paths.predictions(1)
        path.unlink()
        assert self.said("--readers", file) == f"{path} is missing: make it with `make predict`"
        Path("data/phantom/slices.parquet").unlink()
        assert self.said("--readers", file) == "data/phantom/slices.parquet is missing: make it with `make index`"

    def test_on_the_command_line_it_is_one_line_and_status_2(self, five, monkeypatch, capsys):
        text = Path(write_readers("readers.csv", Perfect=five)).read_text()
        Path("readers.csv").write_text(text.replace("Perfect", "", 1))
        monkeypatch.setattr("sys.argv", ["pipeline", "readers", *BOTH, "--readers", "readers.csv"])
        assert main() == 2
        found = capsys.readouterr()
        assert found.err.splitlines()[-1].startswith("error: readers.csv, line 2: reader is empty")
        assert found.out == ""


def test_maxima_and_common_scans_by_hand():
    values = np.arange(18).reshape(3, 6) % 7
    found = scan_maxima(np.array(["b", "a", "b"]), values)
    assert found.index.tolist() == ["a", "b"]
    assert found.to_numpy().tolist() == [[6, 0, 1, 2, 3, 4], np.maximum(values[0], values[2]).tolist()]
    readings = pd.DataFrame({"scan_id": ["c", "a", "b", "a", "c", "d"], "reader": ["X", "X", "X", "Y", "Y", "Y"]})
    assert common_scans(readings) == ["a", "c"]


def test_one_scan_has_an_accuracy_and_little_else():
    found = figures_of(np.array([1]), np.array([0.7]), threshold=0.5, level=0.95)
    defined = {name for name, figure in found.items() if not np.isnan(figure.estimate)}
    assert defined == {"accuracy", "sensitivity", "recall", "precision", "f1"}


def test_rows_are_label_by_label_readers_first_and_kappas_pair_by_pair():
    truth = np.array([[0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    rows = reader_rows(truth, {"R": truth}, {"M": truth * 0.6}, ("intraparenchymal", "any"), 0.5, 0.95)
    assert [(row.label, row.kind, row.name) for row in rows] == [
        ("intraparenchymal", "reader", "R"), ("intraparenchymal", "model", "M"), ("any", "reader", "R"),
        ("any", "model", "M"),
    ]  # fmt: skip
    assert all(row.figures["accuracy"].estimate == 1 for row in rows)
    found = kappas({"A": truth, "B": 1 - truth, "C": truth})
    assert list(found) == [("A", "B"), ("A", "C"), ("B", "C")]
    assert found["A", "C"][[1, 5]].tolist() == [1, 1]
    assert found["A", "B"][5] == -1
    assert np.isnan(found["A", "C"][0])


@pytest.mark.parametrize("recipe", recipe_names())
def test_published_reader_studies_are_whole(recipe):
    table = published_readers(recipe)
    if table is None:
        pytest.skip("its paper has none")
    for row in table.rows:
        assert tuple(row.figures) == table.figures
        assert all(len(values) == len(LABELS) for values in row.figures.values())
        assert all(value is None or 0 <= value <= 1 for values in row.figures.values() for value in values)


def test_the_areas_of_burdujas_table_5_are_those_of_calls():
    for row in published_readers("burduja2020").rows:
        areas, sensitivity, specificity = (row.figures[name] for name in ("roc_auc", "sensitivity", "specificity"))
        for k in range(1, 6):
            # Three figures rounded to 0.01: half of the two errors and the area's own.
            assert areas[k] == pytest.approx((sensitivity[k] + specificity[k]) / 2, abs=0.0101)
