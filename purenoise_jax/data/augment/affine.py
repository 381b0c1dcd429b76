"""Affine maps of images, as PIL computes them with the nearest neighbour; black outside the image.

A map takes a pixel of the result to its source. It is computed in double precision on the host, for
every magnitude, and applied in integers, so the result is that of PIL on every device.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.levels import pack, per_plane, unpack
from purenoise_jax.data.augment.magnitudes import Magnitudes, Op

# Coefficients a to f of the map (ax + by + c, dx + ey + f) from target (x, y) to source. Positions
# are those of corners, so a pixel's centre lies at its indices plus one half.
Map = tuple[float, float, float, float, float, float]


def map_of(op: Op, magnitude: float, height: int, width: int) -> Map:
    """Returns the map of an operation; the identity for one that moves no pixel."""
    if op == Op.SHEAR_X:
        return 1, math.tan(math.atan(magnitude)), 0, 0, 1, 0
    if op == Op.SHEAR_Y:
        return 1, 0, 0, math.tan(math.atan(magnitude)), 1, 0
    if op == Op.TRANSLATE_X:
        return 1, 0, -int(magnitude), 0, 1, 0
    if op == Op.TRANSLATE_Y:
        return 1, 0, 0, 0, 1, -int(magnitude)
    if op == Op.ROTATE:
        return rotation(magnitude, height, width)
    return 1, 0, 0, 0, 1, 0


def rotation(degrees: float, height: int, width: int) -> Map:
    """Returns the map of a rotation about the centre, counter-clockwise as one sees the image."""
    angle = math.radians(degrees)
    # PIL rounds too, so that right angles are exact.
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


def fixed_point(coefficients: Map) -> list[int]:
    """Returns a map from pixel indices to source positions, in units of 2^-16 pixels."""
    a, b, c, d, e, f = coefficients
    # From the corner of a pixel to its centre.
    numbers = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return [math.floor(n * 65536 + 0.5) for n in numbers]


@functools.cache
def matrices(magnitudes: Magnitudes, height: int, width: int) -> np.ndarray:
    """Returns the maps of all operations at all levels, i32[op, level, sign, 6]: `fixed_point`."""
    result = np.empty((len(Op), magnitudes.levels, 2, 6), np.int32)
    for op in Op:
        for level, magnitude in enumerate(magnitudes.of(op, height, width).tolist()):
            for sign, signed in enumerate((magnitude, -magnitude)):
                result[op, level, sign] = fixed_point(map_of(op, signed, height, width))
    return result


def source_pixels(matrix: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Finds the source of every pixel by one map i32[6] per image, see `fixed_point`.

    Args:
        matrix: i32[B, 6].
        height: H of the images.
        width: W of the images.

    Returns:
        The index y * W + x of the source, i32[B, H, W], and bool[B, H, W], False where the source
        lies outside the image; the index is then 0.
    """
    a, b, c, d, e, f = (per_plane(column) for column in matrix.T)
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    source_x = (a * x + b * y + c) >> 16
    source_y = (d * x + e * y + f) >> 16
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    return jnp.where(inside, source_y * width + source_x, 0), inside


def nearest(levels: jax.Array, matrix: jax.Array) -> jax.Array:
    """Maps levels i32[C, B, H, W] by one map per image, i32[B, 6]."""
    channels, batch, height, width = levels.shape
    source, inside = source_pixels(matrix, height, width)
    moved = jnp.take_along_axis(
        pack(levels).reshape(batch, -1), source.reshape(batch, -1), axis=1, mode="promise_in_bounds"
    )
    return unpack(jnp.where(inside, moved.reshape(batch, height, width), 0), channels)
