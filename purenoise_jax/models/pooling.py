"""Pooling layers, with gradients whose sums have a fixed order on every device."""

import functools

import jax
import jax.numpy as jnp

from purenoise_jax.runtime.compiler import optimization_barrier_on_cpu
from purenoise_jax.runtime.errors import ConfigError


def global_average(x: jax.Array) -> jax.Array:
    """Global average pooling [B, H, W, C] -> [B, C], accumulated in float32 or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))


def max_pool(x: jax.Array, window: int, padding: int = 0) -> jax.Array:
    """Maxima of square windows at every second position, as in PyTorch.

    [B, H, W, C] becomes [B, H', W', C] with H' = floor((H + 2 * padding - window) / 2) + 1. Of
    equal elements the first has the gradient. It is a sum of slices: the scatter of XLA's own
    pooling adds the gradients of overlapping windows in no fixed order on a GPU.

    Args:
        x: [B, H, W, C].
        window: height and width of a window.
        padding: positions beside each border that no maximum counts.

    Raises:
        ConfigError: no window fits.
    """
    _check_fits(x, window - 2 * padding)
    border = (padding, padding)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)), constant_values=-jnp.inf)
    # The first in a row, and then the first row: the order in which PyTorch reads a window.
    for axis in (2, 1):
        last = (x.shape[axis] - window) // 2 * 2
        parts = [
            jax.lax.slice_in_dim(x, i, i + last + 1, stride=2, axis=axis) for i in range(window)
        ]
        x = optimization_barrier_on_cpu(functools.reduce(_first_maximum, parts))
    return x


def average_pool(x: jax.Array) -> jax.Array:
    """Means of 2x2 windows, [B, H, W, C] -> [B, floor(H / 2), floor(W / 2), C].

    Raises:
        ConfigError: no window fits.
    """
    _check_fits(x, 2)
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _first_maximum(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the larger of two elements, `a` if they are equal, NaN if one is."""
    return jnp.where((b > a) | jnp.isnan(b), b, a)


def _check_fits(x: jax.Array, size: int) -> None:
    height, width = x.shape[1:3]
    if min(height, width) < size:
        raise ConfigError(
            f"the images are too small for this network: where it pools {size}x{size} positions, "
            f"{height}x{width} are left; a larger data.image_size, or a network for small images, "
            "such as model.name=resnet18_cifar"
        )
