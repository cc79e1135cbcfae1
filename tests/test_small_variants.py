"""The variants that `make systems` trains: the published systems at another size, and nothing else."""

import pytest

from pipeline.runs import recipe, recipe_folds, system_recipes
from tests.settings import changed

SIZES = {
    "grewal2018": {"view.pixel_mm", "view.size", "dense.growth", "dense.stem_filters", "dense.hidden"},
    "murphy2021": {"view.size", "train.encoder", "train.growth", "train.weights", "split.kind"},
    "patel2019": {
        "view.name", "view.size", "volume.filters", "volume.units", "volume.features", "sequence.hidden", "split.kind",
    },
    "chang2018": {
        "view.size", "boxes.filters", "boxes.blocks", "boxes.channels", "boxes.stride_px", "boxes.anchors_px",
        "boxes.box_head", "boxes.mask_head", "boxes.anchors_sampled", "boxes.rois", "boxes.training_proposals",
        "boxes.proposals", "train.hu_range",
    },
}  # fmt: skip
"""What makes each smaller; where the paper holds patients out, `make systems` wants the folds of the others. The one
change that is none of size is the range of HU that chang2018 sees; its recipe says why."""

LENGTHS = {"train.epochs", "train.learning_rates", "train.plateau_epochs", "sequence.epochs", "endtoend.epochs"}
"""How long it is trained, and by which rates, which would be too low for so few steps."""

TIMES = {"grewal2018": 30, "murphy2021": 20, "patel2019": 10, "chang2018": 5}
"""How many times the paper's rates its small variant has."""


def test_each_published_system_has_a_small_variant():
    assert system_recipes() == ["quickstart", *sorted(f"{name}-small" for name in SIZES)]
    assert all(recipe_folds(name) == (0, 1) for name in system_recipes())


@pytest.mark.parametrize("name", SIZES)
def test_a_small_variant_changes_sizes_epochs_and_rates_alone(name):
    small, full = recipe(f"{name}-small").settings, recipe(name).settings
    assert SIZES[name] <= changed(small, full) <= SIZES[name] | LENGTHS


def test_small_images_show_the_same_field_of_view():
    small, full = recipe("grewal2018-small").settings.view, recipe("grewal2018").settings.view
    assert small.pixel_mm * small.size == full.pixel_mm * full.size == 250


def test_anchors_shrink_with_the_image():
    small, full = recipe("chang2018-small").settings, recipe("chang2018").settings
    assert len(small.boxes.anchors_px) == len(full.boxes.anchors_px)
    shares = [[size / own.view.size for size in own.boxes.anchors_px] for own in (small, full)]
    assert shares[0] == [2 * share for share in shares[1]]


def rates(name: str, epochs: int) -> list[float]:
    """Return the rate of each of a recipe's first epochs."""
    own = recipe(name).settings.train.learning_rates
    return [own[min(epoch, len(own) - 1)] for epoch in range(epochs)]


@pytest.mark.parametrize("name", ["murphy2021", "patel2019"])
def test_rates_are_the_papers_times_a_number(name):
    epochs = recipe(f"{name}-small").settings.train.epochs
    found, published = rates(f"{name}-small", epochs), rates(name, epochs)
    assert found == pytest.approx([TIMES[name] * rate for rate in published])


def test_rates_of_chang_begin_at_the_papers_times_a_number_and_fall():
    found = rates("chang2018-small", recipe("chang2018-small").settings.train.epochs)
    assert found[0] == pytest.approx(TIMES["chang2018"] * rates("chang2018", 1)[0])
    assert found == sorted(found, reverse=True)


def test_rates_of_grewal_fall_to_a_tenth_after_each_third():
    for name, first in (("grewal2018", 1e-3), ("grewal2018-small", TIMES["grewal2018"] * 1e-3)):
        third = recipe(name).settings.train.epochs // 3
        expected = [first] * third + [first / 10] * third + [first / 100] * third
        assert recipe(name).settings.train.learning_rates == pytest.approx(expected)
