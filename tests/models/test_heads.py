"""Classifier heads: float32 after any network, cosines against numpy, a causal head against PyTorch."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenoise_jax.models import create_model
from purenoise_jax.models.heads import COSINE_SCALE, Causal, Cosine, Linear, ScaledCosine
from purenoise_jax.models.norm import DARBatchNorm
from purenoise_jax.models.one_block import TinyNet

CLASSES, ROWS = 100, 512
IMAGES = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, CLASSES, ROWS)
NETWORKS = {
    "resnet8": create_model("resnet8", num_classes=CLASSES, dtype="bfloat16"),
    "wrn10_1": create_model("wrn10_1", num_classes=CLASSES, dtype="bfloat16"),
    "one_block": TinyNet(
        num_classes=CLASSES, norm=partial(DARBatchNorm, dtype=jnp.bfloat16), dtype=jnp.bfloat16
    ),
}


@pytest.mark.every(3)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_of_a_bfloat16_network_computes_in_float32(name):
    model = NETWORKS[name]
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), IMAGES[:1])

    @jax.jit
    def run(params):
        def loss(params):
            logits, outputs = model.apply({**variables, "params": params}, IMAGES, train=False)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
            return losses.sum(), (logits, outputs["features"])

        return jax.grad(loss, has_aux=True)(params)

    grads, (logits, features) = run(variables["params"])
    assert logits.dtype == features.dtype == jnp.float32
    head, head_grads = (tree["head"] for tree in (variables["params"], grads))
    head, head_grads = head.get("fc", head), head_grads.get("fc", head_grads)
    kernel, bias = (np.asarray(head[name], np.float64) for name in ("kernel", "bias"))
    exact = np.asarray(features, np.float64) @ kernel + bias
    # In bfloat16 the relative error would be up to 2^-9.
    np.testing.assert_allclose(logits, exact, rtol=0, atol=1e-6 * np.abs(exact).max())
    # There are no ties, which argmax would give to the smaller index; bfloat16 has many here.
    first, second = np.sort(np.asarray(logits), axis=-1)[:, -1:-3:-1].T
    np.testing.assert_array_equal(logits.argmax(-1), exact.argmax(-1))
    assert not (first == second).any()
    rounded = np.sort(np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float32), axis=-1)
    assert (rounded[:, -1] == rounded[:, -2]).sum() > 2, "otherwise the test shows nothing"
    probs = np.exp(exact - exact.max(-1, keepdims=True))
    error = probs / probs.sum(-1, keepdims=True) - np.eye(CLASSES)[LABELS]
    for name, found, wanted in (
        ("bias", head_grads["bias"], error.sum(0)),
        ("kernel", head_grads["kernel"], np.asarray(features, np.float64).T @ error),
    ):
        assert found.dtype == jnp.float32
        bound = 1e-5 * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=bound, err_msg=name)


def test_features_in_bfloat16_are_widened_before_the_product():
    features = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(jnp.bfloat16)
    head = Linear(CLASSES)
    variables = head.init(jax.random.key(0), features)
    wide = features.astype(np.float32)
    logits = head.apply(variables, features)
    np.testing.assert_array_equal(logits, head.apply(variables, wide))


def test_logits_of_float64_features_are_float64():
    with jax.enable_x64(True):
        features = np.ones((2, 3))
        head = Linear(4)
        variables = head.init(jax.random.key(0), features)
        assert head.apply(variables, features).dtype == jnp.float64


def test_cosines_against_numpy():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(5, 7)).astype(np.float32)
    head = Cosine(CLASSES)
    variables = head.init(jax.random.key(0), features)
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-6)
    longer = {"params": {"kernel": jnp.asarray(3 * kernel, jnp.float32)}}
    wide = features.astype(np.float64)
    expected = (wide @ kernel) / np.linalg.norm(wide, axis=1)[:, None]
    for given in (variables, longer):
        np.testing.assert_allclose(head.apply(given, features), expected, rtol=1e-5, atol=1e-6)
    assert head.apply(variables, jnp.asarray(features, jnp.bfloat16)).dtype == jnp.float32


def test_zero_features_have_cosine_zero_and_gradient_zero():
    head, features = Cosine(CLASSES), jnp.zeros((2, 7)).at[1].set(1.0)
    variables = head.init(jax.random.key(0), features)
    assert not head.apply(variables, features)[0].any()
    slope = jax.grad(lambda x: head.apply(variables, x).sum())(features)
    assert not slope[0].any() and np.isfinite(slope).all()


LOSSES = dict(np.load(Path(__file__).parents[1] / "goldens" / "losses.npz"))
GOLDENS, OF_COSINES = (
    {name.removeprefix(part): value for name, value in LOSSES.items() if name.startswith(part)}
    for part in ("head/", "cosine/")
)


def test_scaled_cosines_and_their_gradients_against_pytorch():
    features, kernel, labels = (OF_COSINES[name] for name in ("features", "kernel", "labels"))
    head = ScaledCosine(4)
    first = head.init(jax.random.key(0), jnp.float32(features))["params"]
    assert first[COSINE_SCALE] == 10 and first[COSINE_SCALE].shape == ()

    def loss(x, params):
        logits = head.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    params = {**first, "kernel": jnp.float32(kernel)}
    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (by_x, by_params), logits = gradient(jnp.float32(features), params)
    np.testing.assert_allclose(logits, OF_COSINES["logits"], rtol=1e-5, atol=1e-5)
    for name, found in (
        ("features_grad", by_x),
        ("kernel_grad", by_params["kernel"]),
        ("scale_grad", by_params[COSINE_SCALE]),
    ):
        np.testing.assert_allclose(found, OF_COSINES[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("head", "least"), [(Cosine, 4.9141), (ScaledCosine, 0.0)])
def test_the_least_loss_that_a_head_of_cosines_reaches_with_a_thousand_classes(head, least):
    """The cosine of the label is 1, and that of each other class is -1."""
    params = {"kernel": jnp.full((1, 1000), -1.0).at[0, 0].set(1.0)}
    params |= {COSINE_SCALE: jnp.float32(10)} if head is ScaledCosine else {}
    logits = head(1000).apply({"params": params}, jnp.ones((1, 1)))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.zeros(1, int))
    np.testing.assert_allclose(loss, least, atol=1e-4)


def causal(kernel, mean=None, alpha=0.0):
    variables = {"params": {"kernel": jnp.float32(kernel)}}
    if mean is None:
        return variables
    return {**variables, "effect": {"mean_feature": jnp.float32(mean), "alpha": alpha}}


def test_a_causal_head_and_its_gradients_against_pytorch():
    head, features, kernel = Causal(4), *map(jnp.float32, (GOLDENS["features"], GOLDENS["kernel"]))

    def loss(x, w):
        logits = head.apply(causal(w), x)
        return (logits * jnp.float32(GOLDENS["probe"])).sum(), logits

    (by_x, by_w), logits = jax.grad(loss, (0, 1), has_aux=True)(features, kernel)
    np.testing.assert_allclose(logits, GOLDENS["logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_x, GOLDENS["features_grad"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_w, GOLDENS["kernel_grad"], rtol=1e-4, atol=1e-5)
    found = head.apply(causal(kernel, 7 * GOLDENS["mean"], alpha=1.5), features)
    np.testing.assert_allclose(found, GOLDENS["effect"], rtol=1e-5, atol=1e-5)


def test_a_causal_head_starts_as_the_authors_and_without_an_effect():
    features = np.random.default_rng(0).normal(size=(2, 64)).astype(jnp.bfloat16)
    head = Causal(1000)
    variables = head.init(jax.random.key(0), features)
    kernel = np.asarray(variables["params"]["kernel"])
    assert kernel.shape == (64, 1000) and 0.124 < np.abs(kernel).max() <= 0.125
    assert set(variables) == {"params"}
    logits = head.apply(variables, features)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, head.apply(variables, features.astype(np.float32)))


def test_no_part_of_the_direction_or_no_direction_leaves_the_logits():
    features, kernel = GOLDENS["features"].astype(np.float32), GOLDENS["kernel"]
    plain = Causal(4).apply(causal(kernel), features)
    for mean, alpha in ((GOLDENS["mean"], 0.0), (np.zeros(6), 1.5)):
        found = Causal(4).apply(causal(kernel, mean, alpha), features)
        np.testing.assert_array_equal(found, plain)


def test_nothing_is_left_of_the_mean_feature_itself():
    """An image with the mean feature has, with alpha = 1, the same logits for all classes."""
    kernel = np.random.default_rng(0).normal(size=(6, 4))
    mean = np.arange(1.0, 7)
    found = Causal(4).apply(causal(kernel, mean, alpha=1.0), jnp.float32(3 * mean)[None])
    np.testing.assert_allclose(found, 0, atol=1e-5)


@pytest.mark.slow
def test_zero_features_and_zero_weights_have_finite_gradients_in_a_causal_head():
    def total(x, w):
        return Causal(3).apply(causal(w, np.ones(4), alpha=1.0), x).sum()

    x, w = jnp.zeros((2, 4)).at[1].set(1.0), jnp.ones((4, 3)).at[:, 0].set(0.0)
    assert total(x[:1], w) == 0
    assert all(np.isfinite(slope).all() for slope in jax.grad(total, (0, 1))(x, w))
