"""Random rotations against PIL, called as torchvision calls it."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.augment import rotation
from purenoise_jax.data.augment.compose import AUGMENTATIONS, make_augment
from purenoise_jax.data.pixels import to_float
from purenoise_jax.runtime.errors import DataError
from tests.data.augment.pil_operations import gallery, to_levels, to_pil

rotate = jax.jit(rotation.rotate, static_argnums=2)
random_rotation = jax.jit(rotation.random_rotation, static_argnames="degrees")


@pytest.fixture(autouse=True)
def no_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.mark.parametrize("degrees", [0.0, 0.3, 15.0, 90.0, 180.0])
@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 45, 1), (33, 33, 3), (1, 2, 3)])
def test_every_fourth_angle_equals_pil(shape, degrees):
    index = np.arange(0, rotation.ANGLES, 4, dtype=np.int32)
    images = np.random.default_rng(0).integers(0, 256, (len(index), *shape)).astype(np.uint8)
    angles = np.linspace(-degrees, degrees, 2 * rotation.ANGLES + 1)[1::2][index]
    np.testing.assert_allclose(rotation.angles(degrees)[index], angles, rtol=0, atol=1e-12)
    expected = np.empty_like(images)
    for i, (image, angle) in enumerate(zip(images, rotation.angles(degrees)[index], strict=True)):
        turned = to_pil(image).rotate(angle, Image.Resampling.NEAREST, False, None, fillcolor=0)
        expected[i] = np.asarray(turned).reshape(image.shape)
    result = rotate(to_float(images), index, degrees)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(to_levels(result), expected)


def test_large_images_equal_pil():
    index = np.array([0, 5, 2048, 3000, 4095], np.int32)
    images = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3)).astype(np.uint8)
    result = to_levels(rotate(to_float(images), index, 30.0))
    for image, turned, angle in zip(images, result, rotation.angles(30.0)[index], strict=True):
        pil = to_pil(image).rotate(angle, Image.Resampling.NEAREST)
        np.testing.assert_array_equal(turned, np.asarray(pil))


def test_pixels_keep_their_values():
    images = jnp.asarray(np.random.default_rng(1).random((8, 16, 16, 3), np.float32)) / 2 + 0.25
    result = np.asarray(random_rotation(jax.random.key(0), images, degrees=45.0))
    for before, after in zip(np.asarray(images), result, strict=True):
        assert set(after.ravel().tolist()) <= {0.0, *before.ravel().tolist()}


def test_angles_are_uniform():
    n, side, degrees = 4000, 65, 45.0
    y, x = np.mgrid[:side, :side] / side
    ramps = jnp.asarray(np.stack([x, y, 0 * x], -1)[None], jnp.float32)
    out = random_rotation(
        jax.random.key(1), jnp.broadcast_to(ramps, (n, side, side, 3)), degrees=degrees
    )
    # The source of a pixel 28 right of the centre, known to half a pixel, is about a degree wide.
    source = np.asarray(out)[:, 32, 60, :2] * side - 32
    found = np.sort(np.degrees(np.arctan2(source[:, 1], source[:, 0])))
    uniform = (np.arange(n) + 0.5) / n * 2 * degrees - degrees
    assert np.abs(found - uniform).max() < 1.5 + 2 * degrees * 1.95 / np.sqrt(n)


def test_the_config_gives_the_range():
    images, key = to_float(gallery()), jax.random.key(2)
    none = make_augment(("rotation",), rotation_degrees=0)(key, images)
    np.testing.assert_array_equal(none, images)
    some = make_augment(("rotation",), rotation_degrees=30)(key, images)
    assert (np.asarray(some) != images).any((1, 2, 3)).mean() > 0.5
    assert AUGMENTATIONS["rotation"] is rotation.random_rotation


def test_an_image_depends_on_no_other_and_not_on_the_size_of_the_batch():
    images, key = to_float(gallery()), jax.random.key(4)
    out = np.asarray(random_rotation(key, images))
    others = random_rotation(key, jnp.asarray(images)[::-1].at[5].set(images[5]))
    np.testing.assert_array_equal(others[5], out[5])
    np.testing.assert_array_equal(random_rotation(key, images[:7]), out[:7])
    same = np.asarray(random_rotation(key, jnp.broadcast_to(images[:1], images.shape)))
    assert len({row.tobytes() for row in same}) > len(same) / 2


def test_double_precision_mode_draws_the_same():
    images, key = to_float(gallery()), jax.random.key(5)
    single = random_rotation(key, images)
    with jax.enable_x64(True):
        same = random_rotation(key, images)
        assert same.dtype == jnp.float32
    np.testing.assert_array_equal(same, single)


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="shape"):
        rotation.random_rotation(jax.random.key(0), jnp.zeros((2, 8, 8, 4)))
