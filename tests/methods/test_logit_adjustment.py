"""Logit adjustment, vector scaling and CDT: against numpy, each other, and published temperatures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.recipe import Recipe, cross_entropy
from purenoise_jax.methods.vector_scaling import temperatures
from tests.linear_step import COUNTS, STATS

LOGITS = jnp.asarray(np.random.default_rng(0).normal(0, 3, (6, 3)), jnp.float32)
LABEL = np.array([0, 1, 2, 2, 0, 1])
TARGET = jnp.eye(3)[LABEL]
FREQUENCY = COUNTS / COUNTS.sum()


def loss_of(name, **arguments):
    recipe = build_recipe([name], STATS, {name: arguments})
    return recipe.loss(LOGITS, TARGET)


def by_hand(z):
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(6), LABEL]


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_the_adjusted_loss_against_numpy(tau):
    expected = by_hand(np.asarray(LOGITS, float) + tau * np.log(FREQUENCY))
    np.testing.assert_allclose(loss_of("logit_adjustment", tau=tau), expected, rtol=1e-5)


def test_balanced_softmax_counts_images_and_that_is_the_same():
    expected = by_hand(np.asarray(LOGITS, float) + np.log(COUNTS))
    np.testing.assert_allclose(loss_of("balanced_softmax"), expected, rtol=1e-5)


@pytest.mark.parametrize(("gamma", "tau"), [(0.05, 1.0), (0.3, 0.75)])
def test_vector_scaling_against_numpy(gamma, tau):
    divisor = (COUNTS.max() / COUNTS) ** gamma
    expected = by_hand(np.asarray(LOGITS, float) / divisor + tau * np.log(FREQUENCY))
    np.testing.assert_allclose(loss_of("vs", gamma=gamma, tau=tau), expected, rtol=1e-5)


def test_limits_of_vector_scaling():
    plain = cross_entropy(LOGITS, TARGET)
    np.testing.assert_array_equal(loss_of("vs", gamma=0.0, tau=0.0), plain)
    np.testing.assert_array_equal(loss_of("logit_adjustment", tau=0.0), plain)
    np.testing.assert_array_equal(
        loss_of("vs", gamma=0.0, tau=0.7), loss_of("logit_adjustment", tau=0.7)
    )
    np.testing.assert_array_equal(loss_of("vs", gamma=0.2, tau=0.0), loss_of("cdt", gamma=0.2))


def test_published_temperatures_of_cifar10_lt():
    found = temperatures(long_tail_counts(5000, 10, imbalance_ratio=100), 0.2)
    np.testing.assert_allclose(found[[0, -1]], [1.0, 2.51], atol=5e-3)
    assert (np.diff(found) > 0).all()


def test_adjustment_after_training_makes_the_classifier_that_of_equal_frequencies():
    """A classifier that predicts the frequencies of the classes predicts all alike after it."""
    recipe = build_recipe(["erm"], STATS, {"erm": {"tau": 1.0}})
    adjusted = recipe.postprocess(jnp.log(jnp.asarray(FREQUENCY, jnp.float32))[None])
    np.testing.assert_allclose(adjusted - adjusted[0, 0], 0, atol=1e-6)
    assert recipe.loss is cross_entropy
    half = build_recipe(["erm"], STATS, {"erm": {"tau": 0.5}})
    np.testing.assert_allclose(
        half.postprocess(LOGITS), np.asarray(LOGITS) - 0.5 * np.log(FREQUENCY), rtol=1e-5
    )
    assert build_recipe(["erm"], STATS, {}) == Recipe()


@pytest.mark.parametrize("name", ["logit_adjustment", "balanced_softmax", "vs", "erm"])
def test_known_shares_of_the_test_set_enter_as_bayes_has_it(name):
    """With the training set's own shares, PC-softmax gives back the network's logits."""
    arguments = {"erm": {"tau": 1.0}} if name == "erm" else {}
    recipe = build_recipe([name], STATS, arguments)
    shares = np.array([0.2, 0.5, 0.3])
    uniform = np.asarray(recipe.postprocess(LOGITS), float)
    by_hand = np.exp(uniform) * shares
    found = jax.nn.softmax(recipe.postprocess(LOGITS, jnp.log(jnp.asarray(shares, jnp.float32))))
    np.testing.assert_allclose(found, by_hand / by_hand.sum(1, keepdims=True), rtol=1e-5)
    if name == "erm":
        known = recipe.postprocess(LOGITS, jnp.log(jnp.asarray(FREQUENCY, jnp.float32)))
        np.testing.assert_allclose(known, LOGITS, rtol=1e-5, atol=1e-6)
