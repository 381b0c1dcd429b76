"""Brightness, colour, contrast and sharpness, as blends of 8-bit images in PIL's arithmetic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.levels import per_plane
from purenoise_jax.data.augment.magnitudes import ENHANCEMENTS, Magnitudes, Op

# ITU-R 601 weights in units of 2^-16, as PIL rounds them; they sum to one.
LUMA_WEIGHTS = (19595, 38470, 7471)


@functools.cache
def factors(magnitudes: Magnitudes) -> np.ndarray:
    """Returns the factors of all operations, f32[op, level, sign]; 1 for one that is no blend."""
    result = np.ones((len(Op), magnitudes.levels, 2), np.float32)
    for op in ENHANCEMENTS:
        offset = magnitudes.of(op, 0, 0).astype(np.float64)
        result[op] = np.stack([1 + offset, 1 - offset], axis=1)
    return result


def enhance(levels: jax.Array, op: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends each image with a version that lacks what the operation adds.

    Args:
        levels: i32[C, B, H, W].
        op: i32[B], values of `Op`; only `ENHANCEMENTS` have such a version.
        factor: f32[B]; 0 gives this version, 1 the image.
    """
    return _blend(_degenerate(levels, op), levels, factor)


def _degenerate(levels: jax.Array, op: jax.Array) -> jax.Array:
    """The image to blend each image with: black, its mean grey, its grey or its smooth version."""
    op = per_plane(op)
    luma = _luma(levels)
    flat = jnp.where(op == Op.CONTRAST, _rounded_mean(luma), 0)
    shared = jnp.where(op == Op.COLOR, luma, flat)[None]
    return jnp.where((op == Op.SHARPNESS)[None], _smooth(levels), shared)


def _blend(degenerate: jax.Array, levels: jax.Array, factor: jax.Array) -> jax.Array:
    # PIL rounds the product and the sum to single precision and truncates the fraction. Compilers
    # may fuse a product with a sum, which rounds once and gives other levels if the result is close
    # to an integer. With the factor in two parts, of 16 bits and of 8, the products with a
    # difference of levels are exact, so nothing depends on fusion.
    high = jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(factor, jnp.int32) & ~0xFF, jnp.float32
    )
    low = factor - high
    difference = (levels - degenerate).astype(jnp.float32)
    product = per_plane(high)[None] * difference + per_plane(low)[None] * difference
    blended = degenerate.astype(jnp.float32) + product
    return jnp.clip(blended, 0, 255).astype(jnp.int32)


def _luma(levels: jax.Array) -> jax.Array:
    if len(levels) == 1:
        return levels[0]
    red, green, blue = (weight * plane for weight, plane in zip(LUMA_WEIGHTS, levels, strict=True))
    return (red + green + blue + 0x8000) >> 16


def _rounded_mean(luma: jax.Array) -> jax.Array:
    count = luma.shape[1] * luma.shape[2]
    total = luma.sum((1, 2), dtype=jnp.int32, keepdims=True)
    return (2 * total + count) // (2 * count)


def _smooth(levels: jax.Array) -> jax.Array:
    """Averages 3 x 3 pixels, the middle one five times; border pixels do not change."""
    rows = levels[:, :, :-2] + levels[:, :, 1:-1] + levels[:, :, 2:]
    block = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = levels[:, :, 1:-1, 1:-1]
    # Rounded to the nearest integer; a thirteenth is never halfway.
    mean = (block + 4 * inner + 6) // 13
    return jax.lax.dynamic_update_slice(levels, mean, (0, 0, 1, 1))
