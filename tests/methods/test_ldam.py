"""Margins of LDAM, its loss against numpy, and its limit without margins."""

import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.ldam import margins
from purenoise_jax.methods.recipe import cross_entropy
from tests.linear_step import COUNTS, STATS


def test_published_margins_of_cifar10_lt():
    found = margins(long_tail_counts(5000, 10, imbalance_ratio=100), 0.5)
    np.testing.assert_allclose(found[[0, -1]], [0.158, 0.5], atol=5e-4)
    assert (np.diff(found) > 0).all()


def test_the_loss_against_numpy():
    rng = np.random.default_rng(0)
    cosines, label = rng.uniform(-1, 1, (5, 3)), np.array([0, 1, 2, 2, 0])
    recipe = build_recipe(["ldam"], STATS, {"ldam": {"max_margin": 0.4, "scale": 8.0}})
    target = np.eye(3)[label]
    delta = COUNTS**-0.25 * 0.4 / (COUNTS**-0.25).max()
    z = 8 * (cosines - delta[label][:, None] * target)
    expected = np.log(np.exp(z).sum(axis=1)) - z[np.arange(5), label]
    found = recipe.loss(jnp.asarray(cosines, jnp.float32), jnp.asarray(target, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(recipe.postprocess(jnp.asarray(cosines)), 8 * cosines, rtol=1e-6)


def test_without_margins_it_is_scaled_cross_entropy():
    cosines = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (4, 3)), jnp.float32)
    target = jnp.eye(3)[jnp.array([0, 2, 1, 1])]
    recipe = build_recipe(["ldam"], STATS, {"ldam": {"max_margin": 0.0, "scale": 3.0}})
    np.testing.assert_array_equal(recipe.loss(cosines, target), cross_entropy(3 * cosines, target))
