"""MFW: weight functions, shares by class, gradients of both rows, and the functions in mixup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.class_balanced_weights import effective_weights
from purenoise_jax.methods.mixing import draw_row_shares
from purenoise_jax.methods.mixing_weights import (
    WEIGHT_FUNCTIONS,
    limits_of,
    optional_limits_of,
    sigmoid_minmax,
)
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from tests.linear_step import STATS, cross_entropy_gradient, data, run, softmax
from tests.mixtures import LABELS, batch_of, outcome_of, partners, recipe_of, shares

LONG_TAIL = long_tail_counts(5000, 10, imbalance_ratio=100)
STEP = np.repeat([5000, 50], 5)


@pytest.mark.parametrize("beta", [0.3, 2.0, 10.0])
def test_weight_functions_against_their_formulas(beta):
    n = LONG_TAIL.astype(float)
    u = (n - (5000 + 50) / 2) / (beta * 4950)
    sigmoid = 1 / (1 + np.exp(-u))
    np.testing.assert_allclose(limits_of("sigmoid", n, beta), 0.5 * sigmoid, rtol=1e-6)
    scaled = 0.5 * (sigmoid - sigmoid[-1]) / (sigmoid[0] - sigmoid[-1])
    np.testing.assert_allclose(limits_of("sigmoid_minmax", n, beta), scaled, rtol=1e-5, atol=1e-7)
    power = 0.5 * ((n - 50) / 4950) ** beta
    np.testing.assert_allclose(limits_of("power_minmax", n, beta), power, rtol=1e-5)
    assert (limits_of("constant", n, beta) == 0.5).all()


@pytest.mark.parametrize("weight_fn", WEIGHT_FUNCTIONS)
@pytest.mark.parametrize("beta", [1e-30, 0.01, 2.0, 1e30])
def test_larger_classes_are_weakened_at_least_as_much(weight_fn, beta):
    for counts in (LONG_TAIL, STEP, np.array([10**9, 1])):
        limits = limits_of(weight_fn, counts, beta)
        assert limits.dtype == np.float32 and (limits >= 0).all() and (limits <= 0.5).all()
        assert (np.diff(limits[np.argsort(counts)]) >= 0).all()


def test_the_scales_of_the_source():
    """For steps the two-class example of the supplement, 1/2 and 0; for long tails a smooth change."""
    np.testing.assert_allclose(limits_of("sigmoid", STEP, 0.01), np.repeat([0.5, 0], 5), atol=1e-6)
    smooth = limits_of("sigmoid", LONG_TAIL, 2.0)
    assert 0 < np.ptp(smooth) < 0.1
    assert np.ptp(smooth) < np.ptp(limits_of("sigmoid", LONG_TAIL, 0.01))


def test_classes_of_one_size_are_weakened_alike():
    for counts in ([7], [7, 7, 7]):
        assert (limits_of("sigmoid", counts, 0.01) == 0.25).all()
        for name in WEIGHT_FUNCTIONS:
            limits = limits_of(name, counts, 2.0)
            assert np.isfinite(limits).all() and np.ptp(limits) == 0


def test_a_large_scale_is_linear_in_the_class_sizes():
    linear = 0.5 * (LONG_TAIL - 50) / 4950
    np.testing.assert_allclose(sigmoid_minmax(LONG_TAIL, 1e30), linear, rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_partners_shares_are_drawn_up_to_the_limit_of_the_class(alpha):
    """For each row alone, from a distribution with mean 1/2 and variance 1 / (8 alpha + 4)."""
    limits = np.array([0.5, 0.2, 0.0], np.float32)
    draw = jax.vmap(lambda key: draw_row_shares(key, jnp.asarray(LABELS), alpha, limits))
    drawn = 1 - np.asarray(jax.jit(draw)(rng.split(rng.root(0), 3000)), np.float64)
    assert not drawn[:, LABELS == 2].any()
    for label in (0, 1):
        ratio = drawn[:, label == LABELS] / limits[label]
        assert ratio.min() > -1e-6 and ratio.max() < 1 + 1e-6
        np.testing.assert_allclose(ratio.mean(axis=0), 0.5, atol=0.03)
        np.testing.assert_allclose(ratio.var(axis=0), 1 / (8 * alpha + 4), rtol=0.1)
        assert np.abs(np.corrcoef(ratio.T) - np.eye(4)).max() < 0.1, "rows are independent"


def test_labels_stay_and_images_of_rare_classes_are_not_weakened():
    recipe = recipe_of("mfw", weight_fn="power_minmax", beta=0.5)
    of_images, of_labels = shares(recipe)
    np.testing.assert_array_equal(of_labels, np.broadcast_to(np.eye(12), of_labels.shape))
    least = np.diagonal(of_images, axis1=1, axis2=2).min(axis=0)
    limits = limits_of("power_minmax", STATS.class_counts, 0.5)
    assert (least[LABELS == 2] == 1).all() and limits[2] == 0
    for label in (0, 1):
        of_class = least[label == LABELS]
        assert (of_class >= 1 - limits[label] - 1e-6).all() and (of_class < 1).all()


def first_step(recipe, labels):
    """Own shares and partners of the first step of a run with seed 0."""
    key = rng.at(rng.stream(0, "objective"), 0)
    of_images, _ = shares(recipe, labels, keys=key[None])
    return np.diagonal(of_images[0]), partners(of_images)[0]


@pytest.mark.parametrize("others", [(), ("drw",)])
def test_a_step_against_numpy(others):
    """As equations 19 and 20 of the supplement: mixed features, and the row's own label."""
    images, labels, kernel = data(rows=7)
    recipe = recipe_of("mfw", *others, stats=STATS)
    own, partner = first_step(recipe, labels)
    features = images.reshape(7, -1) / 255
    mixed = own[:, None] * features + (1 - own)[:, None] * features[partner]
    assert len(set(own)) > 4 and (labels != labels[partner]).any()
    _, sums, grads = run(recipe, images, labels, kernel)
    weights = effective_weights(STATS.class_counts, 0.9999)[labels] if others else np.ones(7)
    expected = cross_entropy_gradient(mixed, labels, kernel, weights)
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)
    assert sums.correct == ((mixed @ kernel).argmax(axis=1) == labels).sum()


