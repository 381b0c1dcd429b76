"""Replacement by pure noise."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax import replace_probs, replace_with_noise
from purenoise_jax.errors import ConfigError, DataError

CIFAR10_LT = np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
MEAN, STD = np.array([0.2, 0.5, 0.7], np.float32), np.array([0.05, 0.1, 0.2], np.float32)


def test_probabilities_are_equation_1():
    # The published implementation's values, to four digits.
    expected = [0, 0.1335, 0.2136, 0.2615, 0.2903, 0.3075, 0.3179, 0.3241, 0.3278, 0.3300]
    probs = replace_probs(CIFAR10_LT, 1 / 3)
    chex.assert_shape(probs, (10,))
    assert probs.dtype == jnp.float32
    np.testing.assert_allclose(probs, expected, atol=5e-5)
    np.testing.assert_allclose(np.mean(probs), 0.2506, atol=5e-5)


@pytest.mark.parametrize(
    ("first", "last", "classes", "mean"),
    [(5000, 100, 10, 0.2400), (500, 5, 100, 0.2610), (500, 10, 100, 0.2493)],
)
def test_expected_share_of_noise_in_a_balanced_batch(first, last, classes, mean):
    counts = [int(first * (last / first) ** (i / (classes - 1))) for i in range(classes)]
    np.testing.assert_allclose(np.mean(replace_probs(counts, 1 / 3)), mean, atol=1e-4)


def test_the_largest_class_keeps_its_images_wherever_it_stands():
    # CelebA-5's largest class is the second.
    assert replace_probs([424, 2423, 1499, 2078, 227], 1 / 3)[1] == 0


@pytest.mark.parametrize("delta", [-0.1, 1.1, float("nan"), 7.0])
def test_delta_outside_the_unit_interval_is_refused(delta):
    with pytest.raises(ConfigError, match=r"delta=.* must lie in \[0, 1\]"):
        replace_probs(CIFAR10_LT, delta)


@pytest.mark.parametrize("counts", [[], [0, 5], [5, -3], [[1, 2]], [float("nan"), 2]])
def test_class_counts_below_one_are_refused(counts):
    with pytest.raises(DataError, match="class_counts must be numbers"):
        replace_probs(counts, 0.3)


@pytest.mark.parametrize(
    ("shape", "dtype", "mean", "message"),
    [((4, 6, 6, 3), jnp.uint8, MEAN, "images must be float"), ((4, 6, 6), float, MEAN, "images"),
     ((4, 6, 6, 3), float, [0.5], r"mean and std must be \[3\]")],
)  # fmt: skip
def test_arrays_of_another_kind_are_refused(shape, dtype, mean, message):
    images = jnp.zeros(shape, dtype)
    with pytest.raises(DataError, match=message):
        replace_with_noise(
            jax.random.key(0), images, jnp.zeros(4, int), replace_probs=[0.5], mean=mean, std=STD
        )


def batch(rows):
    labels = jnp.arange(rows) % 10
    return jnp.full((rows, 6, 5, 3), 0.5), labels


def replaced(key=0, rows=4000, probs=None, **kwargs):
    images, labels = batch(rows)
    probs = replace_probs(CIFAR10_LT, 1 / 3) if probs is None else probs
    return replace_with_noise(
        jax.random.key(key), images, labels, replace_probs=probs, mean=MEAN, std=STD, **kwargs
    )


def test_share_of_noise_per_class():
    _, noise_mask = replaced(rows=40_000)
    probs = np.asarray(replace_probs(CIFAR10_LT, 1 / 3))
    seen = np.asarray(noise_mask).reshape(-1, 10).sum(axis=0)
    sigma = np.sqrt(4000 * probs * (1 - probs))
    assert (abs(seen - 4000 * probs) <= 4 * sigma).all()


def test_only_masked_rows_change():
    images, noise_mask = replaced()
    chex.assert_shape(noise_mask, (4000,))
    assert noise_mask.dtype == jnp.bool_
    assert (images[~noise_mask] == 0.5).all()
    assert (images[noise_mask] != 0.5).mean() > 0.999


def test_noise_has_the_mean_and_deviation_of_each_channel():
    images, noise_mask = replaced(rows=20_000, probs=np.ones(10), clip=False)
    assert noise_mask.all()
    pixels = np.asarray(images, np.float64).reshape(-1, 3)
    error = STD / np.sqrt(len(pixels))
    assert (abs(pixels.mean(0) - MEAN) < 4 * error).all()
    assert (abs(pixels.std(0) - STD) < 4 * error).all()
    correlation = np.corrcoef(pixels.T) - np.eye(3)
    assert abs(correlation).max() < 4 / np.sqrt(len(pixels)), "channels are independent"


def test_clipping_is_to_the_unit_interval():
    clipped, _ = replaced(probs=np.ones(10))
    free, _ = replaced(probs=np.ones(10), clip=False)
    assert clipped.min() == 0 and clipped.max() == 1
    assert free.min() < 0 and free.max() > 1
    np.testing.assert_array_equal(clipped, np.clip(free, 0, 1))


def test_delta_zero_changes_nothing():
    images, noise_mask = replaced(probs=replace_probs(CIFAR10_LT, 0))
    assert not noise_mask.any()
    assert (images == 0.5).all()


def test_same_key_same_noise_other_key_other_noise():
    first, again, other = replaced(0), replaced(0), replaced(1)
    chex.assert_trees_all_equal(first, again)
    assert (first[1] != other[1]).any()


def test_a_row_does_not_depend_on_the_labels_of_others():
    images, labels = batch(64)
    kwargs = dict(replace_probs=replace_probs(CIFAR10_LT, 1.0), mean=MEAN, std=STD)
    key = jax.random.key(0)
    out, mask = replace_with_noise(key, images, labels, **kwargs)
    changed = labels.at[1:].set(0)
    out_2, mask_2 = replace_with_noise(key, images, changed, **kwargs)
    chex.assert_trees_all_equal((out[0], mask[0]), (out_2[0], mask_2[0]))


def test_jit_changes_nothing():
    images, labels = batch(32)
    probs = replace_probs(CIFAR10_LT, 1 / 3)

    def f(key):
        return replace_with_noise(key, images, labels, replace_probs=probs, mean=MEAN, std=STD)

    eager, jitted = f(jax.random.key(0)), jax.jit(f)(jax.random.key(0))
    np.testing.assert_array_equal(eager[1], jitted[1])
    chex.assert_trees_all_close(eager[0], jitted[0], atol=1e-6)


def test_which_rows_are_replaced_says_nothing_about_the_pixels():
    """As it would if choice and pixels were drawn from one key."""
    n = 6000
    images, labels = jnp.zeros((n, 1, 1, 3)), jnp.zeros(n, int)
    out, mask = replace_with_noise(
        jax.random.key(0), images, labels, replace_probs=np.array([0.5]),
        mean=np.zeros(3), std=np.ones(3), clip=False,
    )  # fmt: skip
    flat, drawn = np.asarray(out).ravel()[:n], np.repeat(mask, 3)[:n]
    chosen, others = flat[drawn & mask], flat[drawn & ~mask]
    error = np.sqrt(1 / len(chosen) + 1 / len(others))
    assert abs(chosen.mean() - others.mean()) < 4 * error
