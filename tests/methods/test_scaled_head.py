"""Learnable weight scaling and MiSLAS: against numpy, and the scales in stages that do not train them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.models.heads import Linear, Scaled
from tests.headed_step import params_of, train
from tests.linear_step import COUNTS, STATS, data, softmax

IMAGES, LABELS, _ = data(rows=6)
MEAN = 0.2


def features_of(params, images=IMAGES, mean=MEAN):
    return images.reshape(len(images), -1) / 255 * params["body"].astype(float) - mean


def logits_of(params, features):
    head = params["head"]
    fc = {name: np.asarray(array, float) for name, array in head["fc"].items()}
    return (features @ fc["kernel"] + fc["bias"]) * np.asarray(head["class_scale"], float)


def with_scale(*scale):
    params = params_of("scaled")
    params["head"]["class_scale"] = np.asarray(scale, np.float32)
    return params


def test_a_scaled_head_multiplies_the_logits_and_is_the_linear_one_at_first():
    features = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    scaled, linear = (head(3).init(jax.random.key(0), features) for head in (Scaled, Linear))
    first = Scaled(3).apply(scaled, features)
    np.testing.assert_array_equal(first, Linear(3).apply(linear, features))
    params = {**scaled["params"], "class_scale": jnp.array([2.0, -1.0, 0.0])}
    found = Scaled(3).apply({"params": params}, features)
    np.testing.assert_allclose(found, np.asarray(first) * [2, -1, 0], rtol=1e-6)


@pytest.mark.parametrize("methods", [["erm"], ["logit_adjustment", "sam"], ["crt"], ["los"]])
def test_other_methods_neither_train_nor_decay_the_scales(methods):
    params = with_scale(1.0, 2.0, 0.5)
    state, _, grads = train(
        build_recipe(methods, STATS, {}), params, "scaled", steps=2, momentum=0.9, weight_decay=0.1
    )
    np.testing.assert_array_equal(state.params["head"]["class_scale"], [1, 2, 0.5])
    assert not np.asarray(grads["head"]["class_scale"]).any()
    assert not np.asarray(state.opt_state[1].trace["head"]["class_scale"]).any()
    assert (state.params["head"]["fc"]["kernel"] != params["head"]["fc"]["kernel"]).any()


def test_lws_moves_only_the_scales_by_the_gradient_of_cross_entropy():
    params = with_scale(1.0, 2.0, 0.5)
    recipe = build_recipe(["lws"], STATS, {})
    state, _, _ = train(recipe, params, "scaled", lr=0.3, weight_decay=0.1)
    features = features_of(params)
    scale = np.asarray(params["head"]["class_scale"], float)
    unscaled = logits_of(params, features) / scale
    error = (softmax(unscaled * scale) - np.eye(3)[LABELS]) / 6
    expected = scale - 0.3 * ((error * unscaled).sum(axis=0) + 0.1 * scale)
    np.testing.assert_allclose(state.params["head"]["class_scale"], expected, rtol=1e-5)
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(state.params["head"]["fc"][name], params["head"]["fc"][name])
    np.testing.assert_array_equal(state.params["body"], params["body"])
    np.testing.assert_allclose(recipe.class_probs, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("bn", ["frozen", "shifted"])
def test_a_step_of_mislas_against_numpy(bn):
    """Label-aware smoothing as in the authors' loss, and two groups of parameters."""
    params, lr, factor, decay = with_scale(1.5, 1.0, 0.7), 0.4, 0.2, 0.05
    arguments = {"head_smoothing": 0.4, "tail_smoothing": 0.1, "lr_factor": factor, "bn": bn}
    recipe = build_recipe(["mislas"], STATS, {"mislas": arguments})
    state, sums, _ = train(
        recipe, params, "scaled", lr=lr, weight_decay=decay, dropout_rate=0.5, mean=MEAN
    )
    batch_mean = features_of(params, mean=0).mean(axis=0)
    features = features_of(params, mean=MEAN if bn == "frozen" else batch_mean)
    scale = np.asarray(params["head"]["class_scale"], float)
    unscaled = logits_of(params, features) / scale

    rank = (COUNTS - COUNTS.min()) / (COUNTS.max() - COUNTS.min())
    smooth = (0.1 + 0.3 * np.sin(np.pi * rank / 2))[LABELS]
    log_p = np.log(softmax(unscaled * scale))
    rows = -(1 - smooth) * log_p[np.arange(6), LABELS] - smooth * log_p.mean(axis=1)
    np.testing.assert_allclose(sums.row_loss, rows.sum(), rtol=1e-5)

    target = (1 - smooth)[:, None] * np.eye(3)[LABELS] + smooth[:, None] / 3
    error = (np.exp(log_p) - target) / 6
    gradients = {
        "class_scale": (error * unscaled).sum(axis=0),
        "kernel": features.T @ (error * scale),
        "bias": (error * scale).sum(axis=0),
    }
    before = {**params["head"]["fc"], "class_scale": params["head"]["class_scale"]}
    after = {**state.params["head"]["fc"], "class_scale": state.params["head"]["class_scale"]}
    for name, gradient in gradients.items():
        rate = lr if name == "class_scale" else lr * factor
        expected = before[name] - rate * (gradient + decay * before[name].astype(float))
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(state.params["body"], params["body"])
    moved = 0.5 * MEAN + 0.5 * batch_mean if bn == "shifted" else np.full(12, MEAN)
    np.testing.assert_allclose(state.batch_stats["mean"], moved, rtol=1e-5)


def test_without_smoothing_and_with_a_factor_of_zero_mislas_is_lws():
    params = with_scale(1.0, 2.0, 0.5)
    arguments = {"head_smoothing": 0.0, "lr_factor": 0.0}
    ours, _, _ = train(build_recipe(["mislas"], STATS, {"mislas": arguments}), params, "scaled")
    lws, _, _ = train(build_recipe(["lws"], STATS, {}), params, "scaled")
    jax.tree.map(np.testing.assert_array_equal, ours.params, lws.params)


@pytest.mark.parametrize("method", ["lws", "mislas"])
def test_padding_and_extreme_scales_leave_the_step_finite(method):
    images = np.array(IMAGES)
    valid = np.array([True] * 5 + [False])
    recipe = build_recipe([method], STATS, {})
    params = with_scale(1e4, 0.0, -1e4)
    state, sums, grads = train(recipe, params, "scaled", images=images, valid=valid)
    images[5] = 255 - images[5]
    other = train(recipe, params, "scaled", images=images, valid=valid)
    jax.tree.map(np.testing.assert_array_equal, (state.params, grads), (other[0].params, other[2]))
    assert np.isfinite(sums.row_loss)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, grads)))
