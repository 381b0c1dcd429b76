"""Random resized crops, as torchvision's `RandomResizedCrop` with its defaults on PIL images.

A window of random area and aspect ratio is cut out and resized bilinearly to the size of the
images. The window is never larger than the image, so PIL's filter, which removes high frequencies
where an image shrinks, is plain bilinear interpolation. The arithmetic is PIL's on 8-bit levels, to
the last bit: first along rows, rounded to levels, then along columns.

DEVIATION: all images of a source have been resized to one size before, so a window is cut from a
resized image, not from the original.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.color import check_images
from purenoise_jax.data.augment.levels import pack, to_images, to_levels
from purenoise_jax.runtime import rng

TRIES = 10
WEIGHT_BITS = 22


class Windows(NamedTuple):
    """One window per image, in pixels; arrays i32[B]."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array


def resized_crop(images: jax.Array, windows: Windows) -> jax.Array:
    """Cuts a window out of each image and resizes it to the size of the image.

    Args:
        images: f32[B, H, W, C] in [0, 1] with C = 1 or 3, rounded to multiples of 1/255.
        windows: within the images, of at least one pixel.

    Returns:
        Multiples of 1/255, of the shape of the images.

    Raises:
        DataError: the images have another shape.
    """
    levels = _stretch(to_levels(images), windows.left, windows.width)
    levels = _stretch(jnp.swapaxes(levels, 2, 3), windows.top, windows.height)
    return to_images(jnp.swapaxes(levels, 2, 3), images.dtype)


def _stretch(levels: jax.Array, start: jax.Array, length: jax.Array) -> jax.Array:
    """Resizes the part [start, start + length) of the last axis of i32[C, B, H, W] to all of it."""
    channels, _, _, size = levels.shape
    start, length = start[:, None, None], length[:, None, None]
    # The centre of pixel x of the result lies at length * (x + 1/2) / size of the part. The part's
    # pixels to both sides have weights that fall linearly with the distance.
    x = jnp.arange(size, dtype=jnp.int32)[None, None]
    numerator = length * (2 * x + 1) - size
    before = numerator // (2 * size)
    distance = numerator - before * 2 * size
    packed = pack(levels)

    def pixels(index: jax.Array) -> jax.Array:
        place = jnp.broadcast_to(start + jnp.clip(index, 0, length - 1), packed.shape)
        return jnp.take_along_axis(packed, place, axis=2, mode="promise_in_bounds")

    # At the borders both pixels are the same; their weights sum to one.
    left, right = pixels(before), pixels(before + 1)
    left_weight, right_weight = _weight(2 * size - distance, size), _weight(distance, size)

    def blend(shift: jax.Array) -> jax.Array:
        total = ((left >> shift) & 255) * left_weight + ((right >> shift) & 255) * right_weight
        return (total + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS

    # The loop over channels keeps XLA from computing all this anew for every use of the result.
    return jax.lax.map(blend, 8 * jnp.arange(channels, dtype=jnp.int32)[::-1])


def _weight(distance: jax.Array, size: int) -> jax.Array:
    """Rounds distance / (2 * size), in [0, 1], to a multiple of 2^-22, the unit of the result."""
    # A long division in two steps, because the product has more than 32 bits.
    half = WEIGHT_BITS // 2
    scaled = distance << half
    high = scaled // (2 * size)
    rest = scaled - high * 2 * size
    return (high << half) + ((rest << half) + size) // (2 * size)


def sample_windows(
    key: jax.Array,
    batch: int,
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Windows:
    """Draws a window for each image.

    The area, as a share of the image, is uniform, and so is the logarithm of the aspect ratio. A
    window that is larger than the image is drawn again. If none of ten is small enough, the window
    is the largest one at the centre whose aspect ratio lies within the bounds.

    Args:
        key: typed scalar PRNG key.
        batch: number of images B.
        height: of the images, in pixels.
        width: of the images, in pixels.
        scale: bounds of the share of the area, in (0, 1].
        ratio: bounds of the aspect ratio, width over height.

    Returns:
        Arrays i32[B].
    """
    key_size, key_top, key_left = rng.split(key, 3)
    # The draws of an image do not depend on the size of the batch, because its axis comes first.
    u = rng.uniform(key_size, (batch, TRIES, 2))
    area = height * width * (scale[0] + u[..., 0] * (scale[1] - scale[0]))
    low, high = map(math.log, ratio)
    aspect = jnp.exp(low + u[..., 1] * (high - low))
    wide = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    tall = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = jnp.argmax(fits, axis=1, keepdims=True)

    def chosen(sizes: jax.Array, otherwise: int) -> jax.Array:
        found = jnp.take_along_axis(sizes, first, axis=1)[:, 0]
        return jnp.where(fits.any(1), found, otherwise)

    central_height = min(height, round(width / ratio[0]))
    central_width = min(width, round(height * ratio[1]))
    tall, wide = chosen(tall, central_height), chosen(wide, central_width)
    # Both are drawn, because a central window depends on no number.
    top = rng.randint(key_top, (batch,), 0, height - tall + 1)
    left = rng.randint(key_left, (batch,), 0, width - wide + 1)
    central = ~fits.any(1)
    top = jnp.where(central, (height - central_height) // 2, top)
    left = jnp.where(central, (width - central_width) // 2, left)
    return Windows(top, left, tall, wide)


def random_resized_crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """Cuts a random window out of each image and resizes it to the size of the image.

    The window has 0.08 to 1 of the area, and an aspect ratio of 3/4 to 4/3.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    return resized_crop(images, sample_windows(key, batch, height, width))
