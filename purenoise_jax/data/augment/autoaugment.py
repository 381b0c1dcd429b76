"""AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019): batched, jittable, with explicit keys.

The semantics are those of torchvision's `AutoAugment(AutoAugmentPolicy.CIFAR10)` on PIL images
(nearest neighbour, black outside the image). The arithmetic is PIL's on 8-bit levels, to the last
bit.

All functions take images f32[B, H, W, C] in [0, 1] with C = 3, or C = 1 for grey, round them to
multiples of 1/255, and return multiples of 1/255 of the same shape. They raise `DataError` for
another shape. Random numbers are drawn as 32-bit values of shape [B] or [2, B] from a typed scalar
PRNG key, so the result depends only on the key, not on the number of devices or on
`jax_enable_x64`.

The papers use the policy alone: it replaces flip, crop, Cutout and the colours of SimCLR.

Images of a batch need different operations, so no operation is a branch: each of the two of a
sub-policy is one affine map, one blend and one lookup table per image, two of which are identities.
"""

import enum
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.color import check_images
from purenoise_jax.runtime import rng

LEVELS = 10

# ITU-R 601 weights in units of 2^-16, as PIL rounds them; they sum to one.
LUMA_WEIGHTS = (19595, 38470, 7471)


class Op(enum.IntEnum):
    """The operations, in the order of the lookup tables below."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTO_CONTRAST = 12
    EQUALIZE = 13
    INVERT = 14


ENHANCEMENTS = (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS)

# Two operations per row, each with its probability and its level; the level is 0 for an operation
# without a magnitude.
Step = tuple[Op, float, int]
POLICY: tuple[tuple[Step, Step], ...] = (
    ((Op.INVERT, 0.1, 0), (Op.CONTRAST, 0.2, 6)),
    ((Op.ROTATE, 0.7, 2), (Op.TRANSLATE_X, 0.3, 9)),
    ((Op.SHARPNESS, 0.8, 1), (Op.SHARPNESS, 0.9, 3)),
    ((Op.SHEAR_Y, 0.5, 8), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTO_CONTRAST, 0.5, 0), (Op.EQUALIZE, 0.9, 0)),
    ((Op.SHEAR_Y, 0.2, 7), (Op.POSTERIZE, 0.3, 7)),
    ((Op.COLOR, 0.4, 3), (Op.BRIGHTNESS, 0.6, 7)),
    ((Op.SHARPNESS, 0.3, 9), (Op.BRIGHTNESS, 0.7, 9)),
    ((Op.EQUALIZE, 0.6, 0), (Op.EQUALIZE, 0.5, 0)),
    ((Op.CONTRAST, 0.6, 7), (Op.SHARPNESS, 0.6, 5)),
    ((Op.COLOR, 0.7, 7), (Op.TRANSLATE_X, 0.5, 8)),
    ((Op.EQUALIZE, 0.3, 0), (Op.AUTO_CONTRAST, 0.4, 0)),
    ((Op.TRANSLATE_Y, 0.4, 3), (Op.SHARPNESS, 0.2, 6)),
    ((Op.BRIGHTNESS, 0.9, 6), (Op.COLOR, 0.2, 8)),
    ((Op.SOLARIZE, 0.5, 2), (Op.INVERT, 0.0, 0)),
    ((Op.EQUALIZE, 0.2, 0), (Op.AUTO_CONTRAST, 0.6, 0)),
    ((Op.EQUALIZE, 0.2, 0), (Op.EQUALIZE, 0.6, 0)),
    ((Op.COLOR, 0.9, 9), (Op.EQUALIZE, 0.6, 0)),
    ((Op.AUTO_CONTRAST, 0.8, 0), (Op.SOLARIZE, 0.2, 8)),
    ((Op.BRIGHTNESS, 0.1, 3), (Op.COLOR, 0.7, 0)),
    ((Op.SOLARIZE, 0.4, 5), (Op.AUTO_CONTRAST, 0.9, 0)),
    ((Op.TRANSLATE_Y, 0.9, 9), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTO_CONTRAST, 0.9, 0), (Op.SOLARIZE, 0.8, 3)),
    ((Op.EQUALIZE, 0.8, 0), (Op.INVERT, 0.1, 0)),
    ((Op.TRANSLATE_Y, 0.7, 9), (Op.AUTO_CONTRAST, 0.9, 0)),
)


class OpParams(NamedTuple):
    """One operation per image.

    Attributes:
        op: i32, a value of `Op`.
        level: i32 in [0, 9], ignored by operations without a magnitude.
        negative: bool, the sign of the magnitude, ignored by operations without a sign.
    """

    op: jax.Array
    level: jax.Array
    negative: jax.Array


def magnitudes(op: Op, height: int, width: int) -> np.ndarray:
    """Magnitudes of an operation at its ten levels.

    Args:
        op: the operation.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        f32[10]: by operation a slope, pixels, degrees, an offset from the factor 1, a number of
        bits or a threshold; zeros for an operation without a magnitude.
    """
    if op == Op.POSTERIZE:
        return (8 - np.round(np.arange(LEVELS) / ((LEVELS - 1) / 4))).astype(np.float32)
    ends = {
        Op.SHEAR_X: (0.0, 0.3),
        Op.SHEAR_Y: (0.0, 0.3),
        Op.TRANSLATE_X: (0.0, 150 / 331 * width),
        Op.TRANSLATE_Y: (0.0, 150 / 331 * height),
        Op.ROTATE: (0.0, 30.0),
        Op.SOLARIZE: (255.0, 0.0),
    } | dict.fromkeys(ENHANCEMENTS, (0.0, 0.9))
    start, stop = map(np.float32, ends.get(op, (0.0, 0.0)))
    # As torch.linspace: from both ends, in single precision. numpy's linspace rounds differently,
    # and the last bit of a factor changes levels if the result of a blend is close to an integer.
    step = (stop - start) / np.float32(LEVELS - 1)
    index = np.arange(LEVELS, dtype=np.float32)
    return np.where(index < LEVELS // 2, start + step * index, stop - step * (LEVELS - 1 - index))


def transform(images: jax.Array, params: OpParams) -> jax.Array:
    """Applies one operation to each image; the arrays of `params` are [B]."""
    return _to_images(_transform(_to_levels(images), params), images.dtype)


def transform_twice(images: jax.Array, params: OpParams) -> jax.Array:
    """Applies two operations to each image in turn; the arrays of `params` are [2, B]."""

    # A loop halves the size of the program, and an unrolled one is not faster.
    def slot(levels: jax.Array, params: OpParams) -> tuple[jax.Array, None]:
        return _transform(levels, params), None

    levels, _ = jax.lax.scan(slot, _to_levels(images), params)
    return _to_images(levels, images.dtype)


def sample_policy(key: jax.Array, batch: int) -> OpParams:
    """Draws a sub-policy for each image, whether each operation applies, and its sign.

    Args:
        key: typed scalar PRNG key.
        batch: number of images B.

    Returns:
        Parameters of shape [2, B] for `transform_twice`; `Op.IDENTITY` for an operation that does
        not apply. All 25 sub-policies are equally likely, and so are the signs.
    """
    key_row, key_apply, key_sign = rng.split(key, 3)
    row = rng.randint(key_row, (batch,), 0, len(POLICY))
    u = rng.uniform(key_apply, (2, batch))
    negative = rng.randint(key_sign, (2, batch), 0, 2) == 0
    op, p, level = (
        jnp.asarray(np.array([[step[i] for step in pair] for pair in POLICY], dtype).T)[:, row]
        for i, dtype in enumerate((np.int32, np.float32, np.int32))
    )
    return OpParams(jnp.where(u < p, op, int(Op.IDENTITY)), level, negative)


def autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Applies a random sub-policy of AutoAugment's policy for CIFAR-10 to each image.

    For C = 1 the operation `Op.COLOR`, which changes the saturation, does nothing.
    """
    check_images(images)
    return transform_twice(images, sample_policy(key, images.shape[0]))


