"""MaxNorm: steps and projection against numpy, and its losses in extreme cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.max_norm import LOSSES, projected, radius_of
from tests.headed_step import params_of, train
from tests.linear_step import COUNTS, STATS, data, softmax

IMAGES, *_ = data(rows=6)
# Not all classes alike, so that the weights of the rows do not add up to their number.
LABELS = np.array([0, 0, 0, 1, 1, 2], np.int32)
WEIGHTS = (1 - 0.9999) / (1 - 0.9999**COUNTS)
WEIGHTS = WEIGHTS * 3 / WEIGHTS.sum()


def unequal():
    params = params_of()
    params["head"]["fc"]["kernel"] *= np.float32([2.0, 1.0, 0.5])
    return params


def test_steps_with_weight_decay_and_projection_against_numpy():
    params, lr, decay, momentum = unequal(), 0.3, 0.1, 0.9
    recipe = build_recipe(["maxnorm"], STATS, {})
    state, *_ = train(
        recipe,
        params,
        labels=LABELS,
        steps=3,
        lr=lr,
        momentum=momentum,
        weight_decay=decay,
        dropout_rate=0.5,
    )
    features = IMAGES.reshape(6, -1) / 255 * params["body"].astype(float) - 0.2
    kernel, bias = (np.asarray(params["head"]["fc"][n], float) for n in ("kernel", "bias"))
    lengths = np.linalg.norm(kernel, axis=0)
    radius = lengths.min() + 0.1 * (lengths.max() - lengths.min())
    np.testing.assert_allclose(state.extra["maxnorm"], radius, rtol=1e-6)
    velocity = [0, 0]
    for _ in range(3):
        error = softmax(features @ kernel + bias) - np.eye(3)[LABELS]
        error *= WEIGHTS[LABELS][:, None] / 6
        velocity[0] = momentum * velocity[0] + features.T @ error + decay * kernel
        velocity[1] = momentum * velocity[1] + error.sum(axis=0) + decay * bias
        kernel, bias = kernel - lr * velocity[0], bias - lr * velocity[1]
        lengths = np.linalg.norm(kernel, axis=0)
        kernel = kernel * np.minimum(1, radius / lengths)
    np.testing.assert_allclose(state.params["head"]["fc"]["kernel"], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.params["head"]["fc"]["bias"], bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state.params["body"], params["body"])
    assert recipe.class_probs is None


def test_the_threshold_goes_from_the_shortest_vector_to_the_longest():
    kernel = jnp.asarray(unequal()["head"]["fc"]["kernel"])
    lengths = np.linalg.norm(np.asarray(kernel), axis=0)
    np.testing.assert_allclose(radius_of(kernel, 0.0), lengths.min(), rtol=1e-6)
    np.testing.assert_allclose(radius_of(kernel, 1.0), lengths.max(), rtol=1e-6)
    longest = projected(kernel, jnp.float32(lengths.max() * 1.01))
    np.testing.assert_array_equal(longest, kernel)
    np.testing.assert_array_equal(projected(jnp.zeros((4, 2)), jnp.float32(0)), np.zeros((4, 2)))


@pytest.mark.parametrize("soft", [False, True])
def test_the_binary_loss_against_numpy(soft):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 3, (6, 3)), np.eye(3)[LABELS]
    target = 0.8 * target + 0.2 / 3 if soft else target
    p = softmax(logits)
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(axis=1) / 3
    found = LOSSES["binary"](jnp.asarray(logits, jnp.float32), jnp.asarray(target, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_step_weighs_the_binary_loss_by_class_and_divides_by_rows():
    params = unequal()
    recipe = build_recipe(["maxnorm"], STATS, {"maxnorm": {"loss": "binary"}})
    _, sums, _ = train(recipe, params, labels=LABELS)
    features = IMAGES.reshape(6, -1) / 255 * params["body"].astype(float) - 0.2
    fc = params["head"]["fc"]
    p, target = softmax(features @ fc["kernel"].astype(float) + fc["bias"]), np.eye(3)[LABELS]
    rows = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(axis=1) * WEIGHTS[LABELS]
    np.testing.assert_allclose(sums.row_loss, rows.sum(), rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [1, 3])
def test_extreme_logits_have_a_finite_loss_and_gradient(loss, classes):
    extreme = jnp.array([[0.0, 0, 0], [60, 0, 0], [0, 60, 0], [-1e4, 1e4, 0], [20, 20, 0]])
    logits, target = extreme[:, :classes], jnp.eye(3)[jnp.array([0, 0, 0, 0, 1]) % classes]
    target = target[:, :classes]
    losses, slope = LOSSES[loss](logits, target), jax.grad(
        lambda z: LOSSES[loss](z, target).sum()
    )(logits)  # fmt: skip
    assert np.isfinite(losses).all() and np.isfinite(slope).all()
    assert (np.asarray(losses) >= 0).all()
    if loss == "binary" and classes == 3:
        # Row 2: -log p of the label is 60, and -log(1 - p) of the wrong class too.
        np.testing.assert_allclose(losses[2], (60 + 60 - np.log(2)) / 3, rtol=1e-3)
        np.testing.assert_allclose(losses[3], 200 / 3, rtol=1e-5)
