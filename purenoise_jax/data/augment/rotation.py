"""Random rotations, as torchvision's `RandomRotation` with its defaults on PIL images.

They take the nearest neighbour, about the centre, without a change of size; black outside the
image. Pixels move and keep their values, so the images need not be 8-bit.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.affine import fixed_point, rotation, source_pixels
from purenoise_jax.data.augment.color import check_images
from purenoise_jax.runtime import rng

ANGLES = 4096


def angles(degrees: float) -> np.ndarray:
    """Returns the angles that are drawn from: f64[ANGLES], evenly spaced in -degrees .. degrees."""
    return degrees * (2 * np.arange(ANGLES) + 1 - ANGLES) / ANGLES


@functools.cache
def _matrices(degrees: float, height: int, width: int) -> np.ndarray:
    """The maps of all angles, i32[ANGLES, 6]; see `affine.fixed_point`."""
    maps = [fixed_point(rotation(angle, height, width)) for angle in angles(degrees).tolist()]
    return np.array(maps, np.int32)


def rotate(images: jax.Array, index: jax.Array, degrees: float) -> jax.Array:
    """Rotates each image by `angles(degrees)[index]`, counter-clockwise.

    Args:
        images: f32[B, H, W, C] in [0, 1] with C = 1 or 3.
        index: i32[B] in [0, ANGLES).
        degrees: largest angle.

    Raises:
        DataError: the images have another shape.
    """
    check_images(images)
    batch, height, width, channels = images.shape
    matrix = jnp.asarray(_matrices(degrees, height, width))[index]
    source, inside = source_pixels(matrix, height, width)
    moved = jnp.take_along_axis(
        images.reshape(batch, -1, channels),
        source.reshape(batch, -1, 1),
        axis=1,
        mode="promise_in_bounds",
    )
    return jnp.where(inside[..., None], moved.reshape(images.shape), 0)


def random_rotation(key: jax.Array, images: jax.Array, *, degrees: float = 15.0) -> jax.Array:
    """Rotates each image by an angle that is uniform on [-degrees, degrees].

    READING: Zada et al. 2022 rotate the images of ImageNet-LT and Places-LT, but give no range, and
    torchvision has no default. 15 degrees leave most objects upright.

    DEVIATION: the angle is one of `ANGLES` in this range, evenly spaced, whose maps are computed in
    double precision beforehand: in single precision, some pixels would come from a neighbour of
    their source.

    Args:
        key: typed scalar PRNG key.
        images: f32[B, H, W, C] in [0, 1] with C = 1 or 3.
        degrees: largest angle, in 0 .. 180.

    Raises:
        DataError: the images have another shape.
    """
    return rotate(images, rng.randint(key, (images.shape[0],), 0, ANGLES), degrees)
