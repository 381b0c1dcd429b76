"""State dicts of PyTorch, fitted to networks: outputs against PyTorch's, and strict names and shapes."""

import re
from functools import partial

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from purenoise_jax.models import HEADS, NORMS, create_model
from purenoise_jax.models.pretrained import fit, shapes_of
from purenoise_jax.models.projectors import SimCLR
from purenoise_jax.models.torchvision_names import torch_name
from purenoise_jax.runtime.errors import ConfigError
from tests.models.golden_values import probe, recipe, to_torch
from tests.models.test_network_goldens import GOLDENS, NARROW, NOISE, forward, gradient, images

IMPORTED = ("basic", "bottleneck_cifar", "grouped", "dense", "dense_cifar")


def network_of(case, **options):
    return NARROW[case][1](num_classes=7, norm=NORMS["bn"]).clone(**options)


def state_of(case):
    """A state dict: names as PyTorch has them, from the stored file; counters too."""
    network = network_of(case)
    parameters = GOLDENS[f"{case}/bn/grad/names"].tolist()
    statistics = GOLDENS[f"{case}/bn/stats/names"].tolist()
    shapes = {
        torch_name(network, path[1:]): to_torch(np.empty(leaf.shape, bool)).shape
        for path, leaf in flatten_dict(shapes_of(network, (80, 80, 3))).items()
    }
    state = {name: recipe(name, shapes[name]) for name in parameters + statistics}
    counters = {re.sub("running_mean$", "num_batches_tracked", name) for name in statistics}
    return state | {name: np.array(7) for name in counters if name not in state}


def fitted(network, state, size=80):
    return fit(network, shapes_of(network, (size, size, 3)), state, "model.pretrained=x")


def variables_of(found):
    return unflatten_dict({tuple(name.split("/")): array for name, array in found.arrays.items()})


