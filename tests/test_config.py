"""Settings: variants, names of runs, digests, and who owns an artefact."""

import dataclasses

import pytest

from pipeline.config import BASE, STAGE_SECTIONS, Run, UserError, digest, fold_count, owner, settings_digest, variant
from pipeline.runs import make_run, published_tables, recipe, recipe_folds, recipe_names, variant_names


def test_a_variant_changes_what_it_names_and_nothing_else():
    changed = variant(BASE, **{"train.epochs": 3, "train.learning_rates": "1e-4,2e-5"})
    assert changed.train.epochs == 3
    assert changed.train.learning_rates == (1e-4, 2e-5)
    restored = variant(
        changed, **{"train.epochs": BASE.train.epochs, "train.learning_rates": BASE.train.learning_rates}
    )
    assert restored == BASE


@pytest.mark.parametrize(
    ("dotted", "text", "value"),
    [
        ("sequence.probabilities", "false", False),
        ("sequence.probabilities", "1", True),
        ("predict.clip", "1e-3", 1e-3),
        ("view.windows", "40/80,80/200", ((40.0, 80.0), (80.0, 200.0))),
        ("reduce.method", "largest_std", "largest_std"),
        ("train.batch", "8", 8),
    ],
)
def test_text_from_the_command_line_takes_the_fields_type(dotted, text, value):
    section, name = dotted.split(".")
    assert getattr(getattr(variant(BASE, **{dotted: text}), section), name) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.epoch": 1}, r"no field 'epoch' in train; fields are network, encoder, growth, weights, .*epochs"),
        ({"trian.epochs": 1}, r"no section 'trian'; sections are view, split, train"),
        ({"train.epochs": "many"}, r"train.epochs='many': expected a value like '\d+'"),
        ({"train.epochs": "1.5"}, r"train.epochs='1.5': expected"),
        ({"reduce.method": "umap"}, r"choose one of pca, largest_weights"),
        ({"sequence.probabilities": "perhaps"}, r"sequence.probabilities='perhaps': expected"),
    ],
)
def test_a_wrong_setting_says_what_would_be_right(changes, message):
    with pytest.raises(UserError, match=message):
        variant(BASE, **changes)


def test_digests_hold_values_and_not_the_order_of_keys():
    assert digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest({})) == 8


def test_every_field_of_the_settings_moves_the_digest():
    for section in dataclasses.fields(BASE):
        for field in dataclasses.fields(getattr(BASE, section.name)):
            value = getattr(getattr(BASE, section.name), field.name)
            other = {bool: lambda v: not v, str: lambda v: v + "x", tuple: lambda v: (*v, 1.0)}.get(
                type(value), lambda v: v + 1
            )(value)
            changed_section = dataclasses.replace(getattr(BASE, section.name), **{field.name: other})
            changed = dataclasses.replace(BASE, **{section.name: changed_section})
            assert settings_digest(changed) != settings_digest(BASE), f"{section.name}.{field.name}"


def test_a_run_with_changes_stands_beside_its_recipe():
    run = make_run("quickstart", {"sequence.hidden": "128"})
    assert run.name.startswith("quickstart+")
    assert len(run.name) == len("quickstart+") + 8
    assert run.parents[0] == recipe("quickstart")
    assert make_run("quickstart", {"sequence.hidden": "128"}).name == run.name
    assert make_run("quickstart", {"sequence.hidden": "64"}).name != run.name


def test_a_seed_other_than_zero_names_the_run_and_changes_training():
    assert make_run("tiny", seed=0) == recipe("tiny")
    run = make_run("tiny", seed=7)
    assert run.name == "tiny-s7"
    assert run.settings.train.seed == 7


@pytest.mark.parametrize(
    ("name", "message"), [("../x", "use letters"), ("tiny", "a recipe has that name"), ("tiny-cnn", "a recipe")]
)
def test_names_that_cannot_be_a_folder_or_are_taken_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        make_run("quickstart", {"train.epochs": "1"}, name=name)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(UserError, match="RECIPE=nope: no such recipe; recipes are burduja2020, .*quickstart, tiny"):
        recipe("nope")


@pytest.mark.parametrize(
    ("changed", "shared"),
    [
        ("view.size", []),
        ("train.epochs", ["window", "split"]),
        ("reduce.count", ["window", "split", "train", "embed"]),
        ("sequence.hidden", ["window", "split", "train", "embed", "reduce"]),
        ("predict.clip", ["window", "split", "train", "embed", "reduce", "sequence", "endtoend"]),
    ],
)
def test_stages_before_the_changed_section_belong_to_the_parent(changed, shared):
    value = {"predict.clip": "0.01"}.get(changed, "5")
    run = make_run("burduja2020", {changed: value})
    owned_by_parent = [stage for stage in STAGE_SECTIONS if owner(run, stage).name == "burduja2020"]
    assert owned_by_parent == shared


