"""Operations that map each 8-bit level to another, as PIL computes them.

These are posterising, solarising and inversion, whose tables are fixed, and automatic contrast and
equalisation, whose tables depend on the image.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.magnitudes import Magnitudes, Op


def look_up(
    levels: jax.Array, op: jax.Array, level: jax.Array, magnitudes: Magnitudes
) -> jax.Array:
    """Maps the levels i32[C, B, H, W] of each image by its operation; others change nothing.

    Args:
        levels: of the images.
        op: i32[B], values of `Op`.
        level: i32[B], of the magnitude.
        magnitudes: of the policy.
    """
    channels, batch, height, width = levels.shape
    fixed = jnp.asarray(_fixed_tables(magnitudes))[op, level].astype(jnp.int32)
    op = op[:, None]

    def of_channel(plane: jax.Array) -> jax.Array:
        tables = jnp.where(op == Op.EQUALIZE, _equalize_tables(plane), fixed)
        return jnp.where(op == Op.AUTO_CONTRAST, auto_contrast_tables(plane), tables)

    # The loop keeps XLA from fusing the blend into every use of the levels here, and the tables
    # into their lookup: fused, an entry would be computed for every pixel.
    tables = jax.lax.map(of_channel, levels)
    flat = levels.reshape(channels, batch, height * width)
    found = jnp.take_along_axis(tables, flat, axis=2, mode="promise_in_bounds")
    return found.reshape(levels.shape)


@functools.cache
def _fixed_tables(magnitudes: Magnitudes) -> np.ndarray:
    """u8[op, level, 256], the new level of each level; the identity for other operations."""
    identity = np.arange(256, dtype=np.uint8)
    result = np.tile(identity, (len(Op), magnitudes.levels, 1))
    result[Op.INVERT] = 255 - identity
    bits = magnitudes.of(Op.POSTERIZE, 0, 0).astype(np.int32)
    result[Op.POSTERIZE] &= (0xFF << (8 - bits) & 0xFF).astype(np.uint8)[:, None]
    threshold = magnitudes.of(Op.SOLARIZE, 0, 0)[:, None]
    result[Op.SOLARIZE] = np.where(identity < threshold, identity, 255 - identity)
    return result


def _equalize_tables(plane: jax.Array) -> jax.Array:
    """Tables i32[B, 256] that spread the cumulative histogram of a channel evenly."""

    def histogram(levels: jax.Array) -> jax.Array:
        return jnp.zeros(256, jnp.int32).at[levels].add(1, mode="promise_in_bounds")

    # Each image has its own histogram, so devices that share a batch do not communicate.
    counts = jax.vmap(histogram)(plane.reshape(len(plane), -1))
    below = jnp.cumsum(counts, axis=1, dtype=jnp.int32) - counts
    # The brightest level does not count, so the others are the pixels below it.
    rest = jnp.where(counts > 0, below, 0).max(1, keepdims=True)
    step = jax.lax.div(rest, jnp.int32(255))
    spread = jax.lax.div(step // 2 + below, jnp.broadcast_to(jnp.maximum(step, 1), below.shape))
    return jnp.where(step == 0, _all_levels(), jnp.minimum(spread, 255))


def auto_contrast_tables(plane: jax.Array) -> jax.Array:
    """Tables i32[B, 256] that stretch the darkest level of a channel to 0, the brightest to 255."""
    low, high = plane.min((1, 2))[:, None], plane.max((1, 2))[:, None]
    span = high - low
    scaled = 255 * (_all_levels() - low)
    quotient = jax.lax.div(scaled, jnp.broadcast_to(jnp.maximum(span, 1), scaled.shape))
    # PIL computes in double precision and truncates, so an exact integer that comes out just below
    # itself becomes one less. The exact integers are the multiples of 255 / gcd(255, span).
    is_integer = scaled == quotient * span
    nth = jnp.clip(quotient * jnp.asarray(_gcd_with_255())[span] // 255, 0, 31)
    lost = (jnp.asarray(_lost_levels())[low, high] >> nth) & 1
    stretched = jnp.clip(quotient - jnp.where(is_integer, lost, 0), 0, 255)
    return jnp.where(span == 0, _all_levels(), stretched)


def _all_levels() -> jax.Array:
    return jnp.arange(256, dtype=jnp.int32)[None]


@functools.cache
def _gcd_with_255() -> np.ndarray:
    """i32[256], greatest common divisors with 255."""
    return np.gcd(255, np.arange(256)).astype(np.int32)


@functools.cache
def _lost_levels() -> np.ndarray:
    """i32[low, high], flags of the levels that PIL's autocontrast rounds down by one.

    With n = gcd(255, high - low), the level k / n of the way from low to high is an integer and
    becomes the integer 255 * k / n. Bit k is set if double precision comes out just below it.
    """
    low, high = np.ogrid[:256, :256]
    span = np.maximum(high - low, 1)
    scale = 255.0 / span
    offset = -low * scale
    result = np.zeros((256, 256), np.int32)
    # If n exceeds 17, no level is lost.
    for k in range(1, 18):
        parts = np.gcd(255, span)
        level = low + k * span // parts
        is_lost = (level * scale + offset).astype(np.int64) < k * 255 // parts
        result |= np.where(is_lost & (parts >= k) & (high > low), 1 << k, 0).astype(np.int32)
    return result
