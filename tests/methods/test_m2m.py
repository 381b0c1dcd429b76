"""M2m against a translation of three images by hand, and the rows that must not change."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.cifar10_lt import get_config
from purenoise_jax.config.validation import validate
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.m2m import NETWORK
from purenoise_jax.methods.networks import Networks
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from tests.linear_step import COUNTS, STATS, Linear, softmax

LABELS = np.array([0, 1, 2], np.int32)
ARGUMENTS = {
    "beta": 0.9,
    "confidence": 0.3,
    "num_steps": 3,
    "step_size": 0.2,
}


def networks_of(learner, frozen, rows):
    return Networks(
        Linear(),
        lambda images: images,
        {"head": {"kernel": jnp.asarray(learner)}},
        {},
        valid=jnp.ones(rows, bool),
        dropout_key=rng.root(0),
        frozen={NETWORK: {"params": {"head": {"kernel": jnp.asarray(frozen)}}, "batch_stats": {}}},
    )


def problem(seed=0):
    draw = np.random.default_rng(seed)
    images = draw.uniform(0.2, 0.8, (3, 2, 2, 3)).astype(np.float32)
    learner, frozen = draw.normal(0, 0.5, (2, 12, 3)).astype(np.float32)
    return images, learner, frozen


def translate(images, learner, frozen, key, labels=LABELS, **changes):
    recipe = build_recipe(["m2m"], STATS, {"m2m": {**ARGUMENTS, **changes}})
    batch = {
        "image": jnp.asarray(images),
        "label": jnp.asarray(labels),
        "target": jnp.eye(3)[labels],
        "valid": jnp.ones(len(labels), bool),
    }
    networks = networks_of(learner, frozen, len(labels))
    return np.asarray(recipe.generators[0](key, batch, networks)["image"])


def by_hand(images, learner, frozen, key):
    """Computes the same in numpy, float64, with the random draws of the key."""
    stay, seed, accept = (np.asarray(rng.uniform(k, (3,)), np.float64) for k in rng.split(key, 3))
    size = COUNTS[LABELS].astype(float)
    result, made = images.astype(np.float64).copy(), []
    for row, k in enumerate(LABELS):
        if stay[row] < size[row] / COUNTS.max():
            continue
        chance = 1 - 0.9 ** np.maximum(size - size[row], 0)
        if chance.sum() == 0:
            continue
        source = int(np.argmax(np.cumsum(chance) > seed[row] * chance.sum()))
        x = images[source].astype(np.float64).ravel()
        for _ in range(3):
            slope = frozen @ (softmax((x @ frozen)[None])[0] - np.eye(3)[k])
            slope = slope + 0.5 * learner[:, LABELS[source]]
            x = np.clip(x - 0.2 * slope / np.linalg.norm(slope), 0, 1)
        if softmax((x @ frozen)[None])[0, k] >= 0.3 and accept[row] < chance[source]:
            result[row] = x.reshape(2, 2, 3)
            made.append(row)
    return result, made


def test_three_images_by_hand():
    images, learner, frozen = problem()
    seen = set()
    for number in range(12):
        key = rng.root(number)
        expected, made = by_hand(images, learner, frozen, key)
        seen |= set(made)
        np.testing.assert_allclose(translate(images, learner, frozen, key), expected, atol=2e-6)
    assert seen == {1, 2}, "rows of both rarer classes were translated"


def test_no_row_changes_if_no_translation_is_confident_enough():
    images, learner, frozen = problem()
    for number in range(5):
        found = translate(images, learner, frozen, rng.root(number), confidence=1.0)
        np.testing.assert_array_equal(found, images)


def test_a_batch_of_one_class_is_not_translated():
    images, learner, frozen = problem()
    same = np.full(3, 2, np.int32)
    found = translate(images, learner, frozen, rng.root(1), labels=same)
    np.testing.assert_array_equal(found, images)


def test_noise_and_padding_are_neither_replaced_nor_translated():
    images, learner, frozen = problem()
    recipe = build_recipe(["m2m"], STATS, {"m2m": {**ARGUMENTS, "confidence": 0.0}})
    for name, mask in (("noise_mask", [True, False, False]), ("valid", [False, True, True])):
        batch = {
            "image": jnp.asarray(images).at[0].set(jnp.nan if name == "valid" else 0.5),
            "label": jnp.asarray(LABELS),
            "target": jnp.eye(3)[LABELS],
            "valid": jnp.ones(3, bool),
            name: jnp.asarray(mask),
        }
        changed = set()
        for number in range(12):
            made = recipe.generators[0](rng.root(number), batch, networks_of(learner, frozen, 3))
            rows = ~np.isclose(made["image"], batch["image"], equal_nan=True).all(axis=(1, 2, 3))
            changed |= set(np.flatnonzero(rows).tolist())
            assert np.isfinite(np.asarray(made["image"])[1:]).all()
        # The only row of the largest class must not be used, so class 1 has no larger class.
        assert changed == {2}, name


def test_a_translation_is_both_views_of_its_row():
    images, learner, frozen = problem()
    recipe = build_recipe(["m2m"], STATS, {"m2m": {**ARGUMENTS, "confidence": 0.0}})
    batch = {
        "image": jnp.asarray(images),
        "second": jnp.asarray(images) / 2,
        "label": jnp.asarray(LABELS),
        "target": jnp.eye(3)[LABELS],
        "valid": jnp.ones(3, bool),
    }
    changed = set()
    for number in range(12):
        made = recipe.generators[0](rng.root(number), batch, networks_of(learner, frozen, 3))
        rows = np.asarray((made["image"] != batch["image"]).any(axis=(1, 2, 3)))
        np.testing.assert_array_equal(made["second"][rows], made["image"][rows])
        np.testing.assert_array_equal(made["second"][~rows], batch["second"][~rows])
        changed |= set(np.flatnonzero(rows).tolist())
    assert changed == {1, 2}


def test_without_a_network_it_names_the_command_that_makes_one():
    config = get_config("method=m2m")
    # Before any image is read: there are none.
    config.data.source, config.data.path = "npz", "nowhere.npz"
    validate(config)
    with pytest.raises(ConfigError) as error:
        build(config)
    assert str(error.value) == (
        "frozen.g='' names no run, but m2m uses the network of one; legal: the workdir of a run of "
        "the same network with method=erm, such as runs/erm after `python -m purenoise_jax.main "
        "--config FILE:method=erm --workdir runs/erm`, with the FILE of this run"
    )
