"""patel2019 as its paper has it: parameters of every variant by hand, the figures, settings that fit together."""

import pytest

from pipeline.config import last_stage
from pipeline.nets.build import build_end_to_end, build_summed_bilstm, build_vgg, parameter_count
from pipeline.nets.vgg import map_side
from pipeline.recipes import patel2019
from pipeline.runs import recipe, recipe_folds, variant_names

# By hand in tests/test_vgg.py and tests/test_summed_bilstm.py.
SLICES, ONE_LAYER, TWO_LAYERS = 2_884_465, 4_198_400 + 513, 2 * 4_198_400 + 513
SMALL_SLICES = (
    (9 * 1 * 8 + 8) + (9 * 8 * 8 + 8)  # 80 + 584
    + (9 * 8 * 16 + 16) + (9 * 16 * 16 + 16)  # 1,168 + 2,320
    + (9 * 16 * 32 + 32) + (9 * 32 * 32 + 32)  # 4,640 + 9,248
    + (9 * 32 * 64 + 64)  # 18,496
    + 2 * (64 * 64 + 64)  # the last map has one pixel of 64 filters
    + (64 + 1)
)  # fmt: skip
# Directions x gates x states x (inputs + states + bias), for 64 and then 32 inputs; the last layer: 32 + 1.
SMALL_ONE_LAYER = 2 * 4 * 32 * (64 + 32 + 1) + 33
SMALL_LSTM = SMALL_ONE_LAYER + 2 * 4 * 32 * (32 + 32 + 1)
PARAMETERS = {
    "patel2019": (SLICES, TWO_LAYERS),
    "patel2019-one-layer": (SLICES, ONE_LAYER),
    "patel2019-frozen": (SLICES, TWO_LAYERS),
    "patel2019-frozen-one-layer": (SLICES, ONE_LAYER),
    "patel2019-from-scratch": (SLICES, TWO_LAYERS),
    "patel2019-small": (SMALL_SLICES, SMALL_LSTM),
    "patel2019-small-one-layer": (SMALL_SLICES, SMALL_ONE_LAYER),
    "patel2019-small-from-scratch": (SMALL_SLICES, SMALL_LSTM),
}


def test_no_variant_escapes_the_list():
    assert set(PARAMETERS) == {"patel2019", *(f"patel2019-{name}" for name in variant_names("patel2019"))}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    settings = recipe(name).settings
    cnn, sequence = PARAMETERS[name]
    assert parameter_count(build_vgg(settings)) == cnn
    assert parameter_count(build_summed_bilstm(settings, settings.volume.features)) == sequence
    if settings.endtoend.epochs:
        # Without the logit of the slice network, which step 1 alone has: a weight a feature, and a bias.
        own_logit = settings.volume.features + 1
        assert parameter_count(build_end_to_end(settings)) == cnn - own_logit + sequence


def test_images_behind_the_filter_end_at_one_pixel():
    for name in ("patel2019", "patel2019-small"):
        settings = recipe(name).settings
        assert map_side(settings.view.size // 2, settings.volume.units) == 1
        assert settings.volume.maximum_filter == (1, 2, 2)
        assert last_stage(settings) != "cnn"


def test_variants_share_what_they_share_with_the_paper():
    paper = recipe("patel2019").settings
    for name in ("frozen", "one-layer", "from-scratch"):
        settings = recipe(f"patel2019-{name}").settings
        assert (settings.view, settings.train, settings.volume) == (paper.view, paper.train, paper.volume)
    assert recipe("patel2019-frozen-one-layer").settings.sequence.layers == 1
    assert (recipe_folds("patel2019"), recipe_folds("patel2019-small")) == ((0,), (0, 1))
    # Up to 25 degrees and 15 of 256 pixels.
    assert paper.train.shift * paper.view.size / paper.volume.maximum_filter[1] == 15


def test_the_papers_figures():
    (table,) = patel2019.FIGURES
    *published, (name, from_scratch) = [(row.text, row) for row in table.rows]
    assert (name, from_scratch.figures) == ("the same without pre-training", {})
    areas = {(row.variant, row.stage): row.figures["roc_auc"] for _, row in published}
    assert areas[("", "endtoend")] == 0.96
    assert areas[("one-layer", "endtoend")] == 0.94
    assert areas[("", "sequence")] == areas[("one-layer", "sequence")] == 0.87
    assert {row.variant for row in table.rows} <= {"", *variant_names("patel2019")}
    assert {figure for row in table.rows for figure in row.figures} == set(table.figures)
    # 177 of 386 scans are positive: what the paper calls accuracy follows from the other two.
    last = published[-1][1]
    assert (last.against, last.sensitivity) == ("sequence", last.figures["sensitivity"])
    assert all(
        row.figures["roc_auc_low"] < row.figures["roc_auc"] < row.figures["roc_auc_high"] for _, row in published
    )
    own = last.figures
    assert round((177 * own["sensitivity"] + 209 * own["specificity"]) / 386, table.decimals) == own["accuracy"]