def assert_near(outputs, key):
    for value, part in zip(outputs, ("logits", "features"), strict=True):
        expected = GOLDENS[f"{key}/{part}"]
        assert np.abs(value - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("case", IMPORTED)
def test_features_and_logits_equal_those_of_pytorch(case):
    network = network_of(case)
    found = fitted(network, state_of(case))
    assert found.head == "with its head for 7 classes"
    outputs, _ = forward(network, variables_of(found), images(case), None, train=False)
    assert_near(outputs, f"{case}/eval")


@pytest.mark.slow
@pytest.mark.parametrize("case", IMPORTED)
def test_a_training_step_equals_that_of_pytorch(case):
    """Outputs, statistics after it, and the gradient of every parameter."""
    network = network_of(case)
    variables = variables_of(fitted(network, state_of(case)))
    outputs, stats = forward(network, variables, images(case), NOISE, train=True)
    assert_near(outputs, f"{case}/bn")
    by_name = {torch_name(network, path): leaf for path, leaf in flatten_dict(stats).items()}
    means = [by_name[name].mean() for name in GOLDENS[f"{case}/bn/stats/names"]]
    np.testing.assert_allclose(means, GOLDENS[f"{case}/bn/stats/mean"], rtol=1e-4, atol=1e-5)
    grads = flatten_dict(gradient(network, variables, images(case)))
    grads = {torch_name(network, path): to_torch(np.asarray(g)) for path, g in grads.items()}
    keys = (f"{case}/bn/grad/{part}" for part in ("names", "projection", "norm"))
    names, projections, norms = (GOLDENS[key] for key in keys)
    rounding = 1e-6 * norms.max()
    for name, projection, size in zip(names, projections, norms, strict=True):
        actual = float((grads[name] * probe(name, grads[name].shape)).sum())
        assert actual == pytest.approx(projection, rel=2e-4, abs=5e-4 * size + rounding), name


def test_old_names_of_densenets_are_those_of_today():
    state = state_of("dense")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): array
        for name, array in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert "features.denseblock1.denselayer1.conv.2.weight" in old
    found, expected = (fitted(network_of("dense"), each).arrays for each in (old, state))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnext50_32x4d",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("resnet34", "resnet50", "resnet101", "resnet152", "densenet121")
        ),
    ],
)
def test_every_array_of_a_real_network_has_a_place(name):
    """`test_network_goldens.py` compares the names and shapes themselves with PyTorch's."""
    network = create_model(name, num_classes=1000, norm="dar_bn")
    shapes = shapes_of(network, (64, 64, 3))
    state = {
        torch_name(network, path[1:]): np.broadcast_to(
            np.float16(0.5), to_torch(np.empty(leaf.shape, bool)).shape
        )
        for path, leaf in flatten_dict(shapes).items()
    }
    arrays = fit(network, shapes, state, "x").arrays
    assert {name: array.shape for name, array in arrays.items()} == {
        "/".join(path): leaf.shape for path, leaf in flatten_dict(shapes).items()
    }
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def with_array(name, array):
    return lambda state: {**state, name: array}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layer2.0.downsample.1.running_var"), "the file lacks layer2.0.downsample.1.running_var"),
        (without("fc.bias"), "the file lacks fc.bias"),
        (with_array("layer5.0.conv1.weight", np.ones(1)), "the network lacks layer5.0.conv1.weight"),
        (with_array("conv1.bias", np.ones(4)), "the network lacks conv1.bias"),
        (
            with_array("conv1.weight", np.ones((4, 3, 3, 3))),
            "conv1.weight is [4, 3, 3, 3], and the network has [4, 3, 7, 7]",
        ),
        (with_array("bn1.weight", np.ones(1)), "bn1.weight is [1], and the network has [4]"),
        (with_array("bn1.weight", np.ones((4, 1))), "bn1.weight is [4, 1], and the network has [4]"),
        (with_array("fc.weight", np.ones((7, 8))), "fc.weight is [7, 8], and the network has [7, 32]"),
        (with_array("fc.weight", np.ones((6, 32))), "fc.weight is [6, 32], and the network has [7, 32]"),
        (with_array("bn1.bias", np.ones(4, int)), "bn1.bias holds int64"),
        (lambda state: {}, "the file lacks bn1.bias, bn1.running_mean, bn1.running_var, ..."),
    ],
)  # fmt: skip
def test_names_and_shapes_are_compared_both_ways(change, message):
    with pytest.raises(ConfigError, match=r"^model\.pretrained=x") as error:
        fitted(network_of("basic"), change(state_of("basic")))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_other_networks_are_refused():
    network = create_model("resnet32", num_classes=7)
    with pytest.raises(ConfigError, match="ResNets for large images"):
        fit(network, shapes_of(network, (32, 32, 3)), {}, "model.pretrained=x")


@pytest.mark.parametrize(
    ("options", "head"),
    [
        ({"num_classes": 9}, "the head is drawn anew: 7 classes there, 9 here"),
        ({"head": HEADS["cosine"]}, "the head is drawn anew, because the file has a linear one"),
        ({"head": HEADS["scaled"]}, "with its head for 7 classes"),
        ({"norm": NORMS["aux_bn"]}, "with its head for 7 classes"),
        ({"projector": partial(SimCLR, hidden=3)}, "with its head for 7 classes"),
    ],
)
@pytest.mark.parametrize("case", ["basic", "dense"])
def test_only_parts_that_a_file_never_has_are_left_out(case, options, head):
    plain = fitted(network_of(case), state_of(case)).arrays
    network = network_of(case, **options)
    found = fitted(network, state_of(case))
    assert found.head == head
    heads = {name for name in plain if name.startswith("params/head/")}
    assert found.arrays.keys() == plain.keys() - (heads if "anew" in head else set())
    absent = {"/".join(path) for path in flatten_dict(shapes_of(network, (80, 80, 3)))} - {*plain}
    for name in absent:
        assert re.search("class_scale|/aux_|projector|params/head/kernel", name), name
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(array, plain[name])
