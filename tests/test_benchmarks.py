"""Measuring, keeping and rendering, and the full-size benchmark on a small data set."""

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as benchmarks_main
from benchmarks import full_size, header_rows, memory
from benchmarks.comparison import Comparison, Target, alternating
from benchmarks.full_size_data import RSNA_TEST, RSNA_TRAIN, make_slices, scaled
from benchmarks.measure import measure
from benchmarks.parts import PARTS, SLOW_PARTS
from benchmarks.render import README, rendered
from benchmarks.results import Cost, cpu_model, machine_name, markdown, read_results, rows_of, write_results
from pipeline.shell.provenance import read_json

MACHINE = {
    "cpu": "AMD EPYC",
    "cores": 2,
    "memory_gb": 24,
    "tables": {
        "full_size": {
            "date": "2026-01-02",
            "commit": "0123456789ab",
            "threads": 2,
            "rows": [
                {
                    "kind": "Cost",
                    "name": "split",
                    "seconds": 2.345,
                    "peak_mb": 1234.5,
                    "most_seconds": 9,
                    "most_mb": 4e3,
                },
                {"kind": "Cost", "name": "submit", "seconds": 0.1234, "peak_mb": 99.6},
            ],
        }
    },
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, list[Cost]]:
    """The benchmark's folder and rows after a run with some hundred scans."""
    folder = tmp_path_factory.mktemp("full_size")
    return folder, full_size.run(folder, scaled(RSNA_TRAIN, 0.015), scaled(RSNA_TEST, 0.015), runs=1)


def test_a_small_data_set_goes_through_the_benchmark(measured):
    folder, rows = measured
    names = ["read_labels (label CSV)", header_rows.NAME, "split", "score --fold 0", "score", "submit", "leaderboard"]
    assert [row.name for row in rows] == names
    assert all(0.05 < row.seconds < 60 and 10 < row.peak_mb < 2000 for row in rows)
    submission = pd.read_csv(folder / "submissions/rsna-like/burduja2020.csv")
    assert len(submission) == 6 * 1818
    labels = (folder / "data/rsna-like/raw/stage_2_train.csv").read_text().splitlines()
    assert labels[0] == "ID,Label"
    assert len(labels) == 1 + 6 * 11_292 + 24


def test_an_index_that_lost_something_is_seen(measured):
    folder, _ = measured
    train, test = scaled(RSNA_TRAIN, 0.015), scaled(RSNA_TEST, 0.015)
    header_rows.check_index(folder, train, test)
    with pytest.raises(ValueError, match="index: .*'train slices': 11292.* expected .*'train slices': 11293"):
        header_rows.check_index(folder, replace(train, slices=train.slices + 1), test)
    with pytest.raises(ValueError, match=r"index: \d+ scans of 300 series"):
        header_rows.check_index(folder, replace(train, scans=300 - test.scans), test)


def test_headers_are_like_those_of_rsna(tmp_path):
    header_rows.lay_out_headers(tmp_path, scaled(RSNA_TRAIN, 0.05), scaled(RSNA_TEST, 0.05), 0)
    headers = pd.DataFrame([header for (header,) in header_rows.read_made_headers(tmp_path / "headers.parquet")])
    places = np.array(headers["position_mm"].tolist())
    orientation = np.array(headers["orientation"].tolist())
    by_series = headers.assign(z=places[:, 2], cosine=orientation[:, 4]).sort_values(["series_id", "z"])
    assert (by_series.groupby("series_id")["patient_id"].nunique() == 1).all()
    np.testing.assert_allclose((orientation[:, 3:] ** 2).sum(axis=1), 1)
    assert by_series.groupby("series_id")["cosine"].first().lt(1).mean() == pytest.approx(2 / 3, abs=0.05)
    gaps = by_series.groupby("series_id")["z"].diff()
    assert gaps.median() == pytest.approx(5, abs=0.1)
    has_gap = (gaps > 7.5).groupby(by_series["series_id"]).any()
    assert has_gap.mean() == pytest.approx(152 / 2214, abs=0.025)


