"""The models against arrays made with PyTorch (`goldens/make_torch_goldens.py`).

Weights are not stored: both sides generate them from the canonical names of the parameters.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from purenoise_jax.models import create_model
from purenoise_jax.runtime.errors import ConfigError
from tests.models.golden_values import QUICK, from_torch, probe, recipe, to_torch

HERE = Path(__file__).parents[1] / "goldens"
GOLDENS = dict(np.load(HERE / "models.npz"))
ROUTING = json.loads((HERE / "routing.json").read_text())
NAMES = ("resnet32", "wrn10_2")
VARIANTS = ("bn", "aux_bn", "dar_bn/full_stop", "dar_bn/affine_stop", "dar_bn/none")
# ResNet-32 takes 5 s to compile, so two variants are left out whose layers the wide ResNet covers.
# Their stored routing is still checked against the rule.
LEFT_OUT = (("resnet32", "bn"), ("resnet32", "dar_bn/none"))
CASES = [case for case in itertools.product(NAMES, VARIANTS) if case not in LEFT_OUT]
LEAVES = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    # By default accelerators round the inputs of convolutions to fewer bits than the tolerances.
    with jax.default_matmul_precision("highest"):
        yield


def canonical(path: tuple[str, ...]) -> str:
    """Translates the path of a parameter or statistic into its name in the goldens."""
    *modules, leaf = path
    if modules[0] == "head":
        return "fc." + {"kernel": "weight", "bias": "bias"}[leaf]
    name = re.sub(r"^(stage\d)_(block\d)", r"\1.\2", ".".join(modules))
    if leaf == "kernel":
        return name
    prefix = "aux_" if leaf.startswith("aux_") else ""
    return f"{name}.{prefix}{LEAVES[leaf.removeprefix('aux_')]}"


def shapes_of(module: nn.Module) -> Any:
    init = partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 16, 3), "float32"))


@cache
def make(name: str, variant: str) -> tuple[nn.Module, Any]:
    """The model without dropout, and variables filled by the recipe."""
    norm, _, noise_grad = variant.partition("/")
    options = {"noise_grad": noise_grad} if noise_grad else {}
    module = create_model(name, num_classes=10, norm=norm, dtype="float32", **options)
    if hasattr(module, "dropout_rate"):
        module = module.clone(dropout_rate=0.0)
    variables = {}
    for path, leaf in flatten_dict(shapes_of(module)).items():
        torch_shape = to_torch(np.empty(leaf.shape)).shape
        value = from_torch(recipe(canonical(path[1:]), torch_shape))
        assert value.shape == leaf.shape and leaf.dtype == jnp.float32
        variables[path] = jnp.asarray(value)
    return module, unflatten_dict(variables)


@partial(jax.jit, static_argnums=(0,), static_argnames=("train",), compiler_options=QUICK)
def forward(
    module: nn.Module,
    variables: Any,
    images: jax.Array,
    noise: jax.Array | None,
    valid: jax.Array | None = None,
    *,
    train: bool,
) -> tuple[jax.Array, jax.Array, Any]:
    (logits, extra), updated = module.apply(
        variables,
        images,
        noise_mask=noise,
        valid=valid,
        train=train,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    return logits, extra["features"], updated["batch_stats"]


@cache
def grad_function(name: str, variant: str) -> Any:
    """Compiles the gradient of the rows' weighted cross-entropy, by canonical name."""
    module, variables = make(name, variant)

    def loss(params: Any, weights: jax.Array) -> jax.Array:
        (logits, _), _ = module.apply(
            {**variables, "params": params},
            jnp.asarray(GOLDENS["routing_images"]),
            noise_mask=jnp.asarray(GOLDENS["routing_noise"]),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        labels = jnp.asarray(GOLDENS["routing_labels"])
        return (weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels)).sum()

    compiled = jax.jit(jax.grad(loss), compiler_options=QUICK)

    def gradient(weights: np.ndarray) -> dict[str, np.ndarray]:
        tree = compiled(variables["params"], jnp.asarray(weights, jnp.float32))
        return {
            canonical(path): to_torch(np.asarray(leaf)) for path, leaf in flatten_dict(tree).items()
        }

    return gradient


