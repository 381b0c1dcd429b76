"""Nearest class mean: the head against distances in numpy, over natural rows of several steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.nearest_class_mean import class_sums, nearest_mean_head
from purenoise_jax.methods.recipe import Observed
from purenoise_jax.runtime.errors import ConfigError
from tests.headed_step import Headed, params_of, train
from tests.linear_step import STATS, data

IMAGES, LABELS, _ = data(rows=7, seed=3)
VALID = np.array([1, 1, 1, 1, 1, 1, 0], bool)


def trained(distance):
    recipe = build_recipe(["ncm"], STATS, {"ncm": {"distance": distance}})
    params = params_of()
    state, *_ = train(
        recipe, params, images=IMAGES, labels=LABELS, valid=VALID, steps=2, momentum=0.9,
        weight_decay=0.1, dropout_rate=0.5,
    )  # fmt: skip
    return recipe, params, state


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_largest_logit_is_that_of_the_nearest_mean(distance):
    recipe, params, state = trained(distance)
    features = IMAGES.reshape(7, -1) / 255 * params["body"].astype(float) - 0.2
    means = np.stack([features[VALID & (k == LABELS)].mean(axis=0) for k in range(3)])
    new = np.random.default_rng(5).integers(0, 256, (40, 2, 2, 3)) / 255
    points = new.reshape(40, -1) * params["body"].astype(float) - 0.2
    if distance == "euclidean":
        order = ((points[:, None] - means[None]) ** 2).sum(axis=2)
    else:
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (points, means)]
        order = -unit[0] @ unit[1].T
    variables = recipe.evaluated(state)
    logits, _ = Headed().apply(variables, jnp.asarray(new, jnp.float32), train=False)
    np.testing.assert_array_equal(np.asarray(logits).argmax(axis=1), order.argmin(axis=1))
    assert len(set(order.argmin(axis=1))) > 1
    if distance == "euclidean":
        half = (points**2).sum(axis=1, keepdims=True) / 2
        np.testing.assert_allclose(logits, half - order / 2, rtol=1e-4, atol=1e-5)


def test_nothing_trains_and_every_image_is_drawn_once():
    recipe, params, state = trained("cosine")
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    np.testing.assert_array_equal(state.batch_stats["mean"], np.full(12, np.float32(0.2)))
    assert recipe.class_probs is None
    np.testing.assert_array_equal(state.extra["ncm"]["count"], [4, 4, 4])


def test_noise_rows_and_padding_enter_no_mean_whatever_they_hold():
    memory = class_sums(STATS)
    tree = memory.init({"params": params_of()})
    features = np.arange(48, dtype=np.float32).reshape(4, 12)
    features[1:3] = np.nan
    batch = {
        "label": jnp.array([0, 0, 1, 2]),
        "valid": jnp.array([True, True, False, True]),
        "noise_mask": jnp.array([False, True, False, False]),
    }
    observed = Observed(None, jnp.int32(0), batch, {"features": jnp.asarray(features)})
    found = memory.update(tree, observed)
    np.testing.assert_array_equal(found["count"], [1, 0, 1])
    expected = np.stack([features[0], np.zeros(12), features[3]], axis=1)
    np.testing.assert_array_equal(found["sums"], expected)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_means_of_zero_give_a_finite_head(distance):
    head = nearest_mean_head(jnp.zeros((4, 2)), distance)
    assert not head["kernel"].any() and not head["bias"].any()


def test_one_class_is_legal():
    stats = dataclasses.replace(STATS, class_counts=np.array([5]))
    recipe = build_recipe(["ncm"], stats, {})
    state, *_ = train(recipe, params_of(classes=1), labels=np.zeros(6, np.int32))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(recipe.evaluated(state)))


def test_means_do_not_fit_a_moving_average_of_the_weights():
    with pytest.raises(ConfigError, match="methods ema and ncm both set eval_variables"):
        build_recipe(["ema", "ncm"], STATS, {})
