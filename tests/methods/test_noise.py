"""Replacement of images by pure noise, and the checks of its arguments."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax import replace_probs, replace_with_noise
from purenoise_jax.methods.noise import add_noise, choose_rows, draw_noise
from purenoise_jax.runtime.errors import ConfigError, DataError

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


def test_the_largest_class_keeps_its_images_whatever_its_label():
    # CelebA-5's largest class is the second.
    assert replace_probs([424, 2423, 1499, 2078, 227], 1 / 3)[1] == 0


@pytest.mark.parametrize("delta", [-0.1, 1.1, float("nan"), 7.0, True, "0.3", None, [0.3]])
def test_delta_outside_the_unit_interval_is_refused(delta):
    with pytest.raises(ConfigError, match=r"^delta=.* must lie in \[0, 1\]"):
        replace_probs(CIFAR10_LT, delta)


@pytest.mark.parametrize(
    ("counts", "got"),
    [
        ([], r"float64\[0\]"),
        ([0, 5, 0], r"0, 0$"),
        ([5, -3], "-3$"),
        ([[1, 2]], r"int64\[1, 2\]"),
        (7, r"int64\[\]"),
        ([float("nan"), 2], r"float64\[2\]"),
        ([5.0, 2.0], r"float64\[2\]"),
        ([True, True], r"bool\[2\]"),
        (["5", "2"], r"<U1\[2\]"),
        ([[1], [1, 2]], "inhomogeneous"),
    ],
)
def test_class_counts_other_than_integers_of_at_least_one_are_refused(counts, got):
    with pytest.raises(DataError, match=f"^class_counts must be .*got.* ?{got}"):
        replace_probs(counts, 0.3)


def test_traced_class_counts_are_refused():
    with pytest.raises(DataError, match=r"class_counts must be .*got int32\[2\]"):
        jax.jit(lambda counts: replace_probs(counts, 0.3))(np.array([5, 2]))


@pytest.mark.parametrize(
    ("shape", "dtype", "mean", "message"),
    [((4, 6, 6, 3), jnp.uint8, MEAN, "images must be float"), ((4, 6, 6), float, MEAN, "images"),
     ((4, 6, 6, 3), float, [0.5], r"mean must be float\[3\]")],
)  # fmt: skip
def test_arrays_of_another_kind_are_refused(shape, dtype, mean, message):
    images = jnp.zeros(shape, dtype)
    with pytest.raises(DataError, match=message):
        replace_with_noise(
            jax.random.key(0), images, jnp.zeros(4, int), replace_probs=[0.5], mean=mean, std=STD
        )


KEY = jax.random.key(0)
FINE = {"images": np.full((4, 6, 6, 3), 0.5, np.float32), "labels": np.array([0, 1, 2, 0])}
FINE |= {"replace_probs": np.array([0.0, 0.5, 1.0], np.float32), "mean": MEAN, "std": STD}
# Arguments with a wrong shape or dtype; `WRONG_VALUE` has those with wrong values.
WRONG_KIND = [
    ("labels", np.array([True, False, True, True]), r"labels must be int\[4\], got bool\[4\]$"),
    ("labels", np.array([0.0, 1, 2, 0], np.float32), r"labels must be int\[4\], got float32\[4\]$"),
    ("labels", np.array([[0], [1], [2], [0]]), r"got int.*\[4, 1\]; pass labels\[:, 0\]$"),
    ("labels", np.eye(3)[[0, 1, 2, 0]], r"got float.*\[4, 3\]; pass labels.argmax\(-1\), not one-hot$"),
    ("labels", np.array([0, 1, 2]), r"labels must be int\[4\], got int.*\[3\]$"),
    ("labels", np.array(1), r"labels must be int\[4\], got int.*\[\]$"),
    ("replace_probs", np.array([True, False, True]), r"replace_probs must be float\[K\] in \[0, 1\], got bool\[3\]$"),
    ("replace_probs", np.ones((3, 1), np.float32), r"got float32\[3, 1\]$"),
    ("replace_probs", np.ones(0, np.float32), r"got float32\[0\]$"),
    ("mean", np.float32(0.5), r"mean must be float\[3\], one finite number per channel, got float32\[\]$"),
    ("std", np.ones(4, np.float32), r"std must be float\[3\], .* got float32\[4\]$"),
    ("std", np.ones(3, bool), r"std must be float\[3\], .* got bool\[3\]$"),
    ("images", np.zeros((4, 6, 6, 3), np.uint8), r"images must be float\[B, H, W, C\], got uint8\[4, 6, 6, 3\]$"),
]  # fmt: skip
WRONG_TEXT = [
    ("labels", np.array(list("abca")), r"labels must be int\[4\], got <U1\[4\]$"),
    ("labels", [[0], [1, 2], [2], [0]], "^labels must be an array, got"),
    ("replace_probs", ["0", "1", "1"], r"got <U1\[3\]$"),
]
NAN = float("nan")
WRONG_VALUE = [
    ("labels", np.array([0, 1, 3, -1]), r"labels must lie in 0\.\.2, but 2 do not; the first are \[2\] = 3, \[3\] = -1$"),
    ("replace_probs", np.float32([0, 1.5, NAN]), r"replace_probs must be float\[K\] in \[0, 1\], got 1\.5, nan$"),
    ("replace_probs", np.float32([0, -0.5, 1]), r"got -0\.5$"),
    ("mean", np.float32([0.5, NAN, 0.5]), r"mean must be .*, got nan$"),
    ("std", np.float32([0.5, -1, np.inf]), r"std must be .*, each at least 0, got -1, inf$"),
    ("images", np.full((4, 6, 6, 3), -2.1, np.float32), r"images must lie in \[0, 1\], got -2\.1 to -2\.1; normalise them afterwards"),
    ("images", np.full((4, 6, 6, 3), NAN, np.float32), r"images must lie in \[0, 1\], got nan"),
]  # fmt: skip


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(("name", "value", "message"), WRONG_KIND + WRONG_VALUE)
def test_an_argument_of_another_kind_or_range_is_refused_by_name(name, value, message, array):
    with pytest.raises(DataError, match=message):
        replace_with_noise(KEY, **{**FINE, name: array(value)})


def test_a_label_that_would_overflow_int32_is_refused():
    labels = np.array([0, 1, 2**32, 0])
    with pytest.raises(DataError, match=r"do not; the first are \[2\] = 4294967296$"):
        choose_rows(KEY, labels, FINE["replace_probs"])


@pytest.mark.parametrize(("name", "value", "message"), WRONG_TEXT)
def test_text_and_ragged_lists_are_refused_by_name(name, value, message):
    with pytest.raises(DataError, match=message):
        replace_with_noise(KEY, **{**FINE, name: value})


@pytest.mark.parametrize(("name", "value", "message"), WRONG_KIND)
def test_shapes_and_dtypes_are_checked_under_jit_too(name, value, message):
    with pytest.raises(DataError, match=message.replace("$", r"(\n|$)")):
        jax.eval_shape(lambda arguments: replace_with_noise(KEY, **arguments), FINE | {name: value})


def test_lists_are_accepted_and_without_clip_images_may_leave_the_unit_interval():
    lists = {
        "labels": [0, 1, 2, 0],
        "replace_probs": [0, 0, 1],
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    }
    images, noise_mask = replace_with_noise(KEY, FINE["images"] - 9, clip=False, **lists)
    assert noise_mask.tolist() == [False, False, True, False]
    assert (images[:2] == -8.5).all() and images[2].min() < 0
    wide = FINE["images"].astype(np.float64)  # numpy's default dtype
    assert replace_with_noise(KEY, wide, **lists)[0].dtype == jnp.float32


def test_images_with_known_values_are_checked_under_jit():
    with pytest.raises(DataError, match=r"images must lie in \[0, 1\]"):
        jax.jit(lambda key: replace_with_noise(key, **{**FINE, "images": FINE["images"] * 3}))(KEY)


def test_under_jit_labels_and_probabilities_out_of_range_count_as_documented():
    labels = np.array([0, 3, 99, -1, -3, -4])
    once = jax.jit(choose_rows)
    np.testing.assert_array_equal(
        once(KEY, labels, np.float32([0, 0, 1])), [False, True, True, True, False, False]
    )
    probs = np.float32([NAN, 1.5, -0.5])
    np.testing.assert_array_equal(
        once(KEY, np.arange(6) % 3, probs), [False, True, False, False, True, False]
    )


def test_draws_of_another_shape_or_dtype_are_refused():
    for shape, dtype in (((4, 3), jnp.float32), ((4, 2, 2, 3), jnp.int32)):
        with pytest.raises(DataError, match=r"^noise must be float\[B, H, W, C\], got"):
            draw_noise(KEY, shape, mean=MEAN, std=STD, dtype=dtype)


@pytest.mark.parametrize("std", [-0.1, NAN, "0.1", True, [0.1, 0.2, 0.3]])
def test_additive_noise_needs_one_deviation_of_at_least_zero(std):
    with pytest.raises(DataError, match=r"^std must be a finite number of at least 0, got"):
        add_noise(KEY, FINE["images"], std=std)
    assert (add_noise(KEY, FINE["images"], std=0) == 0.5).all()


def test_additive_noise_checks_images_as_replacement_does():
    with pytest.raises(DataError, match=r"^images must be float"):
        add_noise(KEY, np.zeros((4, 6, 6, 3), np.uint8), std=0.1)
    with pytest.raises(DataError, match=r"^images must lie in \[0, 1\]"):
        add_noise(KEY, FINE["images"] + 1, std=0.1)
    assert add_noise(KEY, FINE["images"] + 1, std=0.1, clip=False).max() > 1


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


def test_the_choice_of_rows_is_independent_of_the_pixels():
    """The two would be dependent if both were drawn from one key."""
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
