"""SimCLR: NT-Xent against PyTorch, by hand in its limits, and the rows that count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.simclr import nt_xent
from tests.linear_step import STATS
from tests.methods.test_joint_ssl import ALL, GOLDEN, TWO, projections
from tests.two_views import draw_batch, draw_params, loss_and_grads


def value_and_grads(first, second, natural=ALL, temperature=0.3):
    loss = jax.value_and_grad(nt_xent, (0, 1))
    return loss(first, second, natural, temperature)


def test_the_loss_and_its_gradient_against_pytorch():
    value, grads = value_and_grads(*TWO)
    np.testing.assert_allclose(value, GOLDEN["nt_xent/loss"], rtol=1e-5)
    for name, grad in zip(("first", "second"), grads, strict=True):
        np.testing.assert_allclose(grad, GOLDEN[f"nt_xent/{name}"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 10.0])
def test_the_loss_of_orthogonal_equal_and_single_images(temperature):
    eye = jnp.eye(4)
    found = nt_xent(eye, eye, ALL[:4], temperature)
    np.testing.assert_allclose(found, np.log(1 + 6 * np.exp(-1 / temperature)), atol=1e-6)
    # No view is nearer than another: a guess among all others.
    same = jnp.ones((6, 4))
    np.testing.assert_allclose(nt_xent(same, same, ALL, temperature), np.log(11), rtol=1e-5)
    assert abs(nt_xent(eye[:1], 2 * eye[:1], ALL[:1], temperature)) < 1e-5, "there is no other"


def test_lengths_of_projections_do_not_count_and_zero_has_a_finite_gradient():
    scale = jnp.array([0.1, 1, 5, 20, 3, 1e3])[:, None]
    np.testing.assert_allclose(
        value_and_grads(*TWO)[0], value_and_grads(scale * TWO[0], TWO[1])[0], rtol=1e-5
    )
    for zero in (jnp.zeros((6, 5)), TWO[0].at[0].set(0)):
        value, grads = value_and_grads(zero, TWO[1])
        assert np.isfinite(value) and all(np.isfinite(grad).all() for grad in grads)


def test_rows_that_do_not_count_have_no_effect_whatever_they_hold():
    natural = np.array([1, 0, 1, 1, 0, 1], bool)
    expected, few = value_and_grads(*(x[natural] for x in TWO), natural[natural])
    for fill in (7.0, np.nan):
        filled = [jnp.where(natural[:, None], x, fill) for x in TWO]
        value, grads = value_and_grads(*filled, jnp.asarray(natural))
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for grad, of_few in zip(grads, few, strict=True):
            np.testing.assert_allclose(grad[natural], of_few, rtol=1e-4, atol=1e-6)
            assert (grad[~natural] == 0).all()
    value, grads = value_and_grads(*TWO, jnp.zeros(6, bool))
    assert value == 0 and all((grad == 0).all() for grad in grads)


def test_a_step_adds_it_to_the_loss_of_the_first_views():
    params, batch = draw_params(), draw_batch()
    plain, _ = loss_and_grads(build_recipe(["erm"], STATS, {}), params, batch)
    arguments = {"simclr": {"temperature": 0.2, "supervised_weight": 0.5}}
    recipe = build_recipe(["simclr"], STATS, arguments)
    value, _ = loss_and_grads(recipe, params, batch)
    expected = 0.5 * plain + nt_xent(*projections(params, batch), ALL, 0.2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert recipe.views == 2 and recipe.requires == {"projector": "simclr"}