# The functions below work on levels i32[C, B, H, W] in [0, 255]. Planes vectorise on a CPU, which
# interleaved channels do not, and values that all channels share are computed once.


def _to_levels(images: jax.Array) -> jax.Array:
    check_images(images)
    levels = jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.int32)
    return jnp.moveaxis(levels, -1, 0)


def _to_images(levels: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.moveaxis(levels, 0, -1).astype(dtype) / 255


def _per_plane(values: jax.Array) -> jax.Array:
    return jnp.reshape(values, (-1, 1, 1))


def _transform(levels: jax.Array, params: OpParams) -> jax.Array:
    _, _, height, width = levels.shape
    sign = params.negative.astype(jnp.int32)
    matrix = jnp.asarray(_matrices(height, width))[params.op, params.level, sign]
    factor = jnp.asarray(_factors())[params.op, params.level, sign]
    levels = _affine(levels, matrix)
    levels = _blend(_degenerate(levels, params.op), levels, factor)
    return _look_up(levels, _tables(levels, params))


# Geometry


@functools.cache
def _matrices(height: int, width: int) -> np.ndarray:
    """i32[op, level, sign, 6], see `_affine`; the identity for operations that move no pixel."""
    result = np.empty((len(Op), LEVELS, 2, 6), np.int32)
    for op in Op:
        for level, magnitude in enumerate(magnitudes(op, height, width).tolist()):
            for sign, signed in enumerate((magnitude, -magnitude)):
                a, b, c, d, e, f = _inverse_map(op, signed, height, width)
                # From the corner of a pixel to its centre.
                numbers = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
                result[op, level, sign] = [math.floor(n * 65536 + 0.5) for n in numbers]
    return result


def _inverse_map(op: Op, magnitude: float, height: int, width: int) -> tuple[float, ...]:
    """Coefficients a to f of the map (ax + by + c, dx + ey + f) from target (x, y) to source."""
    if op == Op.SHEAR_X:
        return 1, math.tan(math.atan(magnitude)), 0, 0, 1, 0
    if op == Op.SHEAR_Y:
        return 1, 0, 0, math.tan(math.atan(magnitude)), 1, 0
    if op == Op.TRANSLATE_X:
        return 1, 0, -int(magnitude), 0, 1, 0
    if op == Op.TRANSLATE_Y:
        return 1, 0, 0, 0, 1, -int(magnitude)
    if op == Op.ROTATE:
        cos, sin = math.cos(math.radians(magnitude)), math.sin(math.radians(magnitude))
        x, y = width / 2, height / 2
        return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y
    return 1, 0, 0, 0, 1, 0


def _affine(levels: jax.Array, matrix: jax.Array) -> jax.Array:
    """Maps each image by i32[B, 6] in units of 2^-16 pixels; nearest neighbour, black outside."""
    channels, batch, height, width = levels.shape
    a, b, c, d, e, f = (_per_plane(column) for column in matrix.T)
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    source_x = (a * x + b * y + c) >> 16
    source_y = (d * x + e * y + f) >> 16
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    source = jnp.where(inside, source_y * width + source_x, 0)
    # All channels are packed into one integer, so a pixel needs one lookup.
    packed = functools.reduce(lambda high, plane: (high << 8) | plane, levels)
    moved = jnp.take_along_axis(
        packed.reshape(batch, -1), source.reshape(batch, -1), axis=1, mode="promise_in_bounds"
    )
    moved = jnp.where(inside, moved.reshape(batch, height, width), 0)
    return jnp.stack([(moved >> 8 * i) & 255 for i in reversed(range(channels))])


# Blends


@functools.cache
def _factors() -> np.ndarray:
    """f32[op, level, sign], 1 for operations that are not blends."""
    result = np.ones((len(Op), LEVELS, 2), np.float32)
    for op in ENHANCEMENTS:
        offset = magnitudes(op, 0, 0).astype(np.float64)
        result[op] = np.stack([1 + offset, 1 - offset], axis=1)
    return result


def _degenerate(levels: jax.Array, op: jax.Array) -> jax.Array:
    """The image to blend each image with: black, its mean grey, its grey or its smooth version."""
    op = _per_plane(op)
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
    product = _per_plane(high)[None] * difference + _per_plane(low)[None] * difference
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


# Lookup tables


@functools.cache
def _fixed_tables() -> np.ndarray:
    """u8[op, level, 256], the new level of each level; the identity for other operations."""
    identity = np.arange(256, dtype=np.uint8)
    result = np.tile(identity, (len(Op), LEVELS, 1))
    result[Op.INVERT] = 255 - identity
    bits = magnitudes(Op.POSTERIZE, 0, 0).astype(np.int32)
    result[Op.POSTERIZE] &= (0xFF << (8 - bits) & 0xFF).astype(np.uint8)[:, None]
    threshold = magnitudes(Op.SOLARIZE, 0, 0)[:, None]
    result[Op.SOLARIZE] = np.where(identity < threshold, identity, 255 - identity)
    return result


def _tables(levels: jax.Array, params: OpParams) -> jax.Array:
    """Lookup tables i32[C, B, 256]."""
    fixed = jnp.asarray(_fixed_tables())[params.op, params.level].astype(jnp.int32)
    op = params.op[:, None]

    def of_channel(plane: jax.Array) -> jax.Array:
        tables = jnp.where(op == Op.EQUALIZE, _equalize_tables(plane), fixed)
        return jnp.where(op == Op.AUTO_CONTRAST, _auto_contrast_tables(plane), tables)

    # The loop keeps XLA from fusing the blend into every use of the levels here, and the tables
    # into their lookup: fused, an entry would be computed for every pixel.
    return jax.lax.map(of_channel, levels)


def _look_up(levels: jax.Array, tables: jax.Array) -> jax.Array:
    channels, batch, height, width = levels.shape
    flat = levels.reshape(channels, batch, height * width)
    found = jnp.take_along_axis(tables, flat, axis=2, mode="promise_in_bounds")
    return found.reshape(levels.shape)


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


def _auto_contrast_tables(plane: jax.Array) -> jax.Array:
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
