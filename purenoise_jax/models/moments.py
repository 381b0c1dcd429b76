"""Per-channel mean and variance of a masked batch, pooled from the moments of its images.

`image_moments` reduces every image once to its per-channel mean and variance, [B, C].
`pooled_moments` applies the masks as weights to these small arrays. `standardize` then reads the
activations a second time, with one fused multiply-add. No rows are gathered or scattered, so shapes
stay fixed.

Rows that do not count are selected out with `jnp.where`, never multiplied by zero, because zero
times NaN is NaN. The selection precedes each square, because the gradient of a square of NaN is NaN
even if its value is selected out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purenoise_jax.runtime.compiler import optimization_barrier_on_cpu


class ImageMoments(NamedTuple):
    """Moments of every image over its positions.

    Attributes:
        mean: [B, C].
        var: [B, C], biased. May be below zero by rounding.
        positions: [B, 1] or [B, C], number of positions in the moments.
    """

    mean: jax.Array
    var: jax.Array
    positions: jax.Array


def image_moments(
    x: jax.Array, mask: jax.Array | None = None, *, fast: bool = True
) -> ImageMoments:
    """Moments of every image over its spatial positions.

    The fast form reads the data once. It sums around the image's first pixel, so activations with
    a mean far from zero lose little to cancellation. The other form reads the data twice, the
    second time for the squares around the mean.

    Args:
        x: [B, ..., C], finite where `mask` is False.
        mask: bool[B, ..., C], True = the element counts; None = all do. With a mask the data is
            always read twice.
        fast: True reads the data once.

    Returns:
        `ImageMoments` of the dtype of `x`, counts in float32 or wider. The moments of an image of
        which no element counts are zero.
    """
    positions = math.prod(x.shape[1:-1])
    rows = x.reshape(x.shape[0], positions, x.shape[-1])
    wide = jnp.promote_types(x.dtype, jnp.float32)
    if mask is not None:
        chosen = mask.reshape(rows.shape)
        count = chosen.sum(axis=1, dtype=wide)

        def over_positions(values: jax.Array) -> jax.Array:
            total = jnp.where(chosen, values, 0).sum(axis=1)
            return (total / jnp.maximum(count, 1)).astype(x.dtype)

        mean = over_positions(rows)
        return ImageMoments(mean, over_positions(jnp.square(rows - mean[:, None])), count)
    count = jnp.full((x.shape[0], 1), positions, wide)
    if not fast:
        mean = rows.mean(axis=1)
        return ImageMoments(mean, jnp.square(rows - mean[:, None]).mean(axis=1), count)
    # The result does not depend on the shift, so neither does the gradient.
    shift = jax.lax.stop_gradient(rows[:, :1])
    # Written twice so that each subtraction fuses into its reduction.
    mean = (rows - optimization_barrier_on_cpu(shift)).mean(axis=1)
    var = jnp.square(rows - shift).mean(axis=1) - jnp.square(mean)
    return ImageMoments(mean + shift[:, 0], var, count)


def on_one_device(local: jax.Array) -> jax.Array:
    """The sum over devices when there is only this one."""
    return local


def pooled_moments(
    images: ImageMoments,
    selected: jax.Array,
    sum_over_devices: Callable[[jax.Array], jax.Array] = on_one_device,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moments of the union of the selected images, each weighted by its number of positions.

    Args:
        images: moments of each image. Those of images that are not selected may be NaN or infinite.
        selected: bool[B], True for the images that count. The moments are zero if there are none.
        sum_over_devices: for a batch divided over devices, `jax.lax.psum` over an axis. The devices
            may hold different numbers of selected images, some none.

    Returns:
        mean [C], biased variance [C] (never negative), and the number of selected positions, [1] or
        [C].
    """
    weight = jnp.where(selected[:, None], images.positions, 0)
    counts = weight > 0
    count = sum_over_devices(weight.sum(axis=0))
    share = (weight / jnp.maximum(count, 1)[None]).astype(images.mean.dtype)
    mean = sum_over_devices((share * jnp.where(counts, images.mean, 0)).sum(axis=0))
    deviation = jnp.where(counts, images.mean, mean[None]) - mean[None]
    around_mean = jnp.where(counts, images.var, 0) + jnp.square(deviation)
    var = sum_over_devices((share * around_mean).sum(axis=0))
    return mean, jnp.maximum(var, 0), count


def standardize(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """Normalises, scales and shifts; moments and affine parameters may differ by row.

    Args:
        x: [B, ..., C].
        mean: [B, C] or [1, C].
        var: [B, C] or [1, C].
        scale: [B, C] or [1, C].
        bias: [B, C] or [1, C].
        epsilon: added to the variance.

    Returns:
        (x - mean) / sqrt(var + epsilon) * scale + bias, [B, ..., C].
    """
    positions = (1,) * (x.ndim - 2)

    def broadcastable(row: jax.Array) -> jax.Array:
        return row.reshape(row.shape[0], *positions, row.shape[1])

    gain = jax.lax.rsqrt(var + epsilon) * scale
    # Written to memory, because otherwise XLA on a CPU recomputes the selection by row, including
    # the draw of the mask, for every activation. Broadcast to rows even if all rows share them,
    # because otherwise the reduction of their gradients runs on one thread.
    mean, gain, bias = optimization_barrier_on_cpu((mean, gain, bias), rows=x.shape[0])
    return (x - broadcastable(mean)) * broadcastable(gain) + broadcastable(bias)
