"""The other published systems through all stages on a small phantom: what they say, where it lies, what they refuse."""

import os

import numpy as np
import pytest

from pipeline.config import P_LABELS, UserError
from pipeline.core.metrics import scan_scores
from pipeline.core.scan_rules import consecutive_scores
from pipeline.leaderboard import COLUMNS
from pipeline.runs import recipe, system_recipes
from pipeline.shell.drawn_tables import read_drawn
from pipeline.shell.provenance import read_json
from pipeline.shell.tables import read_table
from pipeline.systems import drawings_text, headlines_text, systems_text
from tests.stages import run_stage, run_stages

PHANTOM = ("--phantom-scans", "10", "--threads", "1", "--n-jobs", "1", "--folds", "0")
QUICK = {
    "grewal2018-small": ("train.epochs=1", "dense.block_layers=2", "predict.resamples=20"),
    "patel2019-small": ("train.epochs=1", "sequence.epochs=1", "endtoend.epochs=1", "predict.resamples=20"),
    "chang2018-small": ("view.size=32", "train.epochs=1", "boxes.least_score=0", "predict.resamples=20"),
}
STAGES = {
    "grewal2018-small": ("window", "train", "predict", "score"),
    "patel2019-small": ("split", "window", "train", "embed", "reduce", "sequence", "endtoend", "predict", "score"),
    "chang2018-small": ("window", "train", "predict", "score"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a phantom data set, indexed and divided; every run makes what it needs beside the others."""
    folder = tmp_path_factory.mktemp("systems")
    before = os.getcwd()
    os.chdir(folder)
    run_stages(("phantom", "index", "split"), "--recipe", "tiny", *PHANTOM)
    yield folder
    os.chdir(before)


def arguments(recipe: str) -> tuple[str, ...]:
    return ("--recipe", recipe, *PHANTOM, "--set", *QUICK[recipe])


@pytest.fixture(scope="module")
def run(folder):
    """Return the job of a recipe whose stages have run, each once."""
    done = {}

    def of(recipe: str):
        if recipe not in done:
            done[recipe] = run_stages(STAGES[recipe], *arguments(recipe))
        return done[recipe]

    return of


@pytest.mark.parametrize("recipe", QUICK)
def test_a_system_that_speaks_of_any_alone_has_no_weighted_loss_and_no_submission(run, recipe):
    job = run(recipe)
    said = read_table(job.paths.predictions(0))
    assert said[list(P_LABELS[:-1])].isna().all(axis=None)
    assert said["p_any"].between(0, 1).all()
    score = read_json(job.paths.score("oof"))
    own = [row for row in score["rows"] if not row["stage"].startswith("constant-")]
    assert all(set(row) == set(COLUMNS) and row["weighted_log_loss"] is None for row in own)
    assert {row["stage"] for row in own} == set(said["stage"]) | set(read_table(job.paths.scan_predictions(0))["stage"])
    assert all(row["parameters"] > 0 and row["seconds"] > 0 for row in own)
    assert set(score["scan_roc_auc_any"]) == {row["stage"] for row in score["rows"]}
    with pytest.raises(UserError, match=r"gives no probabilities of epidural, .*subdural: a submission needs all six"):
        run_stage("submit", *arguments(recipe))
    assert not job.paths.submission.exists()
    text = systems_text([score])
    assert text.count(job.run.name) == len(own)
    assert text.splitlines()[-1].split()[0] == "constant-prevalence"


def test_radnet_calls_scans_by_consecutive_slices(run):
    paths = run("grewal2018-small").paths
    slices = read_table(paths.slices).set_index("slice_id")
    said = read_table(paths.predictions(0)).query("slice_id in @slices.index")
    position = slices["position"][said["slice_id"]].to_numpy()
    scans = read_table(paths.scan_predictions(0))
    for run_length in (1, 2, 3):
        stage = scans[scans["stage"] == f"sequence/consecutive-{run_length}"].set_index("scan_id")["p_any"]
        names, expected = consecutive_scores(said["scan_id"].to_numpy(), position, said["p_any"].to_numpy(), run_length)
        np.testing.assert_array_equal(stage[names], expected)
    names, highest = scan_scores(said["scan_id"].to_numpy(), said["p_any"].to_numpy())
    np.testing.assert_array_equal(
        scans[scans["stage"] == "sequence/consecutive-1"].set_index("scan_id")["p_any"][names], highest
    )


def test_patels_three_steps_speak_of_every_scan(run):
    paths = run("patel2019-small").paths
    scans = read_table(paths.scan_predictions(0))
    slices = read_table(paths.predictions(0))
    stages = scans.groupby("stage")["scan_id"].apply(set)
    assert set(stages.index) == {"cnn/percentile-95", "cnn/svm", "sequence", "endtoend"}
    known = set(slices.loc[slices["scan_id"] != "", "scan_id"])
    assert all(found == known for found in stages)
    for stage, own in scans.groupby("stage"):
        assert own["p_any"].nunique() > 1, stage
    embedded = read_table(paths.embeddings(0))
    assert embedded[list(P_LABELS[:-1])].isna().all(axis=None)


def test_what_is_drawn_is_measured_and_a_scan_is_its_surest_detection(run):
    paths = run("chang2018-small").paths
    detections, said = read_table(paths.detections(0)), read_table(paths.predictions(0))
    surest = detections.groupby("slice_id")["score"].max()
    own = said[said["slice_id"].isin(surest.index)].set_index("slice_id")["p_any"]
    np.testing.assert_array_equal(own[surest.index], surest)
    known = said[~said["slice_id"].isin(surest.index)]
    readable = known["slice_id"].isin(read_table(paths.slices)["slice_id"])
    assert (known.loc[readable, "p_any"] == 0).all()
    measured = read_table(paths.measurements(0))
    true = measured[measured["source"] == "true"]
    assert (true["volume_ml"] > 0).all()
    overlaps = read_table(paths.overlaps(0))
    assert overlaps["dice"].between(0, 1).all()
    assert overlaps.loc[overlaps["type"] == "any", "threshold_dice"].notna().all()


def test_drawings_are_printed_by_type_beside_a_threshold(run):
    paths = run("chang2018-small").paths
    drawn = read_drawn(paths, (0,))
    lines = [line.split() for line in drawings_text({"mine": drawn}).splitlines()]
    assert [line[1] for line in lines[2:]] == ["any", "IPH", "EDH/SDH", "SAH", "IPH"]
    of_any = drawn.overlaps[drawn.overlaps["type"] == "any"]
    dice, plain = of_any["dice"].mean(), of_any["threshold_dice"].mean()
    assert lines[2][2:5] == [str(len(of_any)), f"{dice:.3f}", f"{plain:.3f}"]
    assert set(of_any["split"]) == {"train"}
    with pytest.raises(UserError, match="`make predict`"):
        read_drawn(paths, (0, 1))


def test_what_systems_are_known_by_is_printed_under_their_papers_names():
    text = headlines_text([recipe(name) for name in system_recipes()])
    for figure in ("0.04989", "36 ms", "0.067", "0.075", "40 h", "0.5 s", "0.121 s", "0.04383", "0.04607", "0.0522"):
        assert figure in text
    assert "small" not in text
    assert "quickstart" not in text


@pytest.mark.parametrize("recipe", ["grewal2018-small", "chang2018-small"])
def test_a_recipe_that_learns_from_masks_says_at_once_where_there_are_none(folder, tmp_path, monkeypatch, recipe):
    (tmp_path / "data" / "bare").mkdir(parents=True)
    raw = tmp_path / "data" / "bare" / "raw"
    raw.mkdir()
    for entry in (folder / "data" / "phantom" / "raw").iterdir():
        if entry.name != "masks":
            (raw / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    bare = ("--dataset", "bare", *arguments(recipe))
    run_stage("index", *bare)
    with pytest.raises(UserError, match=r"masks.*phantom"):
        run_stage("window", *bare)
    assert not (tmp_path / "data" / "bare" / "png").exists()
