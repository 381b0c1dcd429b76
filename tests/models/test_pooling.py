"""Pooling against Flax and PyTorch's rules for borders, equal elements and NaN."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from purenoise_jax.models.pooling import average_pool, global_average, max_pool
from purenoise_jax.runtime.errors import ConfigError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "window", "padding"),
    [((2, 7, 8, 3), 3, 1), ((2, 7, 8, 3), 2, 0), ((1, 1, 2, 2), 3, 1)],
)
def test_maxima_and_their_gradients_are_those_of_flax(shape, window, padding):
    def ours(x):
        return max_pool(x, window, padding)

    def theirs(x):
        return nn.max_pool(x, (window, window), (2, 2), ((padding, padding),) * 2)

    @partial(jax.jit, static_argnums=0)
    def run(pool, x, ct):
        pooled, pull_back = jax.vjp(pool, x)
        return pooled, pull_back(ct)[0]

    # Small integers, so that most windows hold their maximum several times, and sums are exact.
    x = jnp.asarray(RNG.integers(-3, 3, shape), jnp.float32)
    ct = jnp.asarray(RNG.integers(-9, 9, jax.eval_shape(theirs, x).shape), jnp.float32)
    for found, wanted in zip(run(ours, x, ct), run(theirs, x, ct), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_gradient_of_overlapping_windows_needs_no_scatter():
    x = jnp.ones((1, 8, 8, 1))
    text = str(jax.make_jaxpr(jax.grad(lambda x: max_pool(x, 3, 1).sum()))(x))
    assert "scatter" not in text and "reduce_window" not in text


def test_of_equal_elements_the_first_in_the_order_of_reading_has_the_gradient():
    x = jnp.asarray([[0, 5], [5, 0]], jnp.float32)[None, :, :, None]
    slope = jax.jit(jax.grad(lambda x: max_pool(x, 2).sum()))(x)
    np.testing.assert_array_equal(slope[0, :, :, 0], [[0, 1], [0, 0]])


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_nan_in_a_window_is_its_maximum(place):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1).at[0, place // 2, place % 2, 0].set(jnp.nan)
    pooled = np.asarray(jax.jit(lambda x: max_pool(x, 2))(x))[0, :, :, 0]
    assert np.isnan(pooled[0, 0]) and np.isfinite(pooled).sum() == 3


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 9, 3)])
def test_means_are_those_of_flax(shape):
    x = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    np.testing.assert_allclose(average_pool(x), nn.avg_pool(x, (2, 2), (2, 2)), rtol=1e-5)


def test_means_of_bfloat16_are_rounded_once():
    x = jnp.asarray([256, 1, 1, 1], jnp.bfloat16).reshape(1, 2, 2, 1)
    assert average_pool(x) == 65 and average_pool(x).dtype == jnp.bfloat16
    assert global_average(x) == 64.75 and global_average(x).dtype == jnp.float32


def test_maps_that_are_too_small_are_refused_in_one_line():
    for pool in (average_pool, lambda x: max_pool(x, 2)):
        with pytest.raises(
            ConfigError, match=r"too small for this network.* 1x4 are left"
        ) as error:
            pool(jnp.ones((1, 1, 4, 1)))
        assert "\n" not in str(error.value)
