"""Recipes with noise: OPeN, noise appended to balanced batches, and noise added to images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.pixels import normalize
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe, noise_source
from purenoise_jax.methods.noise import replace_with_noise
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.compile_steps import compile_steps
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step
from tests.tiny import TinyNet

K = 4
MEAN, STD = np.float32([0.4, 0.5, 0.6]), np.float32([0.05, 0.1, 0.15])
STATS = DataStats(np.array([64, 16, 4, 1]), (8, 8, 3), MEAN, STD, MEAN, STD, MEAN, STD)
RNG = np.random.default_rng(0)
KEY = jax.random.key(5)


def batch(rows=16, valid=None):
    label = jnp.asarray(RNG.integers(0, K, rows), jnp.int32)
    return {
        "image": jnp.asarray(RNG.uniform(size=(rows, 8, 8, 3)), jnp.float32),
        "label": label,
        "target": jax.nn.one_hot(label, K),
        "valid": jnp.arange(rows) < (rows if valid is None else valid),
    }


def transform(name, **arguments):
    (only,) = build_recipe([name], STATS, {name: arguments}).transforms
    return jax.jit(only)


def test_open_is_the_public_function_with_the_training_sets_statistics():
    before = batch()
    after = transform("open", delta=0.9)(KEY, before)
    probs = (1 - STATS.class_counts / 64) * 0.9
    images, noise_mask = replace_with_noise(
        KEY, before["image"], before["label"], replace_probs=probs, mean=MEAN, std=STD
    )
    np.testing.assert_array_equal(after["noise_mask"], noise_mask)
    np.testing.assert_allclose(after["image"], images, atol=1e-7)
    assert 0 < int(noise_mask.sum()) < 16


def test_appended_noise_leaves_natural_rows_alone_and_adds_a_quarter():
    before = batch(128)
    after = transform("append")(KEY, before)
    assert after["image"].shape == (160, 8, 8, 3)
    for name in ("image", "label", "target", "valid"):
        np.testing.assert_array_equal(after[name][:128], before[name])
    np.testing.assert_array_equal(after["noise_mask"], np.arange(160) >= 128)
    assert after["valid"].all()
    noise = np.asarray(after["image"][128:])
    np.testing.assert_allclose(noise.mean((0, 1, 2)), MEAN, atol=0.02)
    np.testing.assert_allclose(noise.std((0, 1, 2)), STD, rtol=0.1)
    np.testing.assert_array_equal(after["target"][128:].argmax(-1), after["label"][128:])


@pytest.mark.parametrize(("valid", "noise"), [(128, 32), (127, 31), (80, 20), (3, 0), (0, 0)])
def test_padding_takes_its_share_of_the_appended_noise(valid, noise):
    after = transform("append")(KEY, batch(128, valid))
    assert int(after["valid"][:128].sum()) == valid
    assert int(after["valid"][128:].sum()) == noise


@pytest.mark.parametrize(
    ("share", "real", "noise"), [(0.29, 100, 29), (0.57, 100, 57), (1 / 3, 96, 32), (0.1, 99, 9)]
)
def test_the_share_of_appended_noise_is_exact(share, real, noise):
    for rows in (real, real + 4):
        after = transform("append", share=share)(KEY, batch(rows, valid=real))
        assert after["noise_mask"].sum() == np.floor(round(share * rows, 9))
        assert int((after["valid"] & after["noise_mask"]).sum()) == noise


def test_labels_of_appended_noise_are_uniform_whatever_the_class_counts():
    append = transform("append")
    labels = [append(jax.random.key(i), batch(128))["label"][128:] for i in range(60)]
    share = np.bincount(np.concatenate(labels), minlength=K) / (60 * 32)
    # Four standard errors of a share of a quarter in 1,920 draws.
    np.testing.assert_allclose(share, 1 / K, atol=4 * np.sqrt(0.25 * 0.75 / 1920))


def test_appended_noise_in_raw_space_enters_as_drawn():
    pixel, raw = (
        np.asarray(transform("append", space=s)(KEY, batch())["image"][16:])
        for s in ("pixel", "raw")
    )
    np.testing.assert_allclose((raw - MEAN) / STD, pixel, atol=1e-5)


@pytest.mark.parametrize("name", ["open", "append"])
def test_raw_noise_is_inverted_by_the_statistics_that_normalise_images(name, monkeypatch):
    """The three pairs of statistics differ here, so no other pair would pass."""
    pairs = [np.float32([[0.1 * i, 0.2, 0.3], [0.4, 0.5, 0.6 + 0.1 * i]]) for i in range(1, 4)]
    stats = DataStats(STATS.class_counts, STATS.image_shape, *(x for pair in pairs for x in pair))
    ones = np.full((1, 1, 1, 3), 0.75, np.float32)

    def constant(key, shape, *, mean, std, clip, dtype):
        assert (mean.tolist(), std.tolist()) == tuple(x.tolist() for x in pairs[0])
        return jnp.broadcast_to(ones, shape)

    monkeypatch.setattr(noise_source, "draw_noise", constant)
    (only,) = build_recipe([name], stats, {name: {"space": "raw"}}).transforms
    after = only(KEY, batch(32))
    noise = np.asarray(after["image"])[np.asarray(after["noise_mask"])]
    assert len(noise)
    entering = normalize(jnp.asarray(noise), *pairs[2])
    np.testing.assert_allclose(entering, np.broadcast_to(ones, noise.shape), atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_replaced_rows_keep_their_label_and_target(share):
    before = batch(64)
    after = transform("open", delta=share)(KEY, before)
    assert after["noise_mask"].any() == bool(share)
    for name in ("label", "target", "valid"):
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.slow
def test_a_step_counts_appended_rows_with_padding_and_on_four_devices():
    images = RNG.integers(0, 256, (64, 8, 8, 3), np.uint8)
    labels = RNG.integers(0, K, 64).astype(np.int32)
    batch_builder = BatchBuilder(augment=None, mean=MEAN, std=STD, num_classes=K)
    tx = make_optimizer("sgd", momentum=0.0, weight_decay=0.0)
    recipe = build_recipe(["append"], STATS, {})

    def run(devices, valid_rows):
        placement = Placement(16, devices)
        model = TinyNet(num_classes=K)
        state = jax.jit(
            partial(init_state, model, tx, (8, 8, 3), 0), out_shardings=placement.replicated
        )()
        step = make_step(model, tx, lambda step: 0.05, recipe, batch_builder, seed=0)
        index = np.arange(16, dtype=np.int32)[None]
        valid = np.arange(16)[None] < valid_rows
        inputs = Inputs(*map(placement.replicate, (images, labels)))
        rows = Rows(*map(placement.split_rows, (index, valid)))
        zero = jax.tree.map(placement.replicate, EpochMetrics.zero(1))
        run_steps = compile_steps(step, placement, looped=False)
        return jax.device_get(run_steps(state, zero, inputs, rows, 0, 1))

    state, totals = run(1, 16)
    assert (totals.sums.natural, totals.sums.noise) == (16, 4)
    _, padded = run(1, 13)
    assert (padded.sums.natural, padded.sums.noise) == (13, 3)
    shared, totals_4 = run(4, 16)
    assert (totals_4.sums.natural, totals_4.sums.noise) == (16, 4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state, shared)


def test_additive_noise_is_added_to_the_image():
    before = batch(64)
    after = transform("open", delta=1.0, additive_std=0.1, clip=False)(KEY, before)
    pure = transform("open", delta=1.0)(KEY, before)
    np.testing.assert_array_equal(after["noise_mask"], pure["noise_mask"])
    mask = np.asarray(after["noise_mask"])
    np.testing.assert_array_equal(after["image"][~mask], before["image"][~mask])
    difference = np.asarray(after["image"] - before["image"])[mask]
    assert abs(difference.mean()) < 0.01
    np.testing.assert_allclose(difference.std(), 0.1, rtol=0.05)


def test_additive_noise_is_clipped_to_pixels():
    after = transform("open", delta=1.0, additive_std=2.0)(KEY, batch(64))["image"]
    assert after.min() == 0 and after.max() == 1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("append", {"share": 0.0}, r"method.append.share=0.0 must lie in \(0, 1\]"),
        ("append", {"share": 1.5}, r"method.append.share=1.5 must lie"),
        ("append", {"space": "fourier"}, r"method.append.space='fourier' is unknown"),
        ("open", {"additive_std": -1.0}, r"additive_std=-1.0 must be 0, or above"),
        ("open", {"additive_std": 0.1, "space": "raw"}, r"space=pixel \(here raw\)"),
    ],
)
def test_arguments_out_of_range_are_refused(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_recipe([name], STATS, {name: arguments})