def test_memory_is_measured_stage_by_stage_and_compared(tmp_path):
    peaks = memory.run(tmp_path, 1500)
    assert list(peaks) == list(memory.STAGES)
    assert all(50 < peak < 3000 for peak in peaks.values())
    records = [tmp_path / "data/tiny-slices/slices.json", *tmp_path.glob("data/tiny-slices/png/brain3-????????.json")]
    index, images = (read_json(record)["counts"] for record in records)
    assert (index["train slices"] + index["test slices"], index["rejected"]) == (1500, 0)
    assert images == {"images": 1500, "new": 1500, "rejected": 0}
    larger = {**peaks, "window": 1.11 * peaks["window"], "index": peaks["index"] + 9}
    rows = {row.name: row for row in memory.compared(peaks, larger, more_slices=9 * 1024)}
    assert [name.partition(": ")[2] for name in rows] == [*memory.CONSTANT, *memory.PER_SLICE]
    assert rows["memory: window"].is_reached() is False
    assert rows["memory: embed"].is_reached() is True
    assert rows["memory: index"].value == pytest.approx(1024)
    assert rows["memory: predict"].value == 0


def test_what_comes_out_wrong_is_seen(tmp_path):
    slices = make_slices(scaled(RSNA_TRAIN, 0.01), scaled(RSNA_TEST, 0.01), 0)
    patients = slices.loc[slices["split"] == "train", "patient_id"].unique()
    fold_of = pd.Series(np.arange(len(patients)) % 5, index=patients)
    full_size.check_folds(slices, fold_of)
    for wrong in (fold_of.iloc[1:], pd.concat([fold_of, fold_of.iloc[:1]]), pd.concat([fold_of, pd.Series({"x": 0})])):
        with pytest.raises(ValueError, match=f"FOLDS: {len(wrong)} rows for {len(patients)} patients"):
            full_size.check_folds(slices, wrong)

    sample, submission = tmp_path / "sample.csv", tmp_path / "submission.csv"
    sample.write_text("ID,Label\na_any,0.5\nb_any,0.5\n")
    submission.write_text("ID,Label\nb_any,0.1\na_any,0.2\n")
    with pytest.raises(ValueError, match="submission.csv: 2 rows that are not the sample's 2 in its order"):
        full_size.check_submission(sample, submission, 2)
    with pytest.raises(ValueError, match="sample.csv: 2 rows that are not the sample's 12"):
        full_size.check_submission(sample, sample, 12)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda board: board[board["fold"] != "test"], "leaderboard: rows .*, expected"),
        (
            lambda board: board.assign(weighted_log_loss=board["weighted_log_loss"] + 1e-6),
            "0: prevalence loses .* entropy",
        ),
        (
            lambda board: board.assign(stage=board["stage"].replace({"cnn": "sequence", "sequence": "cnn"})),
            "0: losses .* are not in the order of what the predictors know",
        ),
    ],
)
def test_a_wrong_leaderboard_is_seen(measured, change, text):
    folder, _ = measured
    slices = make_slices(scaled(RSNA_TRAIN, 0.015), scaled(RSNA_TEST, 0.015), full_size.SEED)
    fold_of = pd.read_parquet(folder / "data/rsna-like/folds.parquet").set_index("patient_id")["fold"]
    board = pd.read_csv(folder / "submissions/leaderboard.csv")
    full_size.check_leaderboard(board, slices, fold_of)
    with pytest.raises(ValueError, match=text):
        full_size.check_leaderboard(change(board), slices, fold_of)


def test_memory_and_time_are_the_childs_own(tmp_path):
    held = np.ones(60_000_000)  # 480 MB here must not count there
    seconds, small = measure([sys.executable, "-c", "import time; time.sleep(0.3)"], tmp_path, os.environ)
    _, large = measure([sys.executable, "-c", "x = b'1' * (200 * 1024 * 1024)"], tmp_path, os.environ)
    assert held[-1] == 1
    assert 0.3 < seconds < 5
    assert small < 60
    assert 200 < large < 260


