"""Flips, crops and Cutout of small images.

All functions take and return images f32[B, H, W, C] in [0, 1] with C = 1 or 3, and raise
`DataError` for another shape. Keys are typed scalar PRNG keys.
"""

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.color import check_images, per_image
from purenoise_jax.runtime import rng


def flip(images: jax.Array, do_flip: jax.Array) -> jax.Array:
    """Mirrors the images left to right where `do_flip`, bool[B], is True."""
    check_images(images)
    return jnp.where(per_image(do_flip), images[:, :, ::-1], images)


def crop(images: jax.Array, top: jax.Array, left: jax.Array, padding: int = 4) -> jax.Array:
    """Pads each image with black and cuts a window of the old size out of it.

    Args:
        images: the batch.
        top: i32[B] in [0, 2 * padding], first row of the window; `padding` is the identity.
        left: i32[B] in [0, 2 * padding], first column of the window.
        padding: pixels added on each of the four sides.
    """
    check_images(images)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def window(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (y, x, jnp.zeros_like(y)), images.shape[1:])

    return jax.vmap(window)(padded, top, left)


def cutout(
    images: jax.Array, center_y: jax.Array, center_x: jax.Array, size: int = 16
) -> jax.Array:
    """Blackens a square in each image (DeVries and Taylor 2017).

    The square is [center - size // 2, center + size // 2) on both axes, clipped at the borders:
    near a border it is smaller, and an odd `size` acts as `size - 1`.

    Args:
        images: the batch.
        center_y: i32[B] in [0, H).
        center_x: i32[B] in [0, W).
        size: side of the square in pixels.
    """
    check_images(images)

    def inside(length: int, center: jax.Array) -> jax.Array:
        offset = jnp.arange(length, dtype=jnp.int32)[None, :] - center[:, None]
        return (offset >= -(size // 2)) & (offset < size // 2)

    rows = inside(images.shape[1], center_y)[:, :, None, None]
    columns = inside(images.shape[2], center_x)[:, None, :, None]
    return jnp.where(rows & columns, 0, images)


def random_flip(key: jax.Array, images: jax.Array, *, p: float = 0.5) -> jax.Array:
    """Mirrors each image left to right with probability `p`."""
    return flip(images, rng.uniform(key, (images.shape[0],)) < p)


def random_crop(key: jax.Array, images: jax.Array, *, padding: int = 4) -> jax.Array:
    """Shifts each image by up to `padding` pixels on both axes and fills with black.

    All (2 * padding + 1) squared windows are equally likely.
    """
    top, left = rng.randint(key, (2, images.shape[0]), 0, 2 * padding + 1)
    return crop(images, top, left, padding)


def random_cutout(key: jax.Array, images: jax.Array, *, size: int = 16) -> jax.Array:
    """Blackens a square, see `cutout`, whose centre is uniform over all pixels of the image."""
    check_images(images)
    batch, height, width, _ = images.shape
    key_y, key_x = rng.split(key)
    center_y = rng.randint(key_y, (batch,), 0, height)
    center_x = rng.randint(key_x, (batch,), 0, width)
    return cutout(images, center_y, center_x, size)
