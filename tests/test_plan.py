"""File names of a run, settings files, and Make variables."""

import json

import pytest

from pipeline import plan
from pipeline.config import UserError
from pipeline.job import Job, PhantomSettings
from pipeline.paths import Paths, require
from pipeline.runs import make_run, recipe

PHANTOM = PhantomSettings()


def paths_of(changes=None, recipe_name="burduja2020", seed=0):
    return Paths("phantom", make_run(recipe_name, changes, seed=seed), "rsna")


def test_a_variant_reads_its_parents_cnn_and_writes_its_own_sequence():
    paths, parent = paths_of({"sequence.hidden": "8"}), paths_of()
    assert paths.cnn(1) == parent.cnn(1)
    assert paths.reduced(1) == parent.reduced(1)
    assert paths.sequence(1) != parent.sequence(1)
    assert paths.submission != parent.submission


def test_recipes_with_the_same_view_share_the_cache():
    assert paths_of({"train.epochs": "9"}).images == paths_of().images
    assert paths_of({"view.size": "64"}).images != paths_of().images


def test_another_split_stands_beside_the_usual_one():
    assert str(paths_of().folds) == "data/phantom/folds.parquet"
    assert paths_of({"split.seed": "1"}).folds.name.startswith("folds-")


def settings_names(changes=None, folds=(0, 1), phantom=PHANTOM, recipe_name="burduja2020"):
    files = plan.settings_files(paths_of(changes, recipe_name), folds, phantom)
    return {stage: path.name for stage, (path, _) in files.items()}


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"sequence.hidden": "8"}, {"sequence", "endtoend", "predict"}),
        ({"reduce.count": "8"}, {"reduce", "sequence", "endtoend", "predict"}),
        ({"predict.clip": "0.01"}, {"predict", "score", "submit"}),
    ],
)
def test_settings_files_change_their_name_with_their_stage_and_with_whose_files_it_reads(changes, moved):
    before, after = settings_names(), settings_names(changes)
    assert {stage for stage in before if before[stage] != after[stage]} == moved


def test_the_list_of_folds_concerns_score_and_submit_alone():
    before, after = settings_names(), settings_names(folds=(0,))
    assert {stage for stage in before if before[stage] != after[stage]} == {"score", "submit"}


def test_phantom_settings_concern_the_phantom_alone():
    before, after = settings_names(), settings_names(phantom=PhantomSettings(scans=9))
    assert {stage for stage in before if before[stage] != after[stage]} == {"phantom"}


def test_writing_a_settings_file_removes_the_one_it_replaces_and_no_other(tmp_path):
    old, other = tmp_path / "train-00000000.json", tmp_path / "embed-00000000.json"
    for path in (old, other, tmp_path / "fold-0.json"):
        path.write_text("{}")
    new = tmp_path / "train-11111111.json"
    plan.write_settings_file(new, {"stage": "train"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embed-00000000.json", "fold-0.json", "train-11111111.json"]
    assert json.loads(new.read_text()) == {"stage": "train"}


def test_make_variables_are_words():
    variables = plan.make_variables(paths_of(seed=3), (0, 2), PHANTOM)
    assert variables["CNN"] == "models/phantom/burduja2020-s3/fold-%.safetensors"
    assert variables["FOLD_LIST"] == "0,2"
    assert not any(set(value) & set(" \t$#") for value in variables.values())


def test_a_recipe_without_sequence_predicts_from_its_embeddings():
    variables = plan.make_variables(paths_of({"sequence.kind": "none"}), (0,), PHANTOM)
    assert variables["LAST_MODEL"] == variables["EMBEDDINGS"]
    assert plan.make_variables(paths_of(), (0,), PHANTOM)["LAST_MODEL"].endswith("fold-%.sequence.safetensors")


def test_a_missing_input_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"slices.parquet is missing: make it with `make index`"):
        require(tmp_path / "slices.parquet", "index")


def test_a_stage_of_one_fold_asks_for_it():
    job = Job(recipe("tiny"), paths_of(), None, (0,), PHANTOM, 1, 1, 0.05, False)
    with pytest.raises(UserError, match="say which, as in --fold 0"):
        job.require_fold()
