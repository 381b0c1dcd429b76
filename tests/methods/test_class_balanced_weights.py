"""Class weights by the effective number of images, and the weighted mean of the losses."""

import numpy as np
import pytest

from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.class_balanced_weights import effective_weights
from tests.linear_step import COUNTS, STATS, cross_entropy_gradient, data, run


def test_published_weights_of_cifar10_lt():
    counts = long_tail_counts(5000, 10, imbalance_ratio=100)
    expected = [0.051, 0.077, 0.121, 0.195, 0.319, 0.525, 0.868, 1.443, 2.409, 3.993]
    np.testing.assert_allclose(effective_weights(counts, 0.9999), expected, atol=6e-4)


def test_limits():
    np.testing.assert_array_equal(effective_weights(COUNTS, 0.0), [1, 1, 1])
    inverse = 1 / COUNTS
    weights = effective_weights(COUNTS, 1 - 1e-9)
    np.testing.assert_allclose(weights, inverse / inverse.mean(), rtol=1e-5)


@pytest.mark.parametrize("padding", [0, 2])
def test_the_loss_is_divided_by_the_sum_of_weights(padding):
    images, labels, kernel = data(rows=7)
    recipe = build_recipe(["drw"], STATS, {"drw": {"beta": 0.9}})
    valid = np.arange(7) < 7 - padding
    _, sums, grads = run(recipe, images, labels, kernel, valid)
    features = images[valid].reshape(valid.sum(), -1) / 255
    weights = effective_weights(COUNTS, 0.9)[labels[valid]].astype(np.float64)
    expected = cross_entropy_gradient(features, labels[valid], kernel, weights)
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)
    logits = features @ kernel
    nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), labels[valid]]
    mean = (nll * weights).sum() / weights.sum()
    np.testing.assert_allclose(sums.row_loss / valid.sum(), mean, rtol=1e-5)


def test_a_batch_of_only_padding_has_a_zero_gradient():
    images, labels, kernel = data()
    recipe = build_recipe(["drw"], STATS, {})
    _, sums, grads = run(recipe, images, labels, kernel, np.zeros(6, bool))
    assert sums.row_loss == 0 and not grads.any()
