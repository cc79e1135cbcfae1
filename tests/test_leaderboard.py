"""The leaderboard: rebuilt from score files, sorted, equal bytes; and its table, best first."""

import csv
from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.core.text_table import text_table
from pipeline.leaderboard import COLUMNS, figures_text, read_scores, rebuild
from pipeline.shell.provenance import write_json
from tests.stages import run_stage


def _row(recipe: str, stage: str, fold: str, loss: float | None, dataset: str = "small") -> dict:
    row = dict.fromkeys(COLUMNS, None)
    limits = {"weighted_log_loss_low": loss and loss - 0.01, "weighted_log_loss_high": loss and loss + 0.01}
    identity = {"dataset": dataset, "recipe": recipe, "stage": stage, "fold": fold}
    return {**row, **identity, "weighted_log_loss": loss, **limits, "slices": 1234, "scans": 30}


def _write(submissions: Path, recipe: str, fold: str, losses: dict[str, float | None], dataset: str = "small") -> Path:
    rows = [_row(recipe, stage, fold, loss, dataset) for stage, loss in losses.items()]
    pair = {"stage": "sequence", "minus": "cnn", "difference": -0.05, "low": -0.07, "high": -0.03}
    name = f"fold-{fold}" if fold.isdigit() else fold
    path = submissions / dataset / recipe / f"{name}.score.json"
    write_json(path, {"dataset": dataset, "run": recipe, "fold": fold, "rows": rows, "paired": [pair]})
    return path


@pytest.fixture
def submissions(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("submissions")
    _write(folder, "later", "oof", {"sequence": 0.10, "cnn": 0.15})
    _write(folder, "early", "10", {"cnn": 0.31})
    _write(folder, "early", "2", {"cnn": 0.32})
    _write(folder, "early", "test", {"cnn": 0.05})
    _write(folder, "early", "oof", {"cnn": 0.12, "speaks-of-scans": None})
    return folder


def _lines(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        return [(row["recipe"], row["stage"], row["fold"]) for row in csv.DictReader(file)]


def test_the_file_has_the_promised_columns_in_the_promised_order(submissions):
    header = rebuild(submissions).read_text().splitlines()[0]
    assert header.startswith(
        "dataset,recipe,stage,fold,slices,scans,weighted_log_loss,weighted_log_loss_low,weighted_log_loss_high,"
        "log_loss_epidural,log_loss_intraparenchymal,log_loss_intraventricular,log_loss_subarachnoid,"
        "log_loss_subdural,log_loss_any,roc_auc_epidural,"
    )
    assert header.endswith("pr_auc_any,scan_roc_auc_any,parameters,seconds,commit,settings_digest,time")


def test_rows_are_sorted_by_run_stage_and_fold_as_a_number(submissions):
    assert _lines(rebuild(submissions)) == [
        ("early", "cnn", "2"),
        ("early", "cnn", "10"),
        ("early", "cnn", "oof"),
        ("early", "cnn", "test"),
        ("early", "speaks-of-scans", "oof"),
        ("later", "cnn", "oof"),
        ("later", "sequence", "oof"),
    ]


def test_rebuilding_gives_equal_bytes_and_a_removed_run_is_gone(submissions):
    first = rebuild(submissions).read_bytes()
    assert rebuild(submissions).read_bytes() == first
    for path in (submissions / "small" / "later").iterdir():
        path.unlink()
    assert {recipe for recipe, _, _ in _lines(rebuild(submissions))} == {"early"}


def test_a_figure_that_cannot_be_said_is_an_empty_field(submissions):
    line = next(line for line in rebuild(submissions).read_text().splitlines() if "speaks-of-scans" in line)
    assert line.startswith("small,early,speaks-of-scans,oof,1234,30,,,,")


def test_unfinished_files_are_not_read(submissions):
    (submissions / "small" / "early" / ".oof.score.json.17.partial").write_text("{")
    assert len(read_scores(submissions)) == 5


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": [3]}', '{"dataset": "small"}'])
def test_a_score_file_that_is_not_one_is_named(submissions, content):
    path = submissions / "small" / "early" / "oof.score.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"early/oof.score.json: not a score file .*remove it"):
        rebuild(submissions)


def test_a_score_file_of_other_columns_is_named(submissions):
    path = submissions / "small" / "early" / "oof.score.json"
    row = _row("early", "cnn", "oof", 0.1)
    del row["seconds"]
    write_json(path, {"dataset": "small", "run": "early", "fold": "oof", "rows": [row], "paired": []})
    with pytest.raises(UserError, match=r"other columns than the leaderboard's \(seconds\)"):
        rebuild(submissions)


def test_the_table_is_best_first_out_of_fold_before_test_before_folds(submissions, capsys):
    _write(submissions, "early", "oof", {"cnn": 0.9}, dataset="another")
    run_stage("leaderboard", "--dataset", "small", "--recipe", "tiny")
    figures, paired = capsys.readouterr().out.split("\n\n")
    shown = [tuple(line.split()[:4]) for line in figures.splitlines()[2:]]
    assert shown == [
        ("another", "oof", "early", "cnn"),
        ("small", "oof", "later", "sequence"),
        ("small", "oof", "early", "cnn"),
        ("small", "oof", "later", "cnn"),
        ("small", "oof", "early", "speaks-of-scans"),
        ("small", "test", "early", "cnn"),
        ("small", "2", "early", "cnn"),
        ("small", "10", "early", "cnn"),
    ]
    assert "0.10000  0.09000 to 0.11000" in figures
    assert paired.count("sequence - cnn") == 6
    assert "-0.05000  -0.07000 to -0.03000" in paired
    assert Path("submissions/leaderboard.csv").exists()


def test_without_scores_there_is_a_header_and_no_pairs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_stage("leaderboard", "--recipe", "tiny")
    assert Path("submissions/leaderboard.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert capsys.readouterr().out.startswith("dataset  fold")


def test_columns_line_up():
    text = text_table(["name", "n"], [["a", "1"], ["longer", "1,000"]], left=1)
    assert text == "name        n\n------  -----\na           1\nlonger  1,000\n"
    assert figures_text([]).count("\n") == 2
