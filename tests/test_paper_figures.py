"""Figures of papers' tables, by hand and beside scikit-learn; tables of recipes name what there is."""

import math
import re

import numpy as np
import pytest
from sklearn import metrics

from pipeline.config import LABELS
from pipeline.core.paper_figures import case_figures, label_figures
from pipeline.published import FigureRow, FigureTable
from pipeline.runs import (
    figure_recipes,
    figure_tables,
    headlines,
    published_tables,
    recipe,
    recipe_names,
    system_recipes,
    variant_names,
)
from pipeline.tables import figures_text

TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 0])
SCORES = np.array([0.9, 0.5, 0.2, 0.6, 0.4, 0.3, 0.2, 0.1])


def test_figures_of_eight_cases_by_hand():
    found = case_figures(TRUTH, SCORES)
    # Called: 0.9, 0.5 (rightly) and 0.6 (wrongly); 0.2 is missed.
    assert found["accuracy"] == 6 / 8
    assert found["sensitivity"] == found["recall"] == pytest.approx(2 / 3)
    assert found["specificity"] == 4 / 5
    assert found["ppv"] == found["precision"] == pytest.approx(2 / 3)
    assert found["npv"] == 4 / 5
    assert found["f1"] == pytest.approx(2 / 3)
    # Pairs: 0.9 beats all five, 0.5 four, 0.2 one and ties with one.
    assert found["roc_auc"] == pytest.approx((5 + 4 + 1.5) / 15)
    assert found["pr_auc"] == pytest.approx(metrics.average_precision_score(TRUTH, SCORES))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(TRUTH, SCORES))


def test_a_certain_mistake_costs_what_the_challenge_lets_it_cost():
    assert case_figures(np.array([1, 0]), np.array([0.0, 0.0]))["log_loss"] == pytest.approx(-math.log(1e-15) / 2)


def test_one_class_has_no_areas_and_no_cases_no_figures():
    found = case_figures(np.zeros(3), np.array([0.1, 0.2, 0.9]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert all(math.isnan(found[name]) for name in ("roc_auc", "pr_auc", "sensitivity"))


def test_no_label_is_the_plain_mean_of_all_and_needs_all():
    rng = np.random.default_rng(1)
    truth, scores = (rng.random((50, 6)) < 0.5).astype(int), rng.random((50, 6))
    each = [label_figures(truth, scores, label) for label in LABELS]
    assert label_figures(truth, scores, "")["log_loss"] == pytest.approx(np.mean([own["log_loss"] for own in each]))
    silent = np.where(np.arange(6) == 5, scores, np.nan)
    assert label_figures(truth, silent, "any") == each[5]
    assert label_figures(truth, silent, "") == label_figures(truth, silent, "subdural") == {}
    with pytest.raises(ValueError, match="subset 'blood': choose one of epidural"):
        label_figures(truth, scores, "blood")


def test_a_table_has_ours_behind_each_published_figure_and_nothing_where_there_is_none():
    rows = (FigureRow("one", {"accuracy": 0.9, "f1": 0.8}), FigureRow("two", {"accuracy": 0.7}, variant="x"))
    table = FigureTable("Table 9 of Nobody 1900", "nothing", "scan", ("accuracy", "f1"), rows, 2)
    text = figures_text(table, [{"accuracy": 0.123, "f1": float("nan")}, {}])
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["Table", "9", "accuracy", "ours", "f1", "ours"]
    assert lines[2:] == [["one", "0.90", "0.12", "0.80"], ["two", "0.70"]]


@pytest.mark.parametrize("name", recipe_names())
def test_tables_of_figures_name_variants_that_are_there(name):
    known = ("", *variant_names(name))
    for table in figure_tables(name):
        assert table.unit in ("slice", "scan", "lesion")
        for row in table.rows:
            assert row.variant in known or name == "tiny", f"{table.title}, {row.text}"
            assert set(row.figures) <= set(table.figures)


PUBLISHED = {
    # Table 2, each row; the challenge's private test part; what an image costs.
    "burduja2020": "0.07212 0.06259 0.05540 0.05212 0.05365 0.05136 0.05035 0.05207 0.05198 0.05096 0.05022 0.04989 "
    "36 128 7",
    "grewal2018": "0.7273 0.8410 0.7255 0.7790 0.8052 0.9091 0.7843 0.8421 0.8182 0.8864 0.8125 0.8478 40",
    "murphy2021": "0.948 0.090 0.842 0.975 0.067 0.917 0.949 0.977 0.075 0.066 0.159",
    "patel2019": "0.60 0.65 0.90 0.87 0.94 0.96 0.93 0.97 0.98 0.78 0.5",
    "chang2018": "0.983 0.981 0.931 0.863 0.772 0.999 0.987 0.953 0.954 20.2 -2.1 0.121",
}
"""What the five papers are quoted for."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_figure_that_a_paper_is_quoted_for_has_a_place_in_a_printed_table(name):
    found = {row.figure for table in published_tables(name) for row in table.rows}
    found |= {figure for table in figure_tables(name) for row in table.rows for figure in row.figures.values()}
    texts = " ".join(f"{headline.figure} {headline.of}" for headline in headlines(name))
    found |= {float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", texts)}
    assert {float(text) for text in PUBLISHED[name].split()} <= found


def test_a_small_variants_rows_are_its_own():
    assert figure_recipes("murphy2021") == {"resnet18": "murphy2021-resnet18", "": "murphy2021"}
    small = {"resnet18": "murphy2021-small-resnet18", "": "murphy2021-small"}
    assert figure_recipes("murphy2021-small") == small


def test_systems_that_two_cores_manage_are_trained_on_the_same_folds():
    assert system_recipes()[0] == "quickstart"
    assert {recipe(name).settings.split.kind for name in system_recipes()} == {"folds"}
