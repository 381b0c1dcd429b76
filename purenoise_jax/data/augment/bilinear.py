"""Affine maps of images, as PIL computes them with bilinear interpolation; black outside the image.

PIL interpolates in double precision and truncates the fraction, so a value close to an integer
needs more bits than float32 has. Here positions are integers in units of 2^-56 pixels, and weights
in units of 2^-42, in limbs of 14 bits. The result is that of PIL, except for values within about
2^-31 of an integer. Rotations by 30 degrees have such values in a few of 100,000 pixels, because
their sine is rational; these may differ by one level.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.affine import map_of
from purenoise_jax.data.augment.levels import pack, per_plane
from purenoise_jax.data.augment.magnitudes import Magnitudes, Op

LIMB_BITS = 14
LIMBS = 4  # of the fraction of a position; weights have the upper three
MASK = (1 << LIMB_BITS) - 1

# An integer and a fraction in limbs, the lowest first; each is i32 and broadcasts to [B, H, W].
Limbs = list[jax.Array]


@functools.cache
def exact_matrices(magnitudes: Magnitudes, height: int, width: int) -> np.ndarray:
    """Returns the maps of all operations at all levels, i32[op, level, sign, 2, 3, LIMBS + 1].

    A row of a map takes 2 x + 1 and 2 y + 1, for the pixel (x, y), to a coordinate of its source,
    which is 0 for the centre of the first pixel. Half a unit of the weights is added, so that
    cutting off the lowest limb rounds to the nearest.
    """
    result = np.empty((len(Op), magnitudes.levels, 2, 2, 3, LIMBS + 1), np.int32)
    for op in Op:
        for level, magnitude in enumerate(magnitudes.of(op, height, width).tolist()):
            for sign, signed in enumerate((magnitude, -magnitude)):
                a, b, c, d, e, f = map_of(op, signed, height, width)
                for row, numbers in enumerate(((a / 2, b / 2, c - 0.5), (d / 2, e / 2, f - 0.5))):
                    fixed = [round(math.ldexp(n, LIMBS * LIMB_BITS)) for n in numbers]
                    fixed[2] += 1 << (LIMB_BITS - 1)
                    result[op, level, sign, row] = [_limbs_of(number) for number in fixed]
    return result


def _limbs_of(fixed: int) -> list[int]:
    limbs = [(fixed >> LIMB_BITS * i) & MASK for i in range(LIMBS)]
    return [*limbs, fixed >> LIMBS * LIMB_BITS]


def bilinear(levels: jax.Array, matrix: jax.Array) -> jax.Array:
    """Maps levels i32[C, B, H, W] by one map per image, i32[B, 2, 3, LIMBS + 1]."""
    channels, batch, height, width = levels.shape
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    source_x = _position(matrix[:, 0], x, y)
    source_y = _position(matrix[:, 1], x, y)
    inside = _is_inside(source_x, width) & _is_inside(source_y, height)
    packed = pack(levels).reshape(batch, -1)

    def neighbour(right: int, below: int) -> jax.Array:
        column = jnp.clip(source_x[-1] + right, 0, width - 1)
        row = jnp.clip(source_y[-1] + below, 0, height - 1)
        index = (row * width + column).reshape(batch, -1)
        found = jnp.take_along_axis(packed, index, axis=1, mode="promise_in_bounds")
        return jnp.where(inside, found.reshape(batch, height, width), 0)

    neighbours = [neighbour(*at) for at in ((0, 0), (1, 0), (0, 1), (1, 1))]
    dx, dy = source_x[1:-1], source_y[1:-1]

    def interpolate(shift: jax.Array) -> jax.Array:
        corner, right, below, across = ((packed >> shift) & 255 for packed in neighbours)
        slopes = (right - corner, below - corner, corner - right - below + across)
        carry = jnp.zeros_like(corner)
        for weights in zip(dx, dy, _product(dx, dy), strict=True):
            for slope, weight in zip(slopes, weights, strict=True):
                carry += slope * weight
            carry >>= LIMB_BITS
        return corner + carry

    # The loop over channels keeps XLA from fusing all this into every use of the result, and
    # computing it anew for each; that takes ten times as long on a CPU.
    return jax.lax.map(interpolate, 8 * jnp.arange(channels, dtype=jnp.int32)[::-1])


def _position(row: jax.Array, x: jax.Array, y: jax.Array) -> Limbs:
    """Returns a coordinate of the sources by one row of their maps, i32[B, 3, LIMBS + 1]."""
    carry = jnp.zeros((), jnp.int32)[None, None, None]
    limbs = []
    for i in range(LIMBS + 1):
        by_x, by_y, constant = (per_plane(row[:, j, i]) for j in range(3))
        total = by_x * (2 * x + 1) + by_y * (2 * y + 1) + constant + carry
        limbs.append(total & MASK if i < LIMBS else total)
        carry = total >> LIMB_BITS
    return limbs


def _is_inside(position: Limbs, size: int) -> jax.Array:
    """True where the nearest pixel is one of the image."""
    pixel = position[-1] + (position[-2] >> (LIMB_BITS - 1))
    return (pixel >= 0) & (pixel < size)


def _product(first: Limbs, second: Limbs) -> Limbs:
    """Multiplies two fractions of three limbs, and leaves out what is below the last."""
    (a0, a1, a2), (b0, b1, b2) = first, second
    total = ((a2 * b0 + a1 * b1 + a0 * b2) >> LIMB_BITS) + a2 * b1 + a1 * b2
    low = total & MASK
    total = (total >> LIMB_BITS) + a2 * b2
    return [low, total & MASK, total >> LIMB_BITS]
