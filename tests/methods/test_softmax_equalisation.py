"""Softmax equalisation loss: against numpy with the drawn beta, its limits, and the draws."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.recipe import cross_entropy
from purenoise_jax.methods.softmax_equalisation import equalised_loss
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from tests.linear_step import HALF, STATS, data, run, softmax

# Shares of 8/11, 2/11 and 1/11; the last two are rare.
ARGUMENTS = {"gamma": 0.6, "threshold": 0.2}
RARE = np.array([False, True, True])
LOGITS = jnp.asarray(np.random.default_rng(0).normal(0, 3, (6, 3)), jnp.float32)
LABEL = np.array([0, 1, 2, 2, 0, 1])
TARGET = jnp.eye(3)[LABEL]


def recipe_of(methods=("seql",), stats=STATS, **arguments):
    return build_recipe(methods, stats, {"seql": {**ARGUMENTS, **arguments}})


def outcome(recipe, key, logits=LOGITS, label=LABEL):
    networks = SimpleNamespace(forward=lambda image, noise_mask: (logits, {}))
    target = jnp.eye(logits.shape[1])[label]
    batch = {"image": None, "label": jnp.asarray(label), "target": target}
    return recipe.objective(recipe, networks, batch, key)


def by_hand(logits, target, left_out):
    z, y = np.asarray(logits, np.float64), np.asarray(target, np.float64)
    p = np.exp(z) / ((1 - left_out * (1 - y)) * np.exp(z)).sum(1, keepdims=True)
    return -(y * np.log(p)).sum(1)


def test_losses_with_drawn_betas_against_numpy():
    key = rng.root(3)
    beta = np.asarray(rng.bernoulli(key, 0.6, (6, 3)))
    found = outcome(recipe_of(), key)
    np.testing.assert_allclose(found.losses, by_hand(LOGITS, TARGET, beta & RARE), rtol=1e-5)
    assert found.weights is None
    np.testing.assert_array_equal(found.logits, LOGITS)
    assert (np.asarray(found.losses) < cross_entropy(LOGITS, TARGET) - 1e-3).any()


@pytest.mark.parametrize("target", [TARGET, 0.7 * TARGET + 0.1])
def test_without_a_key_the_mean_of_beta_counts(target):
    found = recipe_of().loss(LOGITS, target)
    np.testing.assert_allclose(found, by_hand(LOGITS, target, 0.6 * RARE[None]), rtol=1e-5)


def test_without_gamma_it_is_cross_entropy():
    expected, recipe = cross_entropy(LOGITS, TARGET), recipe_of(gamma=0.0)
    np.testing.assert_allclose(recipe.loss(LOGITS, TARGET), expected, rtol=1e-5)
    np.testing.assert_allclose(outcome(recipe, rng.root(0)).losses, expected, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.01, 1 / 11])
def test_without_rare_classes_it_is_refused(threshold):
    # The rarest class has 5 of 55 images.
    message = rf"seql\.threshold={threshold:.4g}: no class .* legal: above 0\.09091, the share"
    with pytest.raises(ConfigError, match=message):
        recipe_of(threshold=threshold)


def test_usually_a_class_is_rare_if_it_has_less_than_half_of_an_even_share():
    level = np.full(3, 0.5, np.float32)

    def recipe(counts, **given):
        stats = DataStats(np.array(counts), (8, 8, 3), *[level] * 6)
        return build_recipe(["seql"], stats, {"seql": {"gamma": 1.0, **given}})

    # Of four classes those with less than an eighth; one with just an eighth is not rare.
    usual, same = (recipe([60, 26, 10, 4], **given) for given in ({}, {"threshold": 0.125}))
    border = recipe([60, 24, 12.5, 3.5])
    logits, target = (
        jnp.asarray(np.random.default_rng(1).normal(0, 2, (5, 4))),
        jnp.eye(4)[np.zeros(5, int)],
    )
    for one, rare in ((usual, [0, 0, 1, 1]), (same, [0, 0, 1, 1]), (border, [0, 0, 0, 1])):
        wanted = by_hand(logits, target, np.array(rare)[None])
        np.testing.assert_allclose(one.loss(logits, target), wanted, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"threshold=0\.125: no class"):
        recipe([25, 25, 25, 25])


def test_rows_of_other_classes_do_not_move_a_rare_class_that_is_left_out():
    slope = np.asarray(
        jax.grad(lambda z: outcome(recipe_of(gamma=1.0), rng.root(0), z).losses.sum())(LOGITS)
    )
    discouraged = RARE[None] & (np.asarray(TARGET) == 0)
    assert not slope[discouraged].any()
    assert (slope[:, 0][LABEL != 0] > 0).all() and (np.diag(slope[:, LABEL]) <= 0).all()
    # Of a rare label's own row, only the other rare class is left out.
    z = np.asarray(LOGITS, np.float64)[3, [0, 2]]
    np.testing.assert_allclose(slope[3, [0, 2]], softmax(z[None])[0] - [0, 1], rtol=1e-4)


def test_every_row_and_class_has_a_draw_of_its_own():
    losses = jax.jit(jax.vmap(lambda key: outcome(recipe_of(), key).losses))(
        rng.split(rng.root(0), 2000)
    )
    # With label 0, four losses: one, the other, both or none of the two rare classes are left out.
    values, counts = np.unique(np.round(losses[:, 0], 4), return_counts=True)
    assert len(values) == 4
    expected = np.sort(2000 * np.array([0.16, 0.24, 0.24, 0.36]))
    assert (np.abs(np.sort(counts) - expected) < 4 * np.sqrt(2000 * 0.25)).all()
    # The other row with that label draws its own.
    assert abs(np.corrcoef(losses[:, 0], losses[:, 4])[0, 1]) < 0.1


def test_both_passes_of_sam_draw_alike_and_padding_has_no_effect():
    images, labels, kernel = data(rows=7)
    valid = np.arange(7) < 5
    plain = run(recipe_of(), images, labels, kernel, valid)
    recipe = build_recipe(["seql", "sam"], STATS, {"seql": ARGUMENTS, "sam": {"rho": 0.0}})
    ours = run(recipe, images, labels, kernel, valid)
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
    changed = np.where(valid[:, None, None, None], images, 0).astype(np.uint8)
    np.testing.assert_array_equal(run(recipe, changed, labels, kernel, valid)[2], plain[2])
    _, sums, grads = run(recipe, images, labels, kernel, np.zeros(7, bool))
    assert sums.row_loss == 0 and not grads.any()


def test_class_weights_of_other_methods_count():
    recipe = build_recipe(["seql", "drw"], STATS, {"seql": ARGUMENTS})
    found = outcome(recipe, rng.root(0))
    np.testing.assert_array_equal(found.weights, recipe.class_weights[LABEL])


def test_extreme_logits_and_soft_targets_have_finite_gradients():
    logits = jnp.array([[0, 1e30, 0], [1e4, 0, -1e4], [-1e4, 0, 1e4], [0, 0, 0]])
    check = jax.jit(jax.value_and_grad(lambda z, *given: equalised_loss(z, *given).sum()))
    for left_out in (jnp.zeros((4, 3)), jnp.tile(RARE * 1.0, (4, 1)), jnp.ones((4, 3))):
        for target in (jnp.eye(3)[jnp.array([0, 0, 0, 1])], jnp.full((4, 3), 1 / 3)):
            value, slope = check(logits, target, left_out)
            assert np.isfinite(value) and np.isfinite(slope).all()
    hidden = equalised_loss(logits[:1], jnp.eye(3)[:1], jnp.array([[0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(hidden, np.log(2), rtol=1e-6, err_msg="as if it were not there")


def test_a_single_class_is_refused_and_has_no_loss():
    one = DataStats(np.array([3]), (2, 2, 3), *[HALF] * 6)
    with pytest.raises(ConfigError, match="legal: above 1, the share of the rarest"):
        recipe_of(stats=one, threshold=1.0)
    for left_out in (0.0, 1.0):
        assert not equalised_loss(
            jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.full((2, 1), left_out)
        ).any()


def test_other_losses_are_refused_by_name():
    for other in ("logit_adjustment", "focal", "ldam"):
        with pytest.raises(ConfigError, match=f"methods seql and {other} both set loss"):
            build_recipe(["seql", other], STATS, {"seql": ARGUMENTS})
