"""Networks of every class: places, masks of the norms, dtypes, heads, initialisers, sizes."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from purenoise_jax.models import HEADS, MODELS, NORMS
from purenoise_jax.models.conv import Conv
from purenoise_jax.models.norm import BatchNorm
from purenoise_jax.models.places import PLACES
from purenoise_jax.runtime.errors import ConfigError
from tests.models.golden_values import QUICK, to_torch
from tests.models.test_network_goldens import (
    NARROW,
    NOISE,
    REAL,
    filled,
    forward,
    images,
    name_of,
)

KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
ROWS = 4
NETWORKS = {case: make for case, (_, make) in NARROW.items()}
NETWORKS |= {name: MODELS[name] for name in ("resnet8", "wrn10_1")}


def trace(network, size=64, rows=ROWS, masks=True, **kwargs):
    """Abstract outputs and variables of a call; nothing is computed."""
    image = jax.ShapeDtypeStruct((rows, size, size, 3), jnp.float32)
    flags = (jax.ShapeDtypeStruct((rows,), bool),) * 2 if masks else ()
    call = partial(network.init_with_output, train=True, **kwargs)
    return jax.eval_shape(call, {"params": KEY, "dropout": KEY}, image, *flags)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_mix_sees_the_places_in_forward_order_and_what_it_returns_goes_on(name):
    network, seen = NETWORKS[name](num_classes=5, norm=BatchNorm), []

    def mix(place, x):
        seen.append((place, x.ndim, x.shape[0]))
        return x[1:]

    rows = 8
    (logits, _), _ = trace(network, masks=False, rows=rows, mix=mix)
    assert seen == [
        (place, 2 if place == "features" else 4, rows - i) for i, place in enumerate(network.places)
    ]
    assert logits.shape[0] == rows - len(network.places)
    assert list(network.places) == [place for place in PLACES if place in network.places]
    assert {"input", "stage1", "stage2", "stage3", "features"} <= set(network.places)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_knows_which_rows_are_noise_and_which_are_padding(name):
    calls = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            calls.append((args, context.module))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        trace(NETWORKS[name](num_classes=5, norm=NORMS["aux_bn"]))
    assert len(calls) > 5
    for (x, noise_mask, valid), layer in calls:
        assert x.shape[0] == noise_mask.shape[0] == valid.shape[0] == ROWS
        assert noise_mask is calls[0][0][1] and valid is calls[0][0][2]
        assert noise_mask is not valid and layer.use_running_average is False


@pytest.mark.every(3)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_bfloat16_network_convolves_in_bfloat16_and_classifies_in_float32(name):
    dtypes = set()

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, Conv) and context.method_name == "__call__":
            dtypes.update({args[0].dtype, output.dtype})
        return output

    norm = partial(NORMS["dar_bn"], dtype=jnp.bfloat16)
    network = NETWORKS[name](num_classes=5, norm=norm, dtype=jnp.bfloat16, head=HEADS["cosine"])
    with nn.intercept_methods(record):
        (logits, outputs), variables = trace(network)
    assert dtypes == {jnp.dtype("bfloat16")}
    assert logits.shape == (ROWS, 5) and outputs["features"].ndim == 2
    assert variables["params"]["head"].keys() == {"kernel"}, "the cosine head has no bias"
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, outputs, variables))} == {
        jnp.dtype("float32")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_padding_rows_change_nothing(name):
    network, variables = filled(name, "dar_bn")

    @partial(jax.jit, compiler_options=QUICK)
    def run(x, noise, valid):
        (logits, _), updated = network.apply(
            variables, x, noise, valid, train=True, mutable=["batch_stats"]
        )
        return logits, updated["batch_stats"]

    x = images(name)
    padded = np.concatenate([x, np.full((2, *x.shape[1:]), 30, np.float32)])
    rows, noise = len(x), np.append(NOISE, [True, False])
    logits, stats = run(padded, noise, np.arange(rows + 2) < rows)
    (expected, _), expected_stats = forward(network, variables, x, NOISE, train=True)
    np.testing.assert_allclose(logits[:rows], expected, rtol=1e-4, atol=1e-4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), stats, expected_stats)


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_bfloat16_logits_are_near_those_of_float32(name):
    network, variables = filled(name, "bn")
    half = network.clone(norm=partial(NORMS["bn"], dtype=jnp.bfloat16), dtype=jnp.bfloat16)
    x = images(name)
    (expected, _), _ = forward(network, variables, x, None, train=False)
    (logits, _), _ = forward(half, variables, x, None, train=False)
    error = np.abs(np.asarray(logits) - np.asarray(expected)).max()
    assert 0 < error < 0.05 * np.abs(expected).max()


# Wide enough for the deviations to be known.
DRAWN = {
    "basic": partial(NETWORKS["basic"], blocks=(1, 1, 1, 1), width=16),
    "grouped": partial(NETWORKS["grouped"], blocks=(1, 1, 1, 1), width=8, group_width=8),
    "dense_cifar": partial(NETWORKS["dense_cifar"], growth=8),
    "few_shot": partial(NETWORKS["few_shot"], widths=(12, 16, 20, 24)),
    "bbn": partial(NETWORKS["bbn"], width=8),
    "wide": NETWORKS["wide"],
}


@pytest.mark.every(5)
@pytest.mark.parametrize("name", DRAWN)
def test_initialisers(name):
    network = DRAWN[name](num_classes=50, norm=BatchNorm)
    init = jax.jit(partial(network.init, train=False), compiler_options=QUICK)
    params = init(KEY, jnp.zeros((1, 16, 16, 3)))["params"]
    of_inputs = name in ("dense_cifar", "bbn", "wide")
    seen = 0
    for path, leaf in flatten_dict(params).items():
        key, value = name_of(network, path), to_torch(np.asarray(leaf))
        if value.ndim == 1 and path[0] != "head":
            np.testing.assert_array_equal(value, 0 if key.endswith("bias") else 1)
        elif path[0] == "head" and (value.ndim == 1 or name != "wide"):
            # PyTorch's default for a linear layer, weights and bias.
            bound = 1 / math.sqrt(params["head"]["fc"]["kernel"].shape[0])
            assert 0.9 * bound < np.abs(value).max() <= bound, key
        else:
            # He et al. 2015, by inputs or by outputs. PyTorch ignores groups for the outputs.
            fan = math.prod(value.shape[1:]) if of_inputs else value[:, 0].size
            expected = math.sqrt(2 / fan)
            assert value.std() == pytest.approx(expected, rel=4 / math.sqrt(2 * value.size)), key
            seen += value.size
            if value.size > 4000:
                # A truncated normal ends at 2.3 of its own standard deviations.
                assert np.abs(value).max() > 3 * expected, key
    assert seen > 10_000


def test_parameter_counts_are_the_published_ones():
    """With 1000 classes; `test_network_goldens.py` compares the networks with these counts."""
    published = {
        "resnet18": 11_689_512,
        "resnet34": 21_797_672,
        "resnet50": 25_557_032,
        "resnet101": 44_549_160,
        "resnet152": 60_192_808,
        "resnext50_32x4d": 25_028_904,
        "densenet121": 7_978_856,
        # MetaOptNet's network, and a classifier.
        "resnet12": 12_424_320 + 640 * 1000 + 1000,
        # ResNet-32 with ten classes, one more block of 64 channels, 990 more classes, and twice the
        # features.
        "resnet32_bbn": 464_154 + 2 * 9 * 64**2 + 4 * 64 + 990 * 65 + 64 * 1000,
    }
    assert published == {name: REAL[name]["parameters"] for name in published}


@pytest.mark.parametrize(
    ("name", "stage", "size"),
    [
        ("resnet18", "stage4", 7),
        ("resnet18_cifar", "stage4", 28),
        ("resnext50_32x4d", "stage1", 56),
        ("resnet12", "stage3", 28),
        ("resnet32_bbn", "stage3", 56),
        # A dense block, before its transition.
        ("dense", "stage1", 56),
    ],
)
def test_sizes_of_maps_for_images_of_224_pixels(name, stage, size):
    sizes = {}

    def mix(place, x):
        sizes[place] = x.shape[1]
        return x

    trace((MODELS | NETWORKS)[name](num_classes=5, norm=BatchNorm), size=224, mix=mix)
    assert sizes[stage] == size


@pytest.mark.parametrize(("name", "size"), [("dense", 29), ("dense_cifar", 8), ("few_shot", 16)])
def test_the_smallest_images_are_classified_and_smaller_ones_refused_in_one_line(name, size):
    network = NETWORKS[name](num_classes=5, norm=BatchNorm)
    trace(network, size=size)
    with pytest.raises(ConfigError, match="the images are too small for this network") as error:
        trace(network, size=size - 1)
    assert "\n" not in str(error.value)
