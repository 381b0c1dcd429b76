"""SAM against optax, its asymmetric readings against numpy, and the limit rho = 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from purenoise_jax.methods import build_recipe
from tests.linear_step import COUNTS, STATS, cross_entropy_gradient, data, run


def test_without_an_ascent_step_it_is_the_plain_gradient():
    plain = run(build_recipe(["erm"], STATS, {}), *data())
    ours = run(build_recipe(["sam"], STATS, {"sam": {"rho": 0.0}}), *data())
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_a_step_equals_that_of_optax():
    images, labels, kernel = data()
    features, target = jnp.asarray(images.reshape(6, -1) / 255, jnp.float32), jnp.eye(3)[labels]

    def loss(params):
        return optax.softmax_cross_entropy(features @ params, target).mean()

    rho, lr = 0.3, 0.5
    adversary = optax.chain(contrib.normalize(), optax.sgd(rho))
    theirs = contrib.sam(optax.sgd(lr), adversary, opaque_mode=True)
    params = jnp.asarray(kernel)
    update, _ = theirs.update(
        jax.grad(loss)(params), theirs.init(params), params, grad_fn=lambda p, _: jax.grad(loss)(p)
    )
    state, _, _ = run(
        build_recipe(["sam"], STATS, {"sam": {"rho": rho}}), images, labels, kernel, lr=lr
    )
    np.testing.assert_allclose(
        state.params["head"]["kernel"], params + update, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("asymmetry", ["weighted_ascent", "one_minus_share", "inverse_share"])
def test_asymmetric_ascent_against_numpy(asymmetry):
    images, labels, kernel = data(rows=7)
    valid = np.arange(7) < 6
    features, labels_in = images[valid].reshape(6, -1) / 255, labels[valid]
    share = COUNTS / COUNTS.sum()
    of_class = {
        "weighted_ascent": COUNTS.max() / COUNTS,
        "one_minus_share": 1 / (1 - share),
        "inverse_share": share.max() / share,
    }[asymmetry]
    weights, ones, rho = of_class[labels_in], np.ones(6), 0.4
    plain = cross_entropy_gradient(features, labels_in, kernel, ones)
    up = cross_entropy_gradient(features, labels_in, kernel, weights)
    if asymmetry == "weighted_ascent":
        move = rho * up / np.linalg.norm(up)
    else:
        # The ascent scales each row's part of the plain gradient by rho_c / rho and divides by the
        # norm of the plain gradient.
        move = rho * up * weights.mean() / np.linalg.norm(plain)
    expected = cross_entropy_gradient(features, labels_in, kernel + move, ones)
    recipe = build_recipe(["sam"], STATS, {"sam": {"rho": rho, "asymmetry": asymmetry}})
    _, _, grads = run(recipe, images, labels, kernel, valid)
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)
    _, _, symmetric = run(
        build_recipe(["sam"], STATS, {"sam": {"rho": rho}}), images, labels, kernel, valid
    )
    assert np.abs(grads - symmetric).max() > 1e-4


def test_a_batch_of_only_padding_has_a_zero_gradient():
    images, labels, kernel = data()
    for asymmetry in ("none", "weighted_ascent", "inverse_share"):
        recipe = build_recipe(["sam"], STATS, {"sam": {"asymmetry": asymmetry}})
        _, _, grads = run(recipe, images, labels, kernel, np.zeros(6, bool))
        assert not grads.any()
