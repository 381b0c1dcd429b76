"""Pixel conversions: from 8 bits to [0, 1], and to the normalised input of a network."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from purenoise_jax.runtime.errors import DataError


def to_float(images: jax.Array, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Scales 8-bit images to [0, 1].

    Args:
        images: u8, any shape.
        dtype: of the result, f32 or wider.

    Returns:
        `dtype` of the same shape in [0, 1].

    Raises:
        DataError: `images` is not uint8. (Floats scaled a second time would go unnoticed.)
    """
    if images.dtype != jnp.uint8:
        raise DataError(f"images: dtype {images.dtype} is not uint8")
    return images.astype(dtype) / 255


def normalize(images: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """Subtracts the mean of each channel and divides by its standard deviation.

    Args:
        images: f32[B, H, W, C], any range.
        mean: f32[C].
        std: f32[C], > 0.

    Returns:
        f32[B, H, W, C].
    """
    channels = (1, 1, 1, images.shape[-1])
    mean = jnp.reshape(jnp.asarray(mean, images.dtype), channels)
    std = jnp.reshape(jnp.asarray(std, images.dtype), channels)
    return (images - mean) / std
