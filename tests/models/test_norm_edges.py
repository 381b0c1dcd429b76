"""Degenerate batches: only noise, one natural image, one image, and constant channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.models.norm import AuxBatchNorm, BatchNorm, DARBatchNorm
from purenoise_jax.runtime.sharding import Placement

ROWS = 8
X = np.random.default_rng(0).normal(3, 2, (ROWS, 4, 4, 5)).astype(np.float32)
SCALE, BIAS = np.float32([0.5, 1, 1.5, 2, 3]), np.float32([-1, 0, 1, 2, 3])
norms = pytest.mark.parametrize("norm", [BatchNorm, AuxBatchNorm, DARBatchNorm])
ways = pytest.mark.parametrize("devices", [0, 1, 2, 4, 8])


def call(norm, x, noise, devices):
    """Output, new statistics and gradients; all finite. 0 devices = not compiled."""
    module = norm()
    variables = module.init(jax.random.key(0), x)
    for name in variables["params"]:
        variables["params"][name] = jnp.asarray(SCALE if "scale" in name else BIAS)

    def loss(params, x, noise):
        values = {**variables, "params": params}
        y, new = module.apply(values, x, noise, mutable=["batch_stats"])
        return jnp.square(y).sum(), (y, new["batch_stats"])

    run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    if devices:
        place = Placement(len(x), devices).batch
        x, noise = jax.device_put(x, place), jax.device_put(noise, place)
        run = jax.jit(run)
    (_, (y, stats)), grads = run(variables["params"], x, noise)
    for leaf in jax.tree.leaves((y, stats, grads)):
        assert np.isfinite(leaf).all()
    return np.asarray(y), stats, grads


def by_hand(image):
    """Normalises one image by its own moments, in float64."""
    wide = image.astype(np.float64)
    mean, var = wide.mean((0, 1)), wide.var((0, 1))
    return (wide - mean) / np.sqrt(var + 1e-5) * SCALE + BIAS, mean, var * 16 / 15


@ways
@pytest.mark.parametrize("norm", [AuxBatchNorm, DARBatchNorm])
def test_a_batch_of_noise_does_not_change_the_natural_statistics(norm, devices):
    y, stats, _ = call(norm, X, np.ones(ROWS, bool), devices)
    np.testing.assert_array_equal(stats["mean"], np.zeros(5))
    np.testing.assert_array_equal(stats["var"], np.ones(5))
    # Zero mean and unit variance before the affine part, because noise has its own moments.
    np.testing.assert_allclose(y.mean((0, 1, 2)), BIAS, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), SCALE, rtol=1e-4)


@ways
@pytest.mark.parametrize("row", [0, 5])
@pytest.mark.parametrize("norm", [AuxBatchNorm, DARBatchNorm])
def test_one_natural_image_in_any_row(norm, row, devices):
    y, stats, _ = call(norm, X, np.arange(ROWS) != row, devices)
    expected, mean, var = by_hand(X[row])
    np.testing.assert_allclose(y[row], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-5)


@norms
@pytest.mark.parametrize("noisy", [False, True])
def test_a_batch_of_one(norm, noisy):
    y, stats, _ = call(norm, X[:1], np.array([noisy]), 1)
    expected, mean, _ = by_hand(X[0])
    np.testing.assert_allclose(y[0], expected, rtol=1e-5, atol=1e-5)
    alone = noisy and norm is not BatchNorm
    np.testing.assert_allclose(stats["mean"], 0 * mean if alone else 0.1 * mean, rtol=1e-5)


@norms
@pytest.mark.parametrize("value", [0.0, 5.0, 1e4])
def test_a_channel_that_does_not_vary(norm, value):
    x = X.copy()
    x[..., 2] = value
    y, stats, (_, to_x) = call(norm, x, np.arange(ROWS) % 3 == 0, 2)
    # The rounding error of the mean is multiplied by 1 / sqrt(epsilon) = 316.
    np.testing.assert_allclose(y[..., 2], BIAS[2], atol=1e-5)
    np.testing.assert_allclose(stats["var"][2], 0.9, rtol=1e-6)
    assert np.abs(to_x[..., 2]).max() < 1e-2


@norms
def test_images_that_are_all_the_same(norm):
    y, *_ = call(norm, np.repeat(X[:1], ROWS, axis=0), np.arange(ROWS) % 3 == 0, 2)
    np.testing.assert_allclose(y, np.repeat(by_hand(X[0])[0][None], ROWS, axis=0), atol=1e-4)
