"""Colour augmentation: batched, jittable operations in pixel space.

The arithmetic is that of the float tensor kernels of torchvision (`transforms.v2.functional`);
the probabilities and strengths are the colour part of SimCLR (Chen et al. 2020) as used for OPeN
(paper, appendix D.2; ReScience reproduction by Lee and Lee 2023).

Every operation takes images f32[B, H, W, C] in [0, 1] with C = 3, or C = 1 for grey images, and
returns the same shape, clamped to [0, 1]. It raises `DataError` for another shape. Grey images are
returned unchanged by saturation, hue and conversion to grey. Every image has its own parameters.
Random numbers are always drawn as 32-bit values of shape [B] from a typed scalar PRNG key, so the
result depends only on the key, not on the number of devices or on `jax_enable_x64`.

DEVIATION: on PIL images torchvision rounds to 8 bits after each operation, and the operation on hue
rounds hue, saturation and value as well; here nothing is rounded. Measured once, on an image of
224x224 uniformly random pixels with factors of 1.4 for brightness, contrast and saturation and a
hue of 0.1: in this order the results differ by 1.7/255 on average and by 17/255 at most, in the
worst of the 24 orders by 35/255 at most. Hue alone differs by 1.2/255 on average and by 14/255 at
most, each of the others by up to 0.4/255 on average and by 1.0/255 at most (torchvision 0.29.1,
Pillow 13.0).
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import DataError

# ITU-R 601 weights, rounded as torchvision rounds them; they sum to 0.9999.
GRAY_WEIGHTS = (0.2989, 0.587, 0.114)

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

Planes = tuple[jax.Array, ...]

JITTER_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


class JitterParams(NamedTuple):
    """Per-image parameters of `color_jitter`.

    Attributes:
        apply: bool[B], False leaves the image unchanged.
        order: i32[B, 4], a permutation of 0 (brightness), 1 (contrast), 2 (saturation), 3 (hue) in
            the order of application.
        brightness: f32[B], >= 0, 1 is the identity.
        contrast: f32[B], >= 0, 1 is the identity.
        saturation: f32[B], >= 0, 1 is the identity.
        hue: f32[B] in [-0.5, 0.5], 0 is the identity.
    """

    apply: jax.Array
    order: jax.Array
    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array


def per_image(values: jax.Array) -> jax.Array:
    """Reshapes one value per image so that it broadcasts over the pixels.

    Args:
        values: [B], any dtype.

    Returns:
        [B, 1, 1, 1].
    """
    return jnp.reshape(values, (-1, 1, 1, 1))


def check_images(images: jax.Array) -> None:
    """Checks rank and number of channels, at no cost under `jit` because both are static.

    Raises:
        DataError: the shape is not [B, H, W, C] with C = 1 or 3.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(f"images: shape {images.shape} is not [batch, height, width, 1 or 3]")


