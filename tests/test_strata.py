"""Sizes at their boundaries, types, and balanced sets."""

import numpy as np
import pytest

from pipeline.core.strata import Subset, balanced_rows, size_strata, subset_of, subset_rows, type_strata


@pytest.mark.parametrize(
    ("volume_ml", "name"),
    [
        (1e-9, "punctate"), (0.00999, "punctate"), (0.01, "small"), (4.999, "small"), (5, "medium"), (25, "medium"),
        (25.001, "large"), (300, "large"), (0, None), (np.nan, None),
    ],
)  # fmt: skip
def test_a_volume_is_in_one_stratum_at_most(volume_ml, name):
    found = size_strata([volume_ml])
    assert list(found) == ["punctate", "small", "medium", "large"]
    assert [key for key, held in found.items() if held[0]] == ([name] if name else [])


def test_types_are_changs_three_in_our_labels():
    found = type_strata(np.eye(6))  # one label each: EDH, IPH, IVH, SAH, SDH, any
    assert found["IPH"].tolist() == [False, True, False, False, False, False]
    assert found["EDH/SDH"].tolist() == [True, False, False, False, True, False]
    assert found["SAH"].tolist() == [False, False, False, True, False, False]
    assert all(held[0] for held in type_strata(np.ones((1, 6))).values())
    assert [len(held) for held in type_strata(np.zeros((0, 6))).values()] == [0, 0, 0]


@pytest.mark.parametrize(("positives", "negatives"), [(3, 20), (20, 3), (4, 4), (0, 5), (5, 0), (1, 1)])
def test_a_balanced_set_has_as_many_of_each_and_takes_the_rarer_whole(positives, negatives):
    truth = np.random.default_rng(0).permutation(np.r_[np.ones(positives), np.zeros(negatives)]).astype(bool)
    rows = balanced_rows(truth, ~truth, seed=1)
    assert truth[rows].sum() == (~truth[rows]).sum() == min(positives, negatives)
    assert len(set(rows)) == len(rows)
    assert rows.tolist() == sorted(rows)
    assert balanced_rows(truth, ~truth, seed=1).tolist() == rows.tolist()


def test_another_seed_draws_other_negatives_each_as_often():
    truth = np.r_[np.ones(2), np.zeros(8)].astype(bool)
    drawn = np.concatenate([balanced_rows(truth, ~truth, seed) for seed in range(800)])
    counts = np.bincount(drawn, minlength=10)
    assert counts[:2].tolist() == [800, 800]
    assert counts[2:] == pytest.approx(np.full(8, 200), abs=50)


def test_scans_of_neither_side_are_never_drawn_and_of_both_refused():
    rows = balanced_rows(np.array([True, False, False]), np.array([False, False, True]), seed=0)
    assert rows.tolist() == [0, 2]
    with pytest.raises(ValueError, match="row 1 is both positive and negative"):
        balanced_rows(np.array([True, True]), np.array([False, True]), seed=0)


@pytest.mark.parametrize(
    ("text", "subset"),
    [
        ("", Subset(False, "", "")),
        ("balanced", Subset(True, "", "")),
        ("SAH", Subset(False, "", "SAH")),
        ("large EDH/SDH", Subset(False, "large", "EDH/SDH")),
        ("balanced punctate IPH", Subset(True, "punctate", "IPH")),
    ],
)
def test_a_subset_is_named_by_its_words(text, subset):
    assert subset_of(text) == subset


@pytest.mark.parametrize("text", ["huge", "IPH balanced", "large large", "IPH SAH", "balanced  any"])
def test_a_subset_that_is_none_is_named(text):
    with pytest.raises(ValueError, match=r"expected \[balanced\] \[punctate\|small"):
        subset_of(text)


LABELLED = np.array(
    [
        # EDH IPH IVH SAH SDH any
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 1],  # 30 mL of IPH
        [0, 1, 0, 1, 0, 1],  # 2 mL of IPH, 28 of SAH: large, but not as IPH
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1],  # of none of the three types
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 1],  # nobody drew it: of no known size
    ]
)
VOLUMES = {
    "": np.array([0, 30, 30, 0, 1, 0, np.nan]),
    "IPH": np.array([0, 30, 2, 0, 1, 0, np.nan]),
    "SAH": np.array([0, 0, 28, 0, 0, 0, np.nan]),
    "EDH/SDH": np.zeros(7),
}


@pytest.mark.parametrize(
    ("text", "positive"),
    [
        ("", [1, 2, 4, 6]), ("IPH", [1, 2, 6]), ("large", [1, 2]), ("large IPH", [1]), ("small IPH", [2]),
        ("large SAH", [2]), ("small", [4]), ("EDH/SDH", []), ("medium", []),
    ],
)  # fmt: skip
def test_a_subsets_scans_are_set_against_those_without_any(text, positive):
    assert subset_rows(subset_of(text), LABELLED, VOLUMES, 0).tolist() == sorted([0, 3, 5, *positive])


def test_a_balanced_subset_draws_as_many_without():
    for seed in range(5):
        rows = subset_rows(subset_of("balanced large"), LABELLED, VOLUMES, seed)
        assert set(rows) >= {1, 2}
        assert len(set(rows) & {0, 3, 5}) == 2
        assert len(rows) == 4
    assert subset_rows(subset_of("balanced medium"), LABELLED, VOLUMES, 0).tolist() == []
