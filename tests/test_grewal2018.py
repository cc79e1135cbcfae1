"""The recipe of Grewal et al. 2018: its figures are shares of whole scans, its variants are what they are named."""

import pytest

from pipeline.recipes.grewal2018 import FIGURES, READER_TABLE
from pipeline.runs import recipe, recipe_folds
from tests.settings import changed


def calls(scans: int, positive: int, found: int, called: int) -> tuple[float, float, float, float]:
    """Return accuracy, recall, precision and F1 of `found` positive scans among `called` ones."""
    right = found + scans - positive - (called - found)
    return right / scans, found / positive, found / called, 2 * found / (positive + called)


@pytest.mark.parametrize(
    ("row", "counts"),
    [("DenseNet", (37, 51)), ("DenseNet-A", (40, 51)), ("RADnet", (39, 48))],
)
def test_table_1_counts_whole_scans(row, counts):
    (table,) = FIGURES
    (found,) = (r for r in table.rows if r.text == row)
    assert tuple(found.figures) == table.figures == ("accuracy", "sensitivity", "ppv", "f1")
    # The paper rounds to 0.01 % (84.10 % and 77.90 % are 84.09 % and 77.89 %).
    assert tuple(found.figures.values()) == pytest.approx(calls(77, 44, *counts), abs=1.1e-4)


@pytest.mark.parametrize(
    ("reader", "counts"),
    [
        ("senior radiologist 1", (77, 44, 36, 42)),
        ("senior radiologist 2", (77, 44, 39, 45)),
        ("senior radiologist 3", (71, 38, 33, 40)),
        ("RADnet", (77, 44, 39, 48)),
    ],
)
def test_table_2_counts_whole_scans(reader, counts):
    (row,) = (r for r in READER_TABLE.rows if r.text == reader)
    assert [values[-1] for values in row.figures.values()] == pytest.approx(calls(*counts), abs=6e-5)
    assert all(set(values[:-1]) == {None} for values in row.figures.values())


def test_each_variant_leaves_out_what_the_column_of_table_1_lacks():
    for size in ("", "-small"):
        radnet, masked, plain = (recipe(f"grewal2018{size}{own}").settings for own in ("", "-densenet-a", "-densenet"))
        assert changed(radnet, masked) == {"dense.run_slices", "dense.hidden"}
        assert changed(masked, plain) == {"dense.mask_weight", "dense.blood_weight", "view.masks"}
        assert (plain.dense.mask_weight, plain.view.masks) == (0, False)
        assert (masked.dense.run_slices, masked.dense.hidden) == (1, 0)
    assert recipe_folds("grewal2018-densenet") == (0, 1, 2, 3, 4)
    assert recipe_folds("grewal2018-small-densenet") == (0, 1)