def test_ownership_goes_through_several_generations_and_back_to_the_run_for_predictions():
    grandparent = Run("a", BASE)
    parent = Run("b", variant(BASE, **{"sequence.hidden": 7}), parents=(grandparent,))
    child = Run("c", variant(parent.settings, **{"sequence.dropout": 0.5}), parents=(parent,))
    assert owner(child, "reduce").name == "a"
    assert owner(child, "sequence").name == "c"
    assert owner(Run("d", parent.settings, parents=(parent,)), "sequence").name == "b"
    assert owner(Run("d", parent.settings, parents=(parent,)), "predict").name == "d"


VARIANTS = (
    "effnetb4", "cnn", "preds", "std192", "largest192", "smallest192", "smallest120", "pca192-2x128", "pca192-3x128",
    "pca192", "pca120",
)  # fmt: skip


@pytest.mark.parametrize("base", ["burduja2020", "quickstart"])
def test_the_rows_of_table_2_are_the_variants_and_the_recipe_itself(base):
    assert sorted(variant_names(base)) == sorted(VARIANTS)
    (table,) = published_tables(base)
    assert sorted(row.variant for row in table.rows) == sorted(["", *VARIANTS])
    assert [row.figure for row in table.rows][-1] == min(row.figure for row in table.rows) == 0.04989
    assert recipe_folds(f"{base}-pca192") == recipe_folds(base)


@pytest.mark.parametrize("base", ["burduja2020", "quickstart"])
@pytest.mark.parametrize(
    ("name", "owners"),
    [
        ("effnetb4", {"train": "-effnetb4", "embed": "-effnetb4"}),
        ("cnn", {"train": "", "embed": "", "reduce": "", "sequence": "-cnn"}),
        ("preds", {"train": "", "embed": "", "reduce": "-preds", "sequence": "-preds"}),
        ("pca192", {"embed": "", "reduce": "-pca192", "sequence": "-pca192"}),
        ("pca192-2x128", {"embed": "", "reduce": "-pca192", "sequence": "-pca192-2x128"}),
        ("pca120", {"embed": "", "reduce": "", "sequence": "-pca120"}),
    ],
)
def test_variants_reuse_all_they_can(base, name, owners):
    run = recipe(f"{base}-{name}")
    assert {stage: owner(run, stage).name for stage in owners} == {s: base + suffix for s, suffix in owners.items()}


def test_only_the_last_row_of_table_2_shows_the_classifier_the_cnns_probabilities():
    for name in VARIANTS:
        settings = recipe(f"burduja2020-{name}").settings
        assert settings.sequence.kind == "none" or not settings.sequence.probabilities
    assert recipe("burduja2020").settings.sequence.probabilities


def test_variants_with_the_same_changes_still_share_what_they_share():
    changes, seeded = {"train.epochs": "1"}, make_run("quickstart-pca192-2x128", {"train.epochs": "1"}, seed=3)
    changed = make_run("quickstart-pca192", changes)
    assert changed.name == f"quickstart-pca192{make_run('quickstart', changes).name.removeprefix('quickstart')}"
    assert owner(changed, "train").name == make_run("quickstart", changes).name
    assert owner(seeded, "train").name == make_run("quickstart", changes, seed=3).name
    assert owner(seeded, "reduce").name == make_run("quickstart-pca192", changes, seed=3).name
    # A change behind what is shared leaves it with the recipe.
    assert owner(make_run("quickstart-pca192", {"sequence.epochs": "1"}), "train").name == "quickstart"
    assert owner(make_run("quickstart-pca192", {"sequence.epochs": "1"}), "reduce").name == "quickstart-pca192"


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(UserError, match="RECIPE=tiny-nope: no such variant of tiny; its variants are cnn, preds, pca1"):
        recipe("tiny-nope")


def test_every_recipe_says_its_purpose_command_and_folds():
    import importlib

    for name in recipe_names():
        module = importlib.import_module(f"pipeline.recipes.{name}")
        assert module.RECIPE.name == name
        assert "make submission" in module.__doc__
        assert set(module.FOLDS) <= set(range(fold_count(module.RECIPE.settings)))