@pytest.mark.parametrize(
    ("name", "mode"),
    # The deeper network, which compiles for long, in one mode of the fast tests.
    [
        pytest.param(n, m, marks=[pytest.mark.slow] * (n == "resnet32" and m != "eval"))
        for n in NAMES
        for m in ("train", "eval", "eval_masked")
    ],
)
def test_forward(name: str, mode: str) -> None:
    module, variables = make(name, "dar_bn/full_stop")
    noise = None if mode == "eval" else jnp.asarray(GOLDENS["noise"])
    logits, features, stats = forward(
        module, variables, jnp.asarray(GOLDENS["images"]), noise, train=mode == "train"
    )
    for key, actual in (("logits", logits), ("features", features)):
        expected = GOLDENS[f"{name}/{mode}/{key}_f64"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(
            actual, GOLDENS[f"{name}/{mode}/{key}"], rtol=0, atol=1e-5 * np.abs(expected).max()
        )
    if mode == "train":
        means = {canonical(path): np.mean(leaf) for path, leaf in flatten_dict(stats).items()}
        names = GOLDENS[f"{name}/stats/names"]
        assert set(means) == set(names)
        np.testing.assert_allclose(
            [means[key] for key in names], GOLDENS[f"{name}/stats/mean"], rtol=2e-5, atol=2e-6
        )
    else:
        jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_gradient(name: str, variant: str) -> None:
    prefix = f"{name}/grad/{variant}"
    gradient = grad_function(name, variant)(np.full(6, 1 / 6))
    names = [str(key) for key in GOLDENS[f"{prefix}/names"]]
    assert set(gradient) == set(names)
    norms = GOLDENS[f"{prefix}/norm_f64"]
    projections = GOLDENS[f"{prefix}/projection_f64"]
    for key, norm, projection in zip(names, norms, projections, strict=True):
        assert np.linalg.norm(gradient[key]) == pytest.approx(norm, rel=1e-4), key
        actual = float((gradient[key] * probe(key, gradient[key].shape)).sum())
        assert actual == pytest.approx(projection, rel=1e-4, abs=5e-4 * norm), key


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("name", "variant"),
    # The deeper network, which compiles for long, in one variant of the fast tests.
    [
        pytest.param(n, v, marks=[pytest.mark.slow] * (n == "resnet32" and "affine" not in v))
        for n, v in CASES
    ],
)
def test_only_these_parameters_learn_from_noise_rows(name: str, variant: str) -> None:
    gradient = grad_function(name, variant)(GOLDENS["routing_noise"])
    reached = {key for key, value in gradient.items() if np.any(value)}
    assert reached == set(ROUTING[name][variant])


@pytest.mark.parametrize("name", NAMES)
def test_routing_follows_the_rule_of_each_norm(name: str) -> None:
    """Checks the stored lists: fc always, convolutions and affine parameters by variant."""
    parameters = flatten_dict(make(name, "aux_bn")[1]["params"])
    everything = {canonical(path) for path in parameters}
    head = {"fc.weight", "fc.bias"}
    aux = {key for key in everything if ".aux_" in key}
    natural = {key.replace(".aux_", ".") for key in aux}
    conv = everything - head - aux - natural
    assert set(ROUTING[name]["bn"]) == head | conv | natural
    assert set(ROUTING[name]["aux_bn"]) == head | conv | aux
    assert set(ROUTING[name]["dar_bn/full_stop"]) == head
    assert set(ROUTING[name]["dar_bn/affine_stop"]) == head | conv
    assert set(ROUTING[name]["dar_bn/none"]) == head | conv | natural


def test_padding_rows_change_nothing() -> None:
    name = "wrn10_2"
    module, variables = make(name, "dar_bn/full_stop")
    images = np.concatenate([GOLDENS["images"], np.full((2, 16, 16, 3), 30, np.float32)])
    noise = np.append(GOLDENS["noise"], [True, False])
    arrays = jax.tree.map(jnp.asarray, (images, noise, np.arange(6) < 4))
    logits, features, stats = forward(module, variables, *arrays, train=True)
    for key, actual in (("logits", logits), ("features", features)):
        expected = GOLDENS[f"{name}/train/{key}"]
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(actual[:4], expected, rtol=0, atol=atol)
    means = {canonical(path): np.mean(leaf) for path, leaf in flatten_dict(stats).items()}
    expected = [means[key] for key in GOLDENS[f"{name}/stats/names"]]
    np.testing.assert_allclose(expected, GOLDENS[f"{name}/stats/mean"], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("norm", ["bn", "dar_bn"])
@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet32", 10, 464_154),
        ("resnet32", 100, 470_004),
        ("wrn28_10", 5, 36_475_989),
        ("wrn28_10", 10, 36_479_194),
        ("wrn28_10", 100, 36_536_884),
    ],
)
def test_parameter_counts(name: str, classes: int, expected: int, norm: str) -> None:
    shapes = shapes_of(create_model(name, num_classes=classes, norm=norm))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == expected


