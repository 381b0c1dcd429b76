"""LADE: its limits, absent classes, padding and noise; the values are in test_loss_goldens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.lade import WEIGHTS, regulariser
from purenoise_jax.methods.recipe import cross_entropy
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.train_step import Inputs
from tests.linear_step import COUNTS, HALF, STATS, data, run, state_of, step_of

LOG_PRIOR = jnp.asarray(np.log(COUNTS / COUNTS.sum()), jnp.float32)
UNIFORM = jnp.log(jnp.full(3, 1 / 3))
LOGITS = jnp.asarray(np.random.default_rng(0).normal(0, 2, (7, 3)), jnp.float32)
LABEL = jnp.array([0, 1, 2, 2, 0, 1, 0])


def batch_of(label=LABEL, valid=None, target=None, classes=3):
    label = jnp.asarray(label)
    valid = jnp.ones(len(label), bool) if valid is None else jnp.asarray(valid)
    target = jnp.eye(classes)[label] if target is None else target
    return {"label": label, "target": target, "valid": valid}


def value(logits=LOGITS, log_prior=LOG_PRIOR, penalty=0.3, weights="code", **batch):
    return regulariser(logits, batch_of(**batch), log_prior, penalty=penalty, weights=weights)


def test_without_the_regulariser_it_is_logit_adjustment():
    given = data()
    plain = run(build_recipe(["logit_adjustment"], STATS, {}), *given)
    ours = run(build_recipe(["lade"], STATS, {"lade": {"alpha": 0.0}}), *given)
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
    full = build_recipe(["lade"], STATS, {})
    logits, target = LOGITS[:3], jnp.eye(3)
    expected = build_recipe(["logit_adjustment"], STATS, {}).loss(logits, target)
    np.testing.assert_array_equal(full.loss(logits, target), expected)


def test_with_equal_frequencies_both_importance_weights_are_one():
    found = [value(log_prior=UNIFORM, weights=weights) for weights in WEIGHTS]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    z = np.asarray(LOGITS, np.float64)
    own = np.array([z[np.asarray(LABEL) == c, c].mean() for c in range(3)])
    partition = np.log(np.exp(z).mean(0))
    expected = -(own - partition - 0.3 * partition**2).mean()
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_a_constant_that_is_added_to_the_logits_of_a_class_counts_only_in_the_penalty():
    """The bound of a class does not depend on the scale of its density; the penalty fixes it."""
    moved = LOGITS + jnp.array([3.0, -1.0, 0.5])[None]
    for weights in WEIGHTS:
        np.testing.assert_allclose(
            value(moved, penalty=0.0, weights=weights),
            value(penalty=0.0, weights=weights),
            rtol=1e-5,
        )
        assert abs(value(moved, weights=weights) - value(weights=weights)) > 0.1


def test_the_partition_of_an_absent_class_still_counts():
    label = jnp.array([0, 1, 1, 1, 0, 1, 0])
    slope = np.asarray(jax.grad(lambda z: value(z, label=label))(LOGITS))
    z = np.asarray(LOGITS, np.float64)[:, 2]
    prior = float(COUNTS[2] / COUNTS.sum())
    partition = np.log(np.exp(z).mean()) - np.log(3 * prior)
    share = np.exp(z) / np.exp(z).sum()
    np.testing.assert_allclose(slope[:, 2], prior * (1 + 0.6 * partition) * share, rtol=1e-4)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_padding_and_the_order_of_rows_have_no_effect(weights):
    valid = np.arange(7) < 5
    expected = value(LOGITS[:5], label=LABEL[:5], weights=weights)
    wild = jnp.where(valid[:, None], LOGITS, jnp.nan)
    found = [value(z, valid=valid, weights=weights) for z in (LOGITS, wild)]
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5)
    slope = jax.grad(lambda z: value(z, valid=valid, weights=weights))(wild)
    assert np.isfinite(slope).all() and not slope[5:].any()
    assert np.isfinite(value(valid=np.zeros(7, bool), weights=weights))
    order = np.random.default_rng(0).permutation(7)
    again = value(LOGITS[order], label=LABEL[order], valid=valid[order], weights=weights)
    np.testing.assert_allclose(again, expected, rtol=1e-5)


def test_a_soft_target_is_a_row_of_several_classes():
    target = 0.7 * jnp.eye(3)[LABEL] + 0.1
    found = value(target=target, penalty=0.0) - value(penalty=0.0)
    hard, soft = np.eye(3)[LABEL], np.asarray(target, np.float64)
    own = [(y * np.asarray(LOGITS)).sum(0) / y.sum(0) for y in (hard, soft)]
    expected = -(np.exp(LOG_PRIOR) * (own[1] - own[0])).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("names", [["lade"], ["lade", "drw"], ["lade", "sam"]])
def test_a_batch_of_only_padding_has_a_zero_gradient(names):
    images, labels, kernel = data()
    _, sums, grads = run(build_recipe(names, STATS, {}), images, labels, kernel, np.zeros(6, bool))
    assert sums.row_loss == 0 and not grads.any()


def test_a_batch_of_only_padding_has_no_loss_whatever_it_shows():
    images, labels, kernel = data()
    recipe = build_recipe(["lade"], STATS, {})
    state, step = state_of(kernel, recipe), step_of(recipe)
    batch = {**batch_of(labels, np.zeros(6, bool)), "image": jnp.asarray(images / 255, jnp.float32)}

    def loss(params):
        return step.loss(params, None, state, Inputs(None, None), batch)[0]

    found, grads = jax.value_and_grad(loss)(state.params)
    assert found == 0 and all(not leaf.any() for leaf in jax.tree.leaves(grads))


def test_values_of_padding_that_are_not_numbers_have_no_effect():
    images, labels, kernel = data(rows=7)
    valid = np.arange(7) < 5
    recipe = build_recipe(["lade"], STATS, {})
    state, step = state_of(kernel, recipe), step_of(recipe)

    def loss(params, fill):
        filled = jnp.asarray(np.where(valid[:, None, None, None], images / 255, fill), jnp.float32)
        batch = {**batch_of(labels, valid), "image": filled}
        return step.loss(params, None, state, Inputs(None, None), batch)[0]

    expected, found = (jax.value_and_grad(loss)(state.params, fill) for fill in (0.0, np.nan))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.isfinite(found[0])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_extreme_logits_and_a_single_class_are_finite(weights):
    check = jax.jit(jax.value_and_grad(lambda z: value(z, weights=weights)))
    for scale in (1e4, 1e10):
        found, slope = check(jnp.sign(LOGITS) * scale)
        assert np.isfinite(found) and np.isfinite(slope).all()
    one = DataStats(np.array([3]), (2, 2, 3), *[HALF] * 6)
    recipe = build_recipe(["lade"], one, {"lade": {"weights": weights}})
    assert not recipe.loss(jnp.ones((2, 1)), jnp.ones((2, 1))).any()
    single = value(
        jnp.array([[1.0], [2.0]]), jnp.zeros(1), weights=weights, penalty=0.0,
        label=jnp.zeros(2, int), classes=1,
    )  # fmt: skip
    np.testing.assert_allclose(single, np.log((np.e + np.e**2) / 2) - 1.5, rtol=1e-5)


def test_known_frequencies_of_the_images_to_classify_are_added_in_evaluation():
    recipe = build_recipe(["lade"], STATS, {})
    np.testing.assert_array_equal(recipe.postprocess(LOGITS), LOGITS)
    shifted = recipe.postprocess(LOGITS, LOG_PRIOR)
    np.testing.assert_allclose(shifted, LOGITS + LOG_PRIOR[None], rtol=1e-6)
    # The training set's own frequencies give the softmax that trained.
    target = jnp.eye(3)[LABEL]
    np.testing.assert_allclose(
        recipe.loss(LOGITS, target), cross_entropy(shifted, target), rtol=1e-5
    )


def test_other_losses_and_objectives_are_refused_by_name():
    for other in ("logit_adjustment", "focal", "mixup"):
        with pytest.raises(ConfigError, match=f"methods lade and {other} both set"):
            build_recipe(["lade", other], STATS, {})
