"""Policies, magnitudes and operations against torchvision (`goldens/make_policy_goldens.py`)."""

import hashlib
import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.augment import augmix, autoaugment, randaugment, trivialaugment
from purenoise_jax.data.augment import magnitudes as tables
from purenoise_jax.data.augment.levels import to_images, to_levels
from purenoise_jax.data.augment.magnitudes import Op
from purenoise_jax.data.augment.operations import apply
from purenoise_jax.data.pixels import to_float
from tests.data.augment import pil_operations as pil
from tests.data.augment.pil_operations import params

GOLDENS = json.loads((Path(__file__).parents[2] / "goldens" / "policies.json").read_text())
NAMES = {
    "Identity": Op.IDENTITY,
    "ShearX": Op.SHEAR_X,
    "ShearY": Op.SHEAR_Y,
    "TranslateX": Op.TRANSLATE_X,
    "TranslateY": Op.TRANSLATE_Y,
    "Rotate": Op.ROTATE,
    "Brightness": Op.BRIGHTNESS,
    "Color": Op.COLOR,
    "Contrast": Op.CONTRAST,
    "Sharpness": Op.SHARPNESS,
    "Posterize": Op.POSTERIZE,
    "Solarize": Op.SOLARIZE,
    "AutoContrast": Op.AUTO_CONTRAST,
    "Equalize": Op.EQUALIZE,
    "Invert": Op.INVERT,
}
SUB_POLICIES = {"cifar10": autoaugment.CIFAR10_POLICY, "imagenet": autoaugment.IMAGENET_POLICY}
MAGNITUDES = {
    "autoaugment": tables.AUTOAUGMENT,
    "randaugment": tables.RANDAUGMENT,
    "trivialaugment": tables.TRIVIALAUGMENT,
    "augmix": tables.AUGMIX,
}
# Those that a policy draws; of AutoAugment's, each policy names its own.
DRAWN = {
    "autoaugment": set(Op) - {Op.IDENTITY},
    "randaugment": set(randaugment.OPS),
    "trivialaugment": set(trivialaugment.OPS),
    "augmix": set(augmix.OPS),
}


def image_of(side: int) -> np.ndarray:
    """The same image as the function `make_image` in the golden script."""
    rng = np.random.default_rng(side)
    first, second = rng.integers(0, 256, (2, side, side, 3))
    return (first * second // np.array([300, 400, 500]) + np.array([6, 20, 40])).astype(np.uint8)


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", SUB_POLICIES)
def test_sub_policies(name):
    expected = tuple(
        tuple((NAMES[op], p, 0 if level is None else level) for op, p, level in pair)
        for pair in GOLDENS["policies"][name]
    )
    assert SUB_POLICIES[name] == expected


@pytest.mark.parametrize("name", MAGNITUDES)
def test_operations_and_their_magnitudes(name):
    space, levels = GOLDENS["spaces"][name], MAGNITUDES[name].levels
    assert {NAMES[op] for op in space} == DRAWN[name]
    for op, entry in space.items():
        for height, width in ((32, 32), (224, 224), (32, 224)):
            expected = entry["magnitudes"]
            if isinstance(expected, dict):
                expected = expected[f"{height}x{width}"]
            # An operation without a magnitude has one entry, which is zero.
            expected = np.resize(np.float32(expected), levels) if len(expected) == 1 else expected
            found = MAGNITUDES[name].of(NAMES[op], height, width)
            np.testing.assert_array_equal(found, np.float32(expected), f"{op} {height}x{width}")


def test_default_arguments():
    def defaults(function):
        return {k: v.default for k, v in inspect.signature(function).parameters.items()}

    given = GOLDENS["defaults"]
    found = defaults(randaugment.randaugment)
    assert found["ops"] == given["randaugment"]["num_ops"]
    assert found["magnitude"] == given["randaugment"]["magnitude"]
    assert defaults(augmix.augmix)["severity"] == given["augmix"]["severity"]
    assert given["augmix"]["mixture_width"] == augmix.CHAINS
    for name in ("randaugment", "trivialaugment"):
        assert MAGNITUDES[name].levels == given[name]["num_magnitude_bins"]
    # As the operations below are tried: black, and only AugMix interpolates.
    assert {name: entry["interpolation"] for name, entry in given.items()} == {
        **dict.fromkeys(MAGNITUDES, "nearest"),
        "augmix": "bilinear",
    }


def applied(name: str, image: np.ndarray, op, level, negative) -> np.ndarray:
    """The results u8[N, H, W, 3] of N operations on one image."""

    @jax.jit
    def run(image, params):
        levels = jnp.repeat(to_levels(image), len(op), axis=1)
        return to_images(
            apply(levels, params, MAGNITUDES[name], interpolate=name == "augmix"), image.dtype
        )

    return pil.to_levels(run(to_float(image[None]), params(op, level, negative)))


@pytest.mark.parametrize("name", MAGNITUDES)
@pytest.mark.parametrize("side", [32, pytest.param(224, marks=pytest.mark.slow)])
def test_operations_on_a_random_image(name, side):
    image = image_of(side)
    assert digest(image) == GOLDENS["images"][str(side)]
    cases = [
        (op, NAMES[op], level, negative, hashes[-1 if negative else 0])
        for op, by_level in GOLDENS["operations"][name][str(side)].items()
        for level, hashes in zip(
            GOLDENS["levels"][name] if len(by_level) > 1 else [0], by_level, strict=True
        )
        # One without a sign has one hash, for both.
        for negative in (False, True)
    ]
    ops, op, level, negative, expected = zip(*cases, strict=True)
    results = applied(name, image, op, level, negative)
    wrong = [
        (op, level, "-" if negative else "+")
        for op, level, negative, wanted, result in zip(
            ops, level, negative, expected, results, strict=True
        )
        if digest(result) != wanted
    ]
    assert not wrong
