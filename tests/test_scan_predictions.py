"""Scores of whole scans: put together over folds, judged beside scans' labels, and beside systems of slices."""

import numpy as np
import pandas as pd
import pytest

from pipeline.config import BASE, LABELS, P_LABELS
from pipeline.core.evaluation import evaluate, evaluate_scans, scan_figures
from pipeline.core.metrics import scan_roc_auc
from pipeline.core.scan_predictions import out_of_fold_scans, scan_table, scans_of_test
from pipeline.schema import SCAN_PREDICTIONS, ContractError
from pipeline.shell.tables import to_arrow

SPLIT = {"s": "train", "t": "train", "u": "test", "v": "test"}
RNG = np.random.default_rng(3)


def table(fold: int, **scores: float) -> pd.DataFrame:
    names = np.array(list(scores), dtype=object)
    return scan_table({"cnn/consecutive-3": (names, np.array(list(scores.values())))}, SPLIT, fold)


def test_each_training_scan_is_scored_by_its_own_fold_and_a_test_scan_by_the_mean():
    folds = {0: table(0, s=0.2, u=0.5, v=0.1), 1: table(1, t=0.9, v=0.3, u=0.7)}
    ((scans, scores),) = out_of_fold_scans(folds).values()
    assert dict(zip(scans, scores, strict=True)) == {"s": 0.2, "t": 0.9}
    ((scans, scores),) = scans_of_test(list(folds.values())).values()
    assert dict(zip(scans, scores.round(12), strict=True)) == {"u": 0.6, "v": 0.2}
    with pytest.raises(ValueError, match="1 scans are out of fold twice, such as s"):
        out_of_fold_scans({0: table(0, s=0.2), 1: table(1, s=0.3)})


def test_a_scan_speaks_of_any_and_may_be_silent_about_types():
    SCAN_PREDICTIONS.check(to_arrow(SCAN_PREDICTIONS, table(0, s=0.2)).cast(SCAN_PREDICTIONS.schema()))
    with pytest.raises(ContractError, match="p_any: 1 nulls where none may be"):
        SCAN_PREDICTIONS.check(to_arrow(SCAN_PREDICTIONS, table(0, s=np.nan)))


def test_scans_are_looked_up_by_name_whatever_their_order():
    truth = np.array(["a", "b", "c", "d"], dtype=object), np.array([1.0, 0, 1, 0])
    scores = {"rule": (np.array(["d", "c", "b", "a"], dtype=object), np.array([0.1, 0.9, 0.8, 0.7]))}
    # Of the pairs (a, b), (a, d), (c, b), (c, d) only the first is in the wrong order.
    scans, area = evaluate_scans(truth, scores, 0.95)["rule"]
    assert (scans, area.estimate) == (4, 0.75)
    assert area.low < 0.75 < area.high
    figures = scan_figures(scans, area)
    assert (figures["scans"], figures["scan_roc_auc_any"]) == (4, 0.75)
    assert {value for name, value in figures.items() if name not in ("scans", "scan_roc_auc_any")} == {None}
    with pytest.raises(ValueError, match="rule speaks of 1 scans without labels, such as z"):
        evaluate_scans(truth, {"rule": (np.array(["a", "z"], dtype=object), np.array([0.1, 0.9]))}, 0.95)


def test_a_predictor_that_speaks_of_any_alone_has_its_figures_and_no_weighted_loss():
    slices = 40
    truth = (RNG.random((slices, 6)) < 0.1).astype(float)
    whole = RNG.random((slices, 6))
    partial = np.where(np.arange(6) == 5, whole, np.nan)
    patients, scans = np.arange(slices) // 4, np.array([f"s{i // 5}" for i in range(slices)], dtype=object)
    figures, paired = evaluate(truth, {"partial": partial, "whole": whole}, [], patients, scans, BASE.predict)
    assert paired == []
    assert [figures["partial"][name] for name in ("weighted_log_loss", "weighted_log_loss_low")] == [None, None]
    for figure in ("log_loss", "roc_auc", "pr_auc"):
        assert figures["partial"][f"{figure}_any"] == figures["whole"][f"{figure}_any"]
        assert {figures["partial"][f"{figure}_{label}"] for label in LABELS[:-1]} == {None}
    assert figures["partial"]["scan_roc_auc_any"] == pytest.approx(scan_roc_auc(scans, truth[:, 5], whole[:, 5]))
    # Alone, the other one comes to the same: its resamples are its own.
    alone, _ = evaluate(truth, {"whole": whole}, [], patients, scans, BASE.predict)
    assert figures["whole"] == alone["whole"]
    partial[3, 2] = 0.5
    with pytest.raises(ValueError, match=f"partial: 39 of 40 slices lack {P_LABELS[2]}"):
        evaluate(truth, {"partial": partial}, [], patients, scans, BASE.predict)
    with pytest.raises(ValueError, match="partial: no p_any"):
        evaluate(truth, {"partial": whole * np.nan}, [], patients, scans, BASE.predict)
