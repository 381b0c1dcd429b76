"""Sampling: epochs, class-balanced draws and padding."""

import jax
import numpy as np
import pytest

from purenoise_jax import balanced_indices
from purenoise_jax.data.sampling import EpochSampler, class_draws, pad_rows
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError, DataError

LABELS = np.repeat(np.arange(4), [60, 25, 10, 5])
UNIFORM = np.full(4, 0.25, np.float32)


def test_plain_epoch_has_every_image_once_and_pads_the_last_step():
    index, valid = EpochSampler(LABELS, 4, 16, seed=0).epoch(0, None)
    assert index.shape == valid.shape == (7, 16)
    assert valid[:-1].all() and valid[-1].sum() == 100 - 6 * 16
    np.testing.assert_array_equal(np.sort(index[valid]), np.arange(100))


@pytest.mark.parametrize(("images", "steps", "last"), [(12406, 97, 118), (13996, 110, 44)])
def test_steps_of_the_papers_data_sets(images, steps, last):
    _, valid = pad_rows(np.arange(images, dtype=np.int32), 128)
    assert len(valid) == steps and valid[-1].sum() == last


@pytest.mark.parametrize("class_probs", [None, UNIFORM])
def test_epoch_is_a_pure_function_of_seed_and_epoch(class_probs):
    def rows(seed, epoch):
        return EpochSampler(LABELS, 4, 16, seed).epoch(epoch, class_probs)[0]

    np.testing.assert_array_equal(rows(3, 7), rows(3, 7))
    assert (rows(3, 7) != rows(3, 8)).any()
    assert (rows(3, 7) != rows(4, 7)).any()


def test_an_epoch_does_not_depend_on_earlier_ones():
    sampler = EpochSampler(LABELS, 4, 16, seed=0)
    alone = sampler.epoch(5, UNIFORM)[0]
    for epoch in range(5):
        sampler.epoch(epoch, None)
    np.testing.assert_array_equal(sampler.epoch(5, UNIFORM)[0], alone)


def test_balanced_epoch_is_as_long_as_the_training_set():
    index, valid = EpochSampler(LABELS, 4, 16, seed=0).epoch(0, UNIFORM)
    assert index.shape == (7, 16) and valid.sum() == 100


def draws(class_probs, counts, num_draws=40_000):
    by_class = np.argsort(np.repeat(np.arange(len(counts)), counts), kind="stable")
    key = jax.random.key(0)
    probs = np.asarray(class_probs, np.float32)
    counts = np.asarray(counts, np.int32)
    flat = class_draws(key, probs, by_class.astype(np.int32), counts, num_draws=num_draws)
    return np.asarray(flat)


def within_4_sigma(seen, prob, n):
    return abs(seen - prob * n) < 4 * np.sqrt(n * prob * (1 - prob)) + 1e-9


def test_balanced_draws_have_uniform_classes_and_uniform_images_within():
    counts = [60, 25, 10, 5]
    flat = draws(UNIFORM, counts)
    assert all(within_4_sigma(n, 0.25, flat.size) for n in np.bincount(LABELS[flat]))
    per_image = np.bincount(flat, minlength=100)
    assert (per_image > 0).all(), "with replacement, but every image can be drawn"
    z = (per_image - flat.size * 0.25 / np.repeat(counts, counts)) / np.sqrt(
        flat.size * 0.25 / np.repeat(counts, counts)
    )
    # The 100 counts are nearly independent, which is enough for bounds on extremes and spread.
    assert abs(z).max() < 4.5 and 0.8 < z.std() < 1.2


def test_balanced_draws_repeat_images():
    flat = draws(UNIFORM, [60, 25, 10, 5], num_draws=100)
    assert len(np.unique(flat)) < 100


def test_any_class_probabilities():
    flat = draws([0.7, 0.0, 0.1, 0.2], [60, 25, 10, 5])
    seen = np.bincount(LABELS[flat], minlength=4)
    assert seen[1] == 0
    assert all(
        within_4_sigma(n, p, flat.size) for n, p in zip(seen, (0.7, 0, 0.1, 0.2), strict=True)
    )


def test_a_class_of_probability_zero_at_the_end_is_never_drawn():
    flat = draws([0.5, 0.5, 0.0], [10, 10, 10])
    assert flat.max() < 20


def test_one_image_per_class():
    flat = draws([0.5, 0.5], [1, 1], num_draws=50)
    assert set(flat.tolist()) == {0, 1}


def test_balanced_indices_are_those_of_a_balanced_epoch_of_a_run():
    index, valid = EpochSampler(LABELS, 4, 16, seed=3).epoch(5, UNIFORM)
    key = rng.at(rng.stream(3, "sampling"), 5)
    for labels in (LABELS, LABELS.tolist(), LABELS.astype(np.uint64), jax.numpy.asarray(LABELS)):
        drawn = balanced_indices(key, labels)
        assert drawn.dtype == np.int32
        np.testing.assert_array_equal(drawn, index[valid])


def test_balanced_indices_have_the_given_number_and_depend_on_the_key():
    one, other = (balanced_indices(jax.random.key(k), LABELS, num_draws=4000) for k in (0, 1))
    assert one.shape == (4000,) and (one != other).any()
    assert all(within_4_sigma(n, 0.25, 4000) for n in np.bincount(LABELS[one]))
    assert set(one.tolist()) == set(range(100))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], r"labels must be int\[N\], got float64\[0\]"),
        (np.zeros(0, int), r"labels must be int\[N\] of known values, got int64\[0\]"),
        ([0, 2, 4], r"classes \[1, 3\] have no image"),
        ([0, 2**31 - 1], r"classes \[1, 2\] have no image"),
        ([0, -1], r"\[1\] = -1"),
        ([0.0, 1.0], r"got float64\[2\]"),
        ([True, False], r"got bool\[2\]"),
        ([[0], [1]], r"got int64\[2, 1\]; pass labels\[:, 0\]"),
        (["cat", "dog"], r"got <U3\[2\]"),
    ],
)
def test_balanced_indices_refuse_bad_labels(labels, message):
    with pytest.raises(DataError, match=message):
        balanced_indices(jax.random.key(0), labels)


def test_balanced_indices_refuse_bad_numbers_and_traced_labels():
    for draws in (0, -1, 2.5, True, "3"):
        with pytest.raises(ConfigError, match=r"num_draws=.* must be an integer of at least 1"):
            balanced_indices(jax.random.key(0), LABELS, num_draws=draws)
    with pytest.raises(DataError, match=r"labels must be int.* of known values"):
        jax.jit(lambda labels: balanced_indices(jax.random.key(0), labels))(LABELS)
