"""Operations against PIL, called as torchvision calls it, at every magnitude of every policy."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from purenoise_jax.data.augment import magnitudes as tables
from purenoise_jax.data.augment.levels import to_images, to_levels
from purenoise_jax.data.augment.lookup import auto_contrast_tables
from purenoise_jax.data.augment.magnitudes import Op
from purenoise_jax.data.augment.operations import apply, transform, transform_in_turn
from purenoise_jax.data.pixels import to_float
from purenoise_jax.runtime.errors import DataError
from tests.data.augment import pil_operations as pil
from tests.data.augment.pil_operations import gallery, params

pytestmark = pytest.mark.slow

POLICIES = {
    "autoaugment": tables.AUTOAUGMENT,
    "randaugment": tables.RANDAUGMENT,
    "trivialaugment": tables.TRIVIALAUGMENT,
    "augmix": tables.AUGMIX,
}
SIZED = [(name, (32, 32, 3)) for name in POLICIES]
SIZED += [
    (name, shape) for name in ("autoaugment", "augmix") for shape in ((32, 32, 1), (20, 45, 3))
]


def run(policy: str, images: jax.Array, ops) -> jax.Array:
    levels = apply(to_levels(images), ops, POLICIES[policy], interpolate=policy == "augmix")
    return to_images(levels, images.dtype)


run = jax.jit(run, static_argnums=0)


@pytest.fixture(autouse=True)
def no_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.mark.parametrize(("policy", "shape"), SIZED)
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name.lower())
def test_every_op_at_every_magnitude_equals_pil(policy, op, shape):
    count = POLICIES[policy].levels
    # A third of the images where the magnitudes are three times as many.
    images = gallery(*shape)[:: 3 if count > 10 else 1]
    n = len(images)
    # Both signs of all levels in one batch, to detect parameters applied to another image.
    levels = np.repeat(np.arange(2 * count) // 2, n)
    negative = np.repeat(np.arange(2 * count) % 2 == 1, n)
    tiled = np.tile(images, (2 * count, 1, 1, 1))
    ops = np.full(len(tiled), op)
    result = run(policy, to_float(tiled), params(ops, levels, negative))
    assert result.dtype == jnp.float32 and result.shape == tiled.shape
    result, expected = pil.to_levels(result), pil.pil_apply(policy, tiled, ops, levels, negative)
    if policy == "augmix" and op == Op.ROTATE:
        # At 30 degrees some results are integers, which PIL may compute as slightly less.
        last = levels == count - 1
        difference = result[last].astype(int) - expected[last]
        assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-4
        result, expected = result[~last], expected[~last]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("policy", ["autoaugment", "augmix"])
def test_ops_do_not_depend_on_the_other_images(policy):
    images = gallery()
    rng = np.random.default_rng(1)
    n = 8 * len(images)
    op, level = rng.integers(0, len(Op), n), rng.integers(0, 9, n)
    negative = rng.random(n) < 0.5
    tiled = np.tile(images, (8, 1, 1, 1))
    result = run(policy, to_float(tiled), params(op, level, negative))
    np.testing.assert_array_equal(
        pil.to_levels(result), pil.pil_apply(policy, tiled, op, level, negative)
    )


@pytest.mark.parametrize("policy", ["autoaugment", "trivialaugment"])
def test_blend_equals_pil_for_all_greys(policy):
    # All greys, blended with black and with a mean, which the other half of the image determines.
    grey = np.arange(256, dtype=np.uint8)
    means = np.arange(0, 256, 3 if policy == "autoaugment" else 9, dtype=np.uint8)
    images = np.empty((len(means), 16, 32, 3), np.uint8)
    images[:, :8] = grey.reshape(8, 32, 1)
    images[:, 8:] = means[:, None, None, None]  # the means come out as 64 to 191
    n = len(images)
    for op in (Op.BRIGHTNESS, Op.CONTRAST):
        for level in range(POLICIES[policy].levels):
            for negative in (False, True):
                args = (np.full(n, op), np.full(n, level), np.full(n, negative))
                result = pil.to_levels(run(policy, to_float(images), params(*args)))
                expected = pil.pil_apply(policy, images, *args)
                np.testing.assert_array_equal(result, expected, f"{op} {level}")


def test_autocontrast_equals_pil_for_every_range():
    # Each image has the darkest and the brightest level and all between.
    low, high = np.triu_indices(256)
    levels = np.clip(np.arange(256)[None], low[:, None], high[:, None]).astype(np.uint8)
    tables = jax.jit(auto_contrast_tables)(jnp.asarray(levels, jnp.int32)[..., None])
    result = np.take_along_axis(np.asarray(tables), levels.astype(np.int64), 1)
    scale = np.float64(255) / np.maximum(high - low, 1)[:, None]
    expected = np.int64(levels * scale + -low[:, None] * scale).clip(0, 255)
    expected = np.where((high > low)[:, None], expected, levels)
    np.testing.assert_array_equal(result, expected)
    # The installed version of PIL uses the formula above.
    some = np.random.default_rng(2).choice(len(levels), 300, replace=False)
    for i in some:
        pil = ImageOps.autocontrast(Image.fromarray(levels[i][None]))
        np.testing.assert_array_equal(np.asarray(pil)[0], expected[i])


@pytest.mark.parametrize("policy", ["autoaugment", "augmix"])
def test_images_of_a_few_pixels(policy):
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (1, 5), (2, 3), (3, 3), (4, 2)):
        images = rng.integers(0, 256, (60, *shape, 3)).astype(np.uint8)
        ops = np.resize(list(Op), 60)
        level, negative = rng.integers(0, 9, 60), rng.random(60) < 0.5
        result = run(policy, to_float(images), params(ops, level, negative))
        expected = pil.pil_apply(policy, images, ops, level, negative)
        np.testing.assert_array_equal(pil.to_levels(result), expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_magnitudes_are_those_of_torch(policy):
    for height, width in ((32, 32), (20, 45), (5, 331)):
        for op in Op:
            result = POLICIES[policy].of(op, height, width)
            expected = pil.magnitudes(policy, op, width, height) or [0.0] * len(result)
            assert result.dtype == np.float32
            np.testing.assert_array_equal(result, np.float32(expected), op.name)


def test_two_ops_are_applied_in_their_order():
    images = gallery()
    n = len(images)
    ops = np.repeat([[Op.POSTERIZE], [Op.ROTATE]], n, 1)
    level, negative = np.full((2, n), 9), np.zeros((2, n), bool)
    in_turn = jax.jit(transform_in_turn, static_argnums=2)
    result = in_turn(to_float(images), params(ops, level, negative), tables.AUTOAUGMENT)
    expected = images
    for slot in range(2):
        args = ops[slot], level[slot], negative[slot]
        expected = pil.pil_apply("autoaugment", expected, *args)
    np.testing.assert_array_equal(pil.to_levels(result), expected)


def test_images_without_an_operation_do_not_change():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    identity = params([Op.IDENTITY], [0], [False])

    def both(levels: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = to_float(levels)
        return images, transform(images, identity, tables.AUTOAUGMENT)

    before, after = jax.jit(both)(levels)
    np.testing.assert_array_equal(after, before)


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="shape"):
        transform(jnp.zeros((8, 8, 3)), params([0], [0], [False]), tables.AUTOAUGMENT)
