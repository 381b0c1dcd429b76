"""Operations of AutoAugment and its successors, on 8-bit images: batched and jittable.

The semantics are those of torchvision on PIL images (nearest neighbour unless bilinear is asked
for, black outside the image). The arithmetic is PIL's on 8-bit levels, to the last bit.

All functions take images f32[B, H, W, C] in [0, 1] with C = 3, or C = 1 for grey, round them to
multiples of 1/255, and return multiples of 1/255 of the same shape. They raise `DataError` for
another shape. For C = 1 the operation `Op.COLOR`, which changes the saturation, does nothing.

Images of a batch need different operations, so no operation is a branch: each is one affine map,
one blend and one lookup table per image, two of which are identities.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.affine import matrices, nearest
from purenoise_jax.data.augment.bilinear import bilinear, exact_matrices
from purenoise_jax.data.augment.enhance import enhance, factors
from purenoise_jax.data.augment.levels import to_images, to_levels
from purenoise_jax.data.augment.lookup import look_up
from purenoise_jax.data.augment.magnitudes import Magnitudes


class OpParams(NamedTuple):
    """One operation per image; the arrays are [B], or [N, B] for N operations in turn.

    Attributes:
        op: i32, a value of `Op`.
        level: i32 in [0, L), ignored by operations without a magnitude.
        negative: bool, the sign of the magnitude, ignored by operations without a sign.
    """

    op: jax.Array
    level: jax.Array
    negative: jax.Array


def transform(images: jax.Array, params: OpParams, magnitudes: Magnitudes) -> jax.Array:
    """Applies one operation to each image; the arrays of `params` are [B]."""
    return to_images(apply(to_levels(images), params, magnitudes), images.dtype)


def transform_in_turn(images: jax.Array, params: OpParams, magnitudes: Magnitudes) -> jax.Array:
    """Applies N operations to each image in turn; the arrays of `params` are [N, B]."""
    return to_images(apply_in_turn(to_levels(images), params, magnitudes), images.dtype)


def apply_in_turn(
    levels: jax.Array, params: OpParams, magnitudes: Magnitudes, *, interpolate: bool = False
) -> jax.Array:
    """Applies N operations in turn to levels i32[C, B, H, W]; see `apply`."""

    # A loop divides the size of the program by N, and an unrolled one is not faster.
    def slot(levels: jax.Array, params: OpParams) -> tuple[jax.Array, None]:
        return apply(levels, params, magnitudes, interpolate=interpolate), None

    levels, _ = jax.lax.scan(slot, levels, params)
    return levels


def apply(
    levels: jax.Array, params: OpParams, magnitudes: Magnitudes, *, interpolate: bool = False
) -> jax.Array:
    """Applies one operation to the levels i32[C, B, H, W] of each image.

    Args:
        levels: of the images.
        params: arrays [B].
        magnitudes: of the policy.
        interpolate: affine maps are bilinear, otherwise they take the nearest neighbour.
    """
    _, _, height, width = levels.shape
    sign = params.negative.astype(jnp.int32)
    place = params.op, params.level, sign
    if interpolate:
        matrix = jnp.asarray(exact_matrices(magnitudes, height, width))[place]
        levels = bilinear(levels, matrix)
    else:
        levels = nearest(levels, jnp.asarray(matrices(magnitudes, height, width))[place])
    levels = enhance(levels, params.op, jnp.asarray(factors(magnitudes))[place])
    return look_up(levels, params.op, params.level, magnitudes)