def test_a_command_that_fails_shows_the_end_of_its_output(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)exit status 3\n.*why it failed"):
        measure([sys.executable, "-c", "print('why it failed'); raise SystemExit(3)"], tmp_path, os.environ)
    with pytest.raises(RuntimeError, match="exit status 137"):
        measure([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tmp_path, os.environ)


@pytest.mark.parametrize(
    ("cpu", "cores", "name"),
    [
        ("AMD EPYC", 2, "amd-epyc-2-cores"),
        ("AMD EPYC 7B13", 2, "amd-epyc-7b13-2-cores"),
        ("AMD EPYC 7B13 64-Core Processor", 1, "amd-epyc-7b13-1-core"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", 16, "intel-xeon-16-cores"),
    ],
)
def test_a_machines_name(cpu, cores, name):
    assert machine_name(cpu, cores) == name
    assert machine_name(cpu, cores, "NVIDIA H100 80GB HBM3") == f"{name}-nvidia-h100-80gb-hbm3"


def test_the_processor_is_read_from_the_system(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU 9000\nmodel name\t: Other\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU 9000"
    assert cpu_model(tmp_path / "absent")


def test_a_table_is_replaced_and_others_stay(tmp_path):
    rows = [
        Cost("split", 1.234, 7.89, most_seconds=15.0),
        Comparison("window", "ms a slice", 0.05, Target("times", 20), baseline=2.0, note="float64"),
        Comparison("training", "images/s", None, Target("least", 1012), note="no GPU"),
    ]
    write_results(tmp_path, "speed", [Cost("old", 1, 1)], threads=1)
    write_results(tmp_path, "full_size", rows[:1], threads=1)
    path = write_results(tmp_path, "speed", rows, threads=2)
    (machine,) = read_results(tmp_path)
    assert machine["machine"] == path.stem
    assert sorted(machine["tables"]) == ["full_size", "speed"]
    assert rows_of(machine["tables"]["speed"]) == rows
    assert machine["tables"]["speed"]["threads"] == 2
    assert {"date", "commit", "versions"} <= set(machine["tables"]["speed"])


def test_the_table_as_text():
    assert markdown([MACHINE], ["full_size"]) == (
        "AMD EPYC, 2 cores, 24 GB; 2 threads; commit 0123456789ab, 2026-01-02:\n"
        "\n"
        "| stage | seconds | peak MB | to reach |\n"
        "| --- | --- | --- | --- |\n"
        "| split | 2.35 | 1,234 | ≤ 9 s, 4,000 MB |\n"
        "| submit | 0.123 | 99.6 |  |\n"
    )
    assert markdown([MACHINE], ["another"]) == ""
    assert markdown([MACHINE, MACHINE], ["full_size"]).count("| split |") == 2


def test_several_parts_make_one_table_with_notes_below():
    held = MACHINE["tables"]["full_size"]
    window = {"kind": "Comparison", "name": "window", "unit": "ms a slice", "value": 2.0, "baseline": 9.0}
    training = {"kind": "Comparison", "name": "training", "unit": "images/s", "note": "no GPU"}
    tables = {"a": {**held, "rows": [window]}, "b": {**held, "commit": "fedcba", "rows": [training]}}
    lines = markdown([{**MACHINE, "gpu": "NVIDIA H200", "tables": tables}], ["a", "b", "c"]).splitlines()
    assert lines[0] == "AMD EPYC, 2 cores, 24 GB, NVIDIA H200; 2 threads; commit 0123456789ab, fedcba, 2026-01-02:"
    assert lines[2] == "| stage | unit | straightforward | here | ratio | to reach | reached |"
    assert lines[4:6] == [
        "| window | ms a slice | 9.00 | 2.00 | 4.50 |  |  |",
        "| training | images/s |  | not measured |  |  |  |",
    ]
    assert lines[6:] == ["", "- training: no GPU"]


@pytest.mark.parametrize(
    ("unit", "value", "baseline", "target", "ratio", "reached"),
    [
        ("ms a slice", 2.0, 9.0, Target("times", 4), 4.5, True),
        ("ms a slice", 2.0, 7.9, Target("times", 4), 3.95, False),
        ("images/s", 8.0, 2.0, Target("times", 4), 4.0, True),
        ("images/s", 8.0, None, Target("least", 9), None, False),
        ("ms a slice", 3.0, 2.0, Target("share", 1.5), 1.5, True),
        ("MB", 111.0, 100.0, Target("share", 1.1), 1.11, False),
        ("s", 0.3, None, Target("most", 0.3), None, True),
        ("s", 0.31, 1.0, None, 1 / 0.31, None),
        ("s", None, 1.0, Target("most", 0.3), None, None),
    ],
)
def test_a_target_is_reached_or_not(unit, value, baseline, target, ratio, reached):
    row = Comparison("x", unit, value, target, baseline)
    assert row.ratio() == pytest.approx(ratio) if ratio else row.ratio() is None
    assert row.is_reached() is reached


def test_both_are_called_in_turn_and_the_first_calls_do_not_count(monkeypatch):
    clock, calls = iter(range(100)), []
    monkeypatch.setattr("benchmarks.comparison.time.perf_counter", lambda: next(clock))
    ours, baseline = alternating(lambda: calls.append("a"), lambda: calls.append("b"), rounds=2)
    assert "".join(calls) == "ababab"
    assert (ours, baseline) == (1, 1)


def test_rendering_replaces_what_stands_between_the_markers_alone():
    text = (
        "a\n<!-- full_size:begin -->\nold \\1\n<!-- full_size:end -->\nb\n<!-- other:begin -->\nc\n<!-- other:end -->\n"
    )
    once = rendered(text, [MACHINE])
    assert "old" not in once
    assert "| submit | 0.123 | 99.6 |  |\n<!-- full_size:end -->\nb\n<!-- other:begin -->\nc\n" in once
    assert rendered(once, [MACHINE]) == once
    assert rendered("no markers\n", [MACHINE]) == "no markers\n"


def test_readme_has_the_markers_and_a_row_of_each_stage():
    text = README.read_text()
    between = text.partition("<!-- full_size:begin -->\n")[2].partition("<!-- full_size:end -->")[0]
    for name in ("read_labels (label CSV)", "split", "score --fold 0", "score", "submit", "leaderboard"):
        assert f"\n| {name} | " in between


def test_a_part_that_fails_is_named_and_the_others_run(monkeypatch, capsys, caplog):
    ran = []

    def run(command, check):
        ran.append(command[-1])
        return subprocess.CompletedProcess(command, 1 if command[-1] == "benchmarks.reduce" else 0)

    monkeypatch.setattr(benchmarks_main.subprocess, "run", run)
    monkeypatch.setattr(benchmarks_main.render, "main", lambda: ran.append("render"))
    monkeypatch.setattr(benchmarks_main, "machine_facts", lambda: {"machine": "this"})
    monkeypatch.setattr(benchmarks_main, "read_json", lambda _path: MACHINE)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "reduce", "full_size"])
    assert benchmarks_main.main() == 1
    assert ran == ["benchmarks.reduce", "benchmarks.full_size", "render"]
    assert "failed: reduce; their rows are of an earlier run, or missing" in caplog.text
    assert "split" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["benchmarks", "redcue"])
    with pytest.raises(SystemExit, match="2"):
        benchmarks_main.main()
    assert "no part redcue; parts are " in capsys.readouterr().err


def test_every_part_is_a_module_that_measures_rows():
    for part in (*PARTS, *SLOW_PARTS):
        assert callable(importlib.import_module(f"benchmarks.{part}").rows), part
