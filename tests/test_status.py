"""`status` against a real Make: what is fresh, stale and why, or missing."""

import os
from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.paths import record_of
from pipeline.schema import REJECTED, Column, Contract
from pipeline.shell.provenance import write_json
from pipeline.shell.tables import write_table
from pipeline.status import artefacts, code_notes, dry_run, parse, raw_notes, state, states_text
from tests.stages import job_of, run_stage

MAKEFILE = """
DIGEST ?= aaaaaaaa
submission: d.csv e.csv
a.parquet: raw.csv
\ttouch $@
b.parquet: a.parquet train-$(DIGEST).json
\ttouch $@
c.parquet: b.parquet view.settings.json
\ttouch $@
d.csv: c.parquet
\ttouch $@
e.csv: a.parquet $(if $(FORCE),FORCED)
\ttouch $@
train-$(DIGEST).json view.settings.json:
\ttouch $@
.PHONY: submission FORCED
"""
FILES = (
    "raw.csv",
    "train-aaaaaaaa.json",
    "view.settings.json",
    "a.parquet",
    "b.parquet",
    "c.parquet",
    "d.csv",
    "e.csv",
)
"""In the order in which Make would make them."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A graph that is up to date."""
    # The tests may themselves run below Make, whose variables are not for this one.
    for variable in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    for age, name in enumerate(FILES):
        (tmp_path / name).touch()
        _set_time(tmp_path / name, age)
    return tmp_path


def _set_time(path: Path, seconds: int) -> None:
    os.utime(path, (1_700_000_000 + seconds,) * 2)


def _states(folder: Path) -> dict[str, tuple[str, str]]:
    found = parse(dry_run(["submission"], folder))
    return {name: state(found, name, (folder / name).exists()) for name in FILES if name.endswith((".parquet", ".csv"))}


def _not_fresh(folder: Path) -> dict[str, tuple[str, str]]:
    return {name: what for name, what in _states(folder).items() if what != ("fresh", "")}


def test_all_fresh_and_nothing_done(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert _not_fresh(folder) == {}
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_newer_input_is_the_reason_of_all_behind_it(folder):
    _set_time(folder / "raw.csv", 99)
    why = ("stale", "raw.csv is newer")
    assert _not_fresh(folder) == dict.fromkeys(("a.parquet", "b.parquet", "c.parquet", "d.csv", "e.csv"), why)


def test_a_deleted_artefact_is_missing_and_the_reason_of_all_behind_it(folder):
    (folder / "b.parquet").unlink()
    why = ("stale", "b.parquet is missing")
    assert _not_fresh(folder) == {"b.parquet": ("missing", ""), "c.parquet": why, "d.csv": why}


def test_a_settings_file_that_is_not_there_means_changed_settings(folder):
    (folder / "view.settings.json").unlink()
    why = ("stale", "settings of view changed")
    assert _not_fresh(folder) == {"c.parquet": why, "d.csv": why}


def test_the_variables_of_the_calling_makes_command_line_reach_make(folder, monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", "s -j2 --jobserver-auth=3,4 -- DIGEST=bbbbbbbb FORCE=1")
    why = ("stale", "settings of train changed")
    # FORCE is the one that does not: it would make every named stage look stale.
    assert _not_fresh(folder) == {"b.parquet": why, "c.parquet": why, "d.csv": why}


def test_what_make_cannot_make_is_said_and_the_rest_shown(folder):
    for name in ("raw.csv", "a.parquet"):
        (folder / name).unlink()
    found = parse(dry_run(["submission"], folder))
    assert found.faults == ["No rule to make target 'raw.csv', needed by 'a.parquet'."]
    blocked = ("blocked", "by what Make cannot do, below")
    # None of them may pass for fresh: Make did not get as far as looking at them.
    assert _not_fresh(folder) == {
        **dict.fromkeys(("raw.csv", "a.parquet"), ("missing", "")),
        **dict.fromkeys(("b.parquet", "c.parquet", "d.csv", "e.csv"), blocked),
    }
    text = states_text(found, [Path("a.parquet")])
    assert text == "a.parquet  missing\nmake: No rule to make target 'raw.csv', needed by 'a.parquet'.\n"


def test_a_makefile_that_cannot_be_read_makes_nothing_fresh(folder):
    (folder / "Makefile").write_text("$(error no plan for this run)\n")
    assert parse(dry_run(["submission"], folder)).faults == ["no plan for this run.  Stop."]
    assert {what for what, _ in _states(folder).values()} == {"blocked"}


def test_the_artefacts_are_the_runs_in_the_order_of_the_pipeline():
    job = job_of("status", "--recipe", "tiny", "--folds", "0 2")
    names = [path.name for path in artefacts(job.paths, job.folds)]
    assert names[1:3] == ["slices.parquet", "folds.parquet"]
    assert names[4:8] == [
        "fold-0.safetensors",
        "fold-2.safetensors",
        "fold-0.embeddings.parquet",
        "fold-2.embeddings.parquet",
    ]
    assert names[-3:] == ["oof.score.json", "tiny.csv", "leaderboard.csv"]
    cnn_only = job_of("status", "--recipe", "tiny", "--set", "sequence.kind=none")
    assert not any("sequence" in path.name for path in artefacts(cnn_only.paths, (0,)))


def test_status_is_for_make(monkeypatch):
    monkeypatch.delenv("MAKELEVEL", raising=False)
    with pytest.raises(UserError, match="call it as `make status`"):
        run_stage("status", "--recipe", "tiny")


def test_code_that_changed_is_shown_but_makes_nothing_stale(tmp_path):
    files = [tmp_path / f"{name}.parquet" for name in ("a", "b", "c", "lost")]
    for path, made_by in zip(files, ("old", "now", "old", "old"), strict=True):
        write_json(record_of(path), {"commit": made_by})
        if path.stem != "lost":
            path.touch()
    (note,) = code_notes(files, "now")
    assert "2 artefacts were made by commit old, this is now: a.parquet, c.parquet;" in note
    assert code_notes(files[1:2], "now") == []


def test_another_number_of_raw_files_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = job_of("status", "--dataset", "small", "--recipe", "tiny").paths
    assert raw_notes(paths) == []
    paths_only = Contract("PATHS", ("path",), (Column("path", REJECTED.columns[0].type),))
    for path, names in ((paths.slices, ["a.dcm", "b.dcm"]), (paths.rejected, ["c.dcm"])):
        table = paths_only.schema().empty_table().from_pydict({"path": names}, schema=paths_only.schema())
        write_table(path, paths_only, table, {})
    folder = paths.raw / "stage_2_train"
    folder.mkdir(parents=True)
    for name in ("a.dcm", "b.DCM", "c.dcm", "notes.txt"):
        (folder / name).touch()
    assert raw_notes(paths) == []
    (folder / "d.dcm").touch()
    assert raw_notes(paths) == [
        "raw: data/small/raw holds 4 DICOM files, the index knows 3; redo it with `make index FORCE=1`"
    ]
