"""Narrow networks and the names of the real ones, against `goldens/make_network_goldens.py`.

One of them is that of `goldens/make_basic_cifar_goldens.py`, which makes it in the same way.

The narrow networks run the code of the real ones, which would take long to compile.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from purenoise_jax.models import NORMS, create_model
from purenoise_jax.models.densenet import DenseNet
from purenoise_jax.models.resnet import ResNet
from purenoise_jax.models.resnet12 import ResNet12
from purenoise_jax.models.resnet_cifar import BBNResNetCifar, ResNetCifar
from purenoise_jax.models.torchvision_names import torch_name
from tests.models.golden_values import QUICK, from_torch, probe, recipe, to_torch

HERE = Path(__file__).parents[1] / "goldens"
GOLDENS = {**np.load(HERE / "networks.npz"), **np.load(HERE / "basic_cifar.npz")}
REAL = json.loads((HERE / "networks.json").read_text())
NOISE = GOLDENS["noise"]
# With the size of the images, as in the golden script.
NARROW = {
    "basic": (40, partial(ResNet, blocks=(2, 1, 1, 1), width=4)),
    "bottleneck_cifar": (
        15,
        partial(ResNet, blocks=(2, 1, 1, 1), bottleneck=True, width=4, small_images=True),
    ),
    "grouped": (
        40,
        partial(ResNet, blocks=(1, 2, 1, 1), bottleneck=True, width=4, groups=2, group_width=4),
    ),
    "dense": (72, partial(DenseNet, blocks=(2, 1, 2, 1), growth=4)),
    "dense_cifar": (17, partial(DenseNet, blocks=(1, 2, 1, 1), growth=4, small_images=True)),
    "few_shot": (35, partial(ResNet12, widths=(4, 6, 8, 10))),
    "bbn": (15, partial(BBNResNetCifar, depth=14, width=4)),
    "wide": (15, partial(ResNetCifar, depth=8, width=12)),
    "basic_cifar": (15, partial(ResNet, blocks=(2, 1, 1, 1), width=4, small_images=True)),
}


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    # By default accelerators round the inputs of convolutions to fewer bits than the tolerances.
    with jax.default_matmul_precision("highest"):
        yield


def images(case: str) -> np.ndarray:
    """The same values as the function of this name in the golden script."""
    size, seed = NARROW[case][0], zlib.crc32(f"images:{case}".encode())
    normal = np.random.RandomState(seed).standard_normal((len(NOISE), size, size, 3))
    normal[NOISE] *= 2
    return normal.astype(np.float32)


def name_of(network: nn.Module, path: tuple[str, ...]) -> str:
    return torch_name(network, path)


def shapes_of(network: nn.Module, size: int) -> dict[tuple[str, ...], Any]:
    init = partial(network.init, train=False)
    image = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
    return flatten_dict(jax.eval_shape(init, jax.random.key(0), image))


def filled(case: str, norm: str) -> tuple[nn.Module, Any]:
    """The network, and variables filled by the recipe."""
    size, make = NARROW[case]
    network = make(num_classes=7, norm=NORMS[norm])
    variables = {}
    for path, leaf in shapes_of(network, size).items():
        shape = to_torch(np.empty(leaf.shape)).shape
        variables[path] = jnp.asarray(from_torch(recipe(name_of(network, path[1:]), shape)))
        assert variables[path].shape == leaf.shape and leaf.dtype == jnp.float32
    return network, unflatten_dict(variables)


@partial(jax.jit, static_argnums=(0,), static_argnames=("train",), compiler_options=QUICK)
def forward(
    network: nn.Module, variables: Any, x: jax.Array, noise: jax.Array | None, *, train: bool
) -> tuple[Any, Any]:
    (logits, extra), updated = network.apply(
        variables, x, noise, train=train, mutable=["batch_stats"]
    )
    return (logits, extra["features"]), updated["batch_stats"]


@partial(jax.jit, static_argnums=(0,), compiler_options=QUICK)
def gradient(network: nn.Module, variables: Any, x: jax.Array) -> Any:
    def loss(params):
        (logits, _), _ = network.apply(
            {**variables, "params": params}, x, NOISE, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, GOLDENS["labels"])
        return losses.mean()

    return jax.grad(loss)(variables["params"])


def by_name(network: nn.Module, tree: Any) -> dict[str, np.ndarray]:
    """The leaves in PyTorch's layout and by PyTorch's names."""
    return {
        name_of(network, path): to_torch(np.asarray(leaf))
        for path, leaf in flatten_dict(tree).items()
    }


def assert_outputs_equal_golden(outputs: Any, key: str) -> None:
    for value, part in zip(outputs, ("logits", "features"), strict=True):
        expected = GOLDENS[f"{key}/{part}"]
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def assert_training_pass_equals_golden(case: str, norm: str) -> None:
    network, variables = filled(case, norm)
    outputs, stats = forward(network, variables, images(case), NOISE, train=True)
    assert_outputs_equal_golden(outputs, f"{case}/{norm}")
    stats, names = by_name(network, stats), GOLDENS[f"{case}/{norm}/stats/names"]
    assert set(stats) == set(names)
    means = [stats[name].mean() for name in names]
    np.testing.assert_allclose(means, GOLDENS[f"{case}/{norm}/stats/mean"], rtol=2e-5, atol=2e-6)


@pytest.mark.every(3)
@pytest.mark.parametrize("case", NARROW)
def test_evaluation_equals_pytorch(case: str) -> None:
    network, variables = filled(case, "dar_bn")
    outputs, stats = forward(network, variables, images(case), None, train=False)
    assert_outputs_equal_golden(outputs, f"{case}/eval")
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


@pytest.mark.slow
@pytest.mark.parametrize("case", NARROW)
def test_a_training_pass_equals_pytorch(case: str) -> None:
    assert_training_pass_equals_golden(case, "dar_bn")


@pytest.mark.slow
@pytest.mark.parametrize("case", NARROW)
def test_evaluation_of_noise_equals_pytorch(case: str) -> None:
    network, variables = filled(case, "dar_bn")
    outputs, _ = forward(network, variables, images(case), NOISE, train=False)
    assert_outputs_equal_golden(outputs, f"{case}/eval_masked")


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["bn", "aux_bn"])
@pytest.mark.parametrize("case", NARROW)
def test_a_training_pass_with_another_norm_equals_pytorch(case: str, norm: str) -> None:
    assert_training_pass_equals_golden(case, norm)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("case", NARROW)
def test_gradients_equal_those_of_pytorch(case: str, norm: str) -> None:
    network, variables = filled(case, norm)
    grads = by_name(network, gradient(network, variables, images(case)))
    names, projections, norms = (
        GOLDENS[f"{case}/{norm}/grad/{part}"] for part in ("names", "projection", "norm")
    )
    assert set(grads) == set(names)
    # Some gradients are what is left of larger terms that cancel, with the rounding of these.
    rounding = 1e-6 * norms.max()
    for name, projection, size in zip(names, projections, norms, strict=True):
        assert np.linalg.norm(grads[name]) == pytest.approx(size, rel=2e-4, abs=rounding), name
        actual = float((grads[name] * probe(name, grads[name].shape)).sum())
        assert actual == pytest.approx(projection, rel=2e-4, abs=5e-4 * size + rounding), name


@pytest.mark.every(3)
@pytest.mark.parametrize("name", REAL)
def test_real_networks_have_the_variables_of_pytorch(name: str) -> None:
    """Compares all names and shapes, so that weights made with PyTorch can be read."""
    network = create_model(name, num_classes=1000, norm="bn")
    lines, parameters = [], 0
    for path, leaf in shapes_of(network, 64).items():
        shape = to_torch(np.empty(leaf.shape, bool)).shape
        lines.append(f"{name_of(network, path[1:])} {shape}")
        parameters += leaf.size if path[0] == "params" else 0
    assert parameters == REAL[name]["parameters"]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    assert digest == REAL[name]["states"]