def test_dropout_may_be_chosen_for_networks_that_have_it() -> None:
    rates = [create_model("wrn10_1", num_classes=3, dropout=d).dropout_rate for d in (-1, 0, 0.5)]
    assert rates == [0.3, 0, 0.5]
    assert not hasattr(create_model("resnet8", num_classes=3, dropout=0), "dropout_rate")
    with pytest.raises(ConfigError, match=r"dropout=0\.5 has no effect with model\.name=resnet8"):
        create_model("resnet8", num_classes=3, dropout=0.5)


def test_dropout_rate() -> None:
    assert create_model("wrn28_10", num_classes=10).dropout_rate == 0.3


def block_calls(train: bool) -> dict[str, tuple[Any, Any]]:
    """The (input, output) of every layer of the first block of a wide ResNet, in order."""
    module = create_model("wrn10_1", num_classes=10)
    images = jnp.asarray(GOLDENS["images"])
    variables = jax.jit(partial(module.init, train=False))(jax.random.key(0), images)
    calls = {}

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        path = context.module.path
        if context.method_name == "__call__" and path[:1] == ("stage1_block0",) and len(path) == 2:
            calls[path[1]] = (args[0], output)
        return output

    with nn.intercept_methods(record):
        module.apply(
            variables, images, train=train, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )  # fmt: skip
    return calls


@pytest.mark.slow
def test_dropout_comes_directly_after_the_first_convolution_and_in_training_only() -> None:
    calls = block_calls(train=True)
    assert list(calls) == ["bn1", "conv1", "Dropout_0", "bn2", "conv2"]
    dropout_in, dropped = calls["Dropout_0"]
    assert dropout_in is calls["conv1"][1] and calls["bn2"][0] is dropped
    zero = np.asarray(dropped == 0)
    assert zero.mean() == pytest.approx(0.3, abs=0.02) and not np.any(dropout_in == 0)
    np.testing.assert_allclose(dropped[~zero], np.asarray(dropout_in)[~zero] / 0.7, rtol=1e-6)
    kept_in, kept = block_calls(train=False)["Dropout_0"]
    np.testing.assert_array_equal(kept, kept_in)


@pytest.mark.parametrize("name", NAMES)
def test_initialisers(name: str) -> None:
    module = create_model(name, num_classes=10)
    init = jax.jit(partial(module.init, train=False), compiler_options=QUICK)
    # The default generator takes seconds to compile when there are so many parameters.
    key = jax.random.key(0, impl="rbg")
    params = flatten_dict(init(key, jnp.zeros((1, 16, 16, 3)))["params"])
    for path, leaf in params.items():
        key, value = canonical(path), to_torch(np.asarray(leaf))
        if key == "fc.bias":
            bound = 1 / math.sqrt(64 if name == "resnet32" else 128)
            assert np.any(value) and np.abs(value).max() <= bound
        elif value.ndim == 1:
            np.testing.assert_array_equal(value, 0 if key.endswith("bias") else 1)
        elif key == "fc.weight" and name == "wrn10_2":
            bound = 1 / math.sqrt(value.shape[1])
            assert 0.95 * bound < np.abs(value).max() <= bound
        else:
            # ResNet: fan_in for everything with two or more axes; wide ResNet: fan_out.
            taps = math.prod(value.shape[2:])
            fan = taps * value.shape[1 if name == "resnet32" else 0]
            std = math.sqrt(2 / fan)
            assert value.std() == pytest.approx(std, rel=4 / math.sqrt(2 * value.size)), key
            if value.size > 4000:
                # A truncated normal ends at 2.3 of its own standard deviations.
                assert np.abs(value).max() > 3 * std, key