def test_the_gradient_reaches_both_rows_of_a_mixture():
    """As equation 16 of the supplement, for all rows of a batch."""
    images, labels, kernel = data(rows=7)
    recipe, key = recipe_of("mfw", stats=STATS), rng.at(rng.stream(0, "objective"), 0)
    own, partner = first_step(recipe, labels)

    def loss(images):
        return outcome_of(recipe, batch_of(images, labels), kernel, key).losses.sum()

    found = jax.jit(jax.grad(loss))(jnp.asarray(images / 255, jnp.float32)).reshape(7, -1)
    z = images.reshape(7, -1) / 255
    error = (
        softmax((own[:, None] * z + (1 - own)[:, None] * z[partner]) @ kernel) - np.eye(3)[labels]
    )
    of_mixture = error @ kernel.T
    expected = own[:, None] * of_mixture
    for row in range(7):
        expected[partner[row]] += (1 - own[row]) * of_mixture[row]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["mixup", "manifold_mixup", "remix"])
def test_mixup_and_remix_with_a_weight_function_mix_images_as_mfw_does(name):
    arguments = {"alpha": 2.0, "beta": 0.5}
    places = {"places": ("features",)} if name == "manifold_mixup" else {}
    recipe = build_recipe([name], STATS, {name: {**arguments, **places, "weight_fn": "sigmoid"}})
    weakened = build_recipe(["mfw"], STATS, {"mfw": {**arguments, "place": "features"}})
    of_images, of_labels = shares(recipe)
    np.testing.assert_allclose(of_images, shares(weakened)[0], atol=1e-6)
    if name == "remix":
        assert (of_labels[:, 0] != of_images[:, 0]).any()
    else:
        np.testing.assert_allclose(of_labels, of_images, atol=1e-6)
    assert optional_limits_of("none", STATS.class_counts, 2.0) is None


def test_a_weight_function_of_a_user(monkeypatch):
    config = default_config()
    config.phases.initial.methods = ("mfw",)
    for name in ("mfw", "mixup", "remix"):
        config.method[name].weight_fn = "mine"
    with pytest.raises(ConfigError, match=r"method\.[a-z]+\.weight_fn='mine' is not legal"):
        validate(config)
    with pytest.raises(ConfigError, match="weight_fn='mine' is unknown"):
        limits_of("mine", LONG_TAIL, 2.0)
    monkeypatch.setitem(WEIGHT_FUNCTIONS, "mine", lambda counts, beta: beta * (counts > 20))
    validate(config)
    recipe = build_recipe(
        ["mfw"], STATS, {"mfw": {"weight_fn": "mine", "beta": 0.25, "alpha": 1e5, "place": "input"}}
    )
    of_images, _ = shares(recipe)
    own = np.diagonal(of_images, axis1=1, axis2=2)
    assert (own[:, LABELS > 0] == 1).all()
    np.testing.assert_allclose(own[:, LABELS == 0].min(), 1 - 0.25 / 2, atol=0.01)