def adjust_brightness(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends each image with black; `factor`, f32[B] >= 0: 0 gives black, 1 the image."""
    check_images(images)
    return jnp.clip(images * per_image(factor.astype(images.dtype)), 0, 1)


def adjust_contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends each image with the mean of its grey version over all pixels.

    `factor` is f32[B] >= 0: 0 gives a uniform image, 1 the image.
    """
    planes = _to_planes(images)
    f = _per_plane(factor, images.dtype)
    return _to_images(_blend(planes, _luma_mean(planes), f))


def adjust_saturation(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends each image with its grey version; `factor`, f32[B] >= 0: 0 gives grey, 1 the image."""
    planes = _to_planes(images)
    if len(planes) == 1:
        return images
    f = _per_plane(factor, images.dtype)
    return _to_images(_blend(planes, _luma(planes), f))


def adjust_hue(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Rotates the hue of each image in HSV space.

    `factor` is f32[B] in [-0.5, 0.5], in turns of the colour circle.
    """
    planes = _to_planes(images)
    if len(planes) == 1:
        return images
    return _to_images(_rotate_hue(planes, _per_plane(factor, images.dtype)))


def to_grayscale(images: jax.Array) -> jax.Array:
    """Replaces all channels by the ITU-R 601 luma, in [0, 0.9999] for C = 3."""
    planes = _to_planes(images)
    if len(planes) == 1:
        return images
    return jnp.broadcast_to(_luma(planes)[..., None], images.shape)


def color_jitter(images: jax.Array, params: JitterParams) -> jax.Array:
    """Applies brightness, contrast, saturation and hue to each image, in the image's own order.

    The result is clamped to [0, 1] after each of the four.
    """
    brightness, contrast, saturation, hue = (
        _per_plane(factor, images.dtype)
        for factor in (params.brightness, params.contrast, params.saturation, params.hue)
    )

    # All but hue are blends that differ only in their target, so a slot costs one blend, one hue
    # rotation and some selects. The loop keeps XLA from fusing the slots, because fused slots would
    # be evaluated again for every use by the next one. Together this is ten times faster on a CPU
    # than four unrolled slots of four operations. A stacked carry is also faster than a tuple.
    def slot(stacked: jax.Array, op_of_image: jax.Array) -> tuple[jax.Array, None]:
        planes = tuple(stacked)
        op = _per_plane(op_of_image, op_of_image.dtype)
        factor = jnp.where(op == BRIGHTNESS, brightness, contrast)
        target = jnp.where(op == CONTRAST, _luma_mean(planes), 0)
        if len(planes) == 1:
            blended = _blend(planes, target, factor)
            new = _select((op == SATURATION) | (op == HUE), planes, blended)
        else:
            factor = jnp.where(op == SATURATION, saturation, factor)
            target = jnp.where(op == SATURATION, _luma(planes), target)
            blended = _blend(planes, target, factor)
            new = _select(op == HUE, _rotate_hue(planes, hue), blended)
        return jnp.stack(new), None

    # A GPU copies the carry of a loop, and runs unrolled slots one by one.
    unroll = jax.default_backend() != "cpu"
    stacked, _ = jax.lax.scan(slot, jnp.stack(_to_planes(images)), params.order.T, unroll=unroll)
    jittered = _to_images(tuple(stacked))
    return jnp.where(per_image(params.apply), jittered, images)


def sample_color_jitter(
    key: jax.Array,
    batch: int,
    *,
    p: float = 0.8,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
) -> JitterParams:
    """Draws the parameters of `color_jitter`.

    Args:
        key: typed scalar PRNG key.
        batch: number of images B.
        p: probability that an image is changed.
        brightness: factors are uniform on [max(0, 1 - brightness), 1 + brightness].
        contrast: as `brightness`.
        saturation: as `brightness`.
        hue: at most 0.5; rotations are uniform on [-hue, hue].

    Returns:
        Parameters of shape [B]. All 24 orders are equally likely.
    """
    key_order, key_uniform = rng.split(key)
    u = rng.uniform(key_uniform, (5, batch))
    order = rng.randint(key_order, (batch,), 0, len(JITTER_ORDERS))

    def factor(row: jax.Array, strength: float) -> jax.Array:
        low = max(0.0, 1.0 - strength)
        return low + row * (1.0 + strength - low)

    return JitterParams(
        apply=u[0] < p,
        order=jnp.asarray(JITTER_ORDERS)[order],
        brightness=factor(u[1], brightness),
        contrast=factor(u[2], contrast),
        saturation=factor(u[3], saturation),
        hue=(2.0 * u[4] - 1.0) * hue,
    )


def random_color_jitter(
    key: jax.Array,
    images: jax.Array,
    *,
    p: float = 0.8,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
) -> jax.Array:
    """Jitters the colours of each image with probability `p`, in random order.

    The strengths `brightness`, `contrast`, `saturation` and `hue` are those of
    `sample_color_jitter`.
    """
    params = sample_color_jitter(
        key,
        images.shape[0],
        p=p,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
    )
    return color_jitter(images, params)


def random_grayscale(key: jax.Array, images: jax.Array, *, p: float = 0.2) -> jax.Array:
    """Turns each image grey with probability `p`."""
    change = rng.uniform(key, (images.shape[0],)) < p
    return jnp.where(per_image(change), to_grayscale(images), images)


# The functions below work on colour planes, a tuple of C arrays [B, H, W]. Planes vectorise on a
# CPU, which interleaved channels do not, and values that all channels share are computed once.


def _to_planes(images: jax.Array) -> Planes:
    check_images(images)
    return tuple(images[..., i] for i in range(images.shape[-1]))


def _to_images(planes: Planes) -> jax.Array:
    return jnp.stack(planes, axis=-1)


def _per_plane(values: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.reshape(values.astype(dtype), (-1, 1, 1))


def _luma(planes: Planes) -> jax.Array:
    if len(planes) == 1:
        return planes[0]
    r, g, b = planes
    return r * GRAY_WEIGHTS[0] + g * GRAY_WEIGHTS[1] + b * GRAY_WEIGHTS[2]


def _luma_mean(planes: Planes) -> jax.Array:
    # Along columns first, because adding rows of pixels vectorises on a CPU and rounds less than
    # one long chain of additions.
    return _luma(planes).mean(1, keepdims=True).mean(2, keepdims=True)


def _blend(planes: Planes, target: jax.Array, factor: jax.Array) -> Planes:
    rest = (1 - factor) * target
    return tuple(jnp.clip(factor * plane + rest, 0, 1) for plane in planes)


def _select(condition: jax.Array, if_true: Planes, if_false: Planes) -> Planes:
    return tuple(jnp.where(condition, t, f) for t, f in zip(if_true, if_false, strict=True))


def _rotate_hue(planes: Planes, turns: jax.Array) -> Planes:
    # A rotation keeps the largest and the smallest channel, so saturation and value are never
    # computed: each channel is the smallest plus the chroma times a trapezoid of the hue. Dividing
    # the selected difference (not multiplying by a reciprocal) keeps tiny chromas from overflowing.
    r, g, b = planes
    top = jnp.maximum(jnp.maximum(r, g), b)
    low = jnp.minimum(jnp.minimum(r, g), b)
    chroma = top - low
    red, green = top == r, top == g
    difference = jnp.where(red, g - b, jnp.where(green, b - r, r - g))
    sector = jnp.where(red, 0, jnp.where(green, 2, 4)).astype(r.dtype)
    hue = difference / jnp.where(chroma == 0, 1, chroma) + sector + 6 * turns
    hue = hue - 6 * jnp.floor(hue / 6)
    weights = (jnp.abs(hue - 3) - 1, 2 - jnp.abs(hue - 2), 2 - jnp.abs(hue - 4))
    return tuple(jnp.clip(low + chroma * jnp.clip(w, 0, 1), 0, 1) for w in weights)
