"""Focal loss: against float64 and optax, its limits, soft targets and certain rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.focal import FORMS
from purenoise_jax.methods.recipe import cross_entropy
from purenoise_jax.runtime.errors import ConfigError
from tests.linear_step import HALF, STATS, data, run, softmax

LOGITS = jnp.asarray(np.random.default_rng(0).normal(0, 3, (6, 3)), jnp.float32)
TARGET = jnp.eye(3)[jnp.array([0, 1, 2, 2, 0, 1])]
SOFT = 0.7 * TARGET + 0.1


def recipe_of(stats=STATS, methods=("focal",), **arguments):
    return build_recipe(methods, stats, {"focal": arguments})


@pytest.mark.parametrize("target", [TARGET, SOFT])
@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.5])
def test_each_class_of_a_target_has_its_own_probability(gamma, target):
    p = softmax(np.asarray(LOGITS, np.float64))
    expected = (np.asarray(target) * (1 - p) ** gamma * -np.log(p)).sum(1)
    np.testing.assert_allclose(recipe_of(gamma=gamma).loss(LOGITS, target), expected, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_sum_of_binary_losses_is_that_of_optax(gamma):
    found = recipe_of(gamma=gamma, form="sigmoid").loss(LOGITS, TARGET)
    expected = optax.losses.sigmoid_focal_loss(LOGITS, TARGET, gamma=gamma).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_gamma_it_is_the_plain_loss_and_so_is_its_gradient():
    def slope(loss, logits):
        return jax.grad(lambda z: loss(z, SOFT).sum())(logits)

    plain = recipe_of(gamma=0.0).loss
    # In float32 the second row's largest probability is 1, but its gradient is not 0.
    for logits in (LOGITS, LOGITS.at[1].set(jnp.array([18.0, 0.0, 0.0])), 1000 * LOGITS):
        np.testing.assert_array_equal(plain(logits, SOFT), cross_entropy(logits, SOFT))
        np.testing.assert_array_equal(slope(plain, logits), slope(cross_entropy, logits))
    np.testing.assert_allclose(
        recipe_of(gamma=0.0, form="sigmoid").loss(LOGITS, SOFT),
        optax.sigmoid_binary_cross_entropy(LOGITS, SOFT).sum(1),
        rtol=1e-5,
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_of_a_mixture_of_targets_is_the_mixture_of_their_losses(form):
    loss, other = recipe_of(gamma=1.5, form=form).loss, jnp.roll(TARGET, 1, axis=0)
    mixed = loss(LOGITS, 0.3 * TARGET + 0.7 * other)
    expected = 0.3 * loss(LOGITS, TARGET) + 0.7 * loss(LOGITS, other)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [0.01, 0.5, 1.0, 5.0])
def test_certain_rows_have_finite_losses_and_gradients(form, gamma):
    loss = recipe_of(gamma=gamma, form=form).loss
    logits = jnp.array([[1e4, 0, -1e4], [17, 0, 0], [0, 0, 0], [1e30, -1e30, 0], [40, 40, 0]])
    check = jax.jit(jax.value_and_grad(lambda z, y: loss(z, y).sum()))
    for target in (jnp.eye(3)[jnp.zeros(5, int)], jnp.eye(3)[jnp.ones(5, int)], SOFT[:5]):
        value, slope = check(logits, target)
        assert np.isfinite(value) and np.isfinite(slope).all()
    if form != "sigmoid":
        slope = check(logits, jnp.eye(3)[jnp.zeros(5, int)])[1]
        assert not slope[0].any(), "certain and right"


def test_a_single_class_has_no_loss():
    one = DataStats(np.array([3]), (2, 2, 3), *[HALF] * 6)
    loss = recipe_of(one, gamma=0.5).loss
    value, slope = jax.value_and_grad(lambda z: loss(z, jnp.ones((2, 1))).sum())(jnp.ones((2, 1)))
    assert value == 0 and not slope.any()


def test_weights_within_the_probability_are_those_of_another_method():
    given = data()
    arguments = {"focal": {"gamma": 2.0, "form": "weighted"}, "reweight": {"power": 0.0}}
    plain = run(recipe_of(gamma=2.0), *given)
    for names in (["focal"], ["focal", "reweight"]):
        recipe = build_recipe(names, STATS, {name: arguments[name] for name in names})
        _, sums, grads = run(recipe, *given)
        np.testing.assert_allclose(grads, plain[2], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(sums.row_loss, plain[1].row_loss, rtol=1e-5)
    with pytest.raises(ConfigError, match="mixup and focal both set objective of a step"):
        build_recipe(["mixup", "focal"], STATS, {"focal": arguments["focal"]})


def test_a_certain_row_with_weights_has_a_finite_gradient():
    images, labels, kernel = data()
    arguments = {"focal": {"gamma": 0.5, "form": "weighted"}}
    recipe = build_recipe(["focal", "drw"], STATS, arguments)
    for scale in (1e4, -1e4):
        certain = np.zeros_like(kernel)
        certain[:, 0] = scale
        _, sums, grads = run(recipe, images, labels, certain)
        assert np.isfinite(sums.row_loss) and np.isfinite(grads).all()
    _, sums, grads = run(recipe, images, labels, kernel, np.zeros(6, bool))
    assert sums.row_loss == 0 and not grads.any()
