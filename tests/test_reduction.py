"""Reducing embeddings: agreement with scikit-learn, streaming, equal quotas, and matched errors."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from pipeline.config import UserError
from pipeline.core.reduction import Moments, Reducer, choose_by_spread, choose_by_weights, fit_pca

RNG = np.random.default_rng(5)
VECTORS = (RNG.normal(size=(301, 17)) * np.linspace(0.2, 3, 17) + np.linspace(-40, 90, 17)).astype(np.float16)
NO_PROBABILITIES = np.zeros((301, 6))


def moments_of(vectors, pieces):
    moments = Moments()
    for piece in np.array_split(vectors, pieces):
        moments.update(piece)
    return moments


def test_streamed_moments_are_numpys_mean_and_covariance():
    moments = moments_of(VECTORS, 7)
    np.testing.assert_allclose(moments.mean(), VECTORS.astype(float).mean(axis=0), atol=1e-7)
    expected = np.cov(VECTORS.astype(float).T)
    spread = np.sqrt(np.diag(expected))
    # Sums of a batch are float32. About zero, not about the mean, the features at 90 would lose four digits.
    np.testing.assert_allclose(moments.covariance() / np.outer(spread, spread), np.corrcoef(VECTORS.T), atol=1e-6)


def test_pca_is_scikit_learns_up_to_sign():
    reducer = fit_pca(moments_of(VECTORS, 4), 5)
    theirs = PCA(5, svd_solver="full").fit(VECTORS.astype(float))
    signs = np.sign((reducer.components * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(reducer.components, theirs.components_ * signs[:, None], atol=5e-6)
    np.testing.assert_allclose(
        reducer.apply(VECTORS, NO_PROBABILITIES), theirs.transform(VECTORS.astype(float)) * signs, atol=2e-3
    )
    assert reducer.explained == pytest.approx(theirs.explained_variance_ratio_.sum(), rel=1e-6)


def test_pca_does_not_depend_on_how_the_rows_arrive_and_fixes_its_signs():
    one, many = fit_pca(moments_of(VECTORS, 1), 3), fit_pca(moments_of(VECTORS[::-1], 50), 3)
    np.testing.assert_allclose(one.components, many.components, atol=5e-6)
    largest = np.abs(one.components).argmax(axis=1)
    assert (one.components[np.arange(3), largest] > 0).all()


def test_each_label_takes_its_share_and_a_wanted_feature_counts_once():
    weights = np.array([[9.0, 8, 7, 0, 0, 0, 1], [-9.0, 0, 0, 6, 5, 0, 2]])
    # Label 0 takes 0; label 1 would too, takes 3; label 0 takes 1; label 1 takes 4.
    assert choose_by_weights(weights, 4, largest=True).tolist() == [0, 1, 3, 4]


def test_smallest_weights_are_the_other_end_and_signs_do_not_matter():
    weights = np.array([[-0.1, 5.0, -4.0, 0.2], [3.0, -0.3, 0.0, -7.0]])
    assert choose_by_weights(weights, 2, largest=False).tolist() == [0, 2]
    assert choose_by_weights(-weights, 2, largest=False).tolist() == [0, 2]
    assert choose_by_weights(weights, 2, largest=True).tolist() == [1, 3]


@pytest.mark.parametrize("count", [120, 192, 7])
def test_quotas_differ_by_at_most_one_and_all_features_are_different(count):
    chosen = choose_by_weights(RNG.normal(size=(6, 2048)), count, largest=True)
    assert len(set(chosen.tolist())) == count
    assert (np.diff(chosen) > 0).all()


def test_features_of_largest_spread():
    assert choose_by_spread(moments_of(VECTORS, 3), 4).tolist() == [13, 14, 15, 16]


def test_chosen_features_are_passed_on_unchanged_and_predictions_replace_them():
    reducer = Reducer("largest_std", 2, indices=np.array([1, 3]))
    np.testing.assert_array_equal(reducer.apply(VECTORS, NO_PROBABILITIES), VECTORS[:, [1, 3]].astype(np.float32))
    probabilities = RNG.random((301, 6))
    only = Reducer("predictions_only", 6).apply(VECTORS, probabilities)
    np.testing.assert_array_equal(only, probabilities.astype(np.float32))


def test_more_components_than_the_data_have_is_refused():
    with pytest.raises(UserError, match="reduce.count=17: 10 vectors of 17 features have at most 9 components"):
        fit_pca(moments_of(VECTORS[:10], 1), 17)
    with pytest.raises(UserError, match="reduce.count=18: choose 1 to 17"):
        choose_by_spread(moments_of(VECTORS, 1), 18)
    with pytest.raises(UserError, match="reduce.count=0: choose 1 to 17"):
        choose_by_weights(np.zeros((6, 17)), 0, largest=True)
