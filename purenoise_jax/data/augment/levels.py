"""Images as 8-bit levels, the form in which the arithmetic of PIL is repeated.

Levels are i32[C, B, H, W] in [0, 255]. Planes vectorise on a CPU, which interleaved channels do
not, and values that all channels share are computed once.
"""

import functools

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.color import check_images


def to_levels(images: jax.Array) -> jax.Array:
    """Rounds images f32[B, H, W, C], clipped to [0, 1], to levels i32[C, B, H, W].

    Raises:
        DataError: the shape is not [B, H, W, C] with C = 1 or 3.
    """
    check_images(images)
    levels = jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.int32)
    return jnp.moveaxis(levels, -1, 0)


def to_images(levels: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns images [B, H, W, C] in [0, 1] of a float dtype; `levels` may lie between integers."""
    return jnp.moveaxis(levels, 0, -1).astype(dtype) / 255


def per_plane(values: jax.Array) -> jax.Array:
    """Reshapes values [B] to [B, 1, 1], so that they broadcast over the pixels of a plane."""
    return jnp.reshape(values, (-1, 1, 1))


def pack(levels: jax.Array) -> jax.Array:
    """Packs all channels into one integer, so that a pixel needs one lookup: i32[B, H, W]."""
    return functools.reduce(lambda high, plane: (high << 8) | plane, levels)


def unpack(packed: jax.Array, channels: int) -> jax.Array:
    """Reverses `pack`: levels i32[C, B, H, W]."""
    return jnp.stack([(packed >> 8 * i) & 255 for i in reversed(range(channels))])
