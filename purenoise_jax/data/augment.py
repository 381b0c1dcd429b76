"""Image augmentation for CIFAR-sized images: batched, jittable, with explicit keys.

All operations work in pixel space, on images f32[B, H, W, C] in [0, 1] (C = 3, or 1 for grey),
keep the shape, and give every image its own parameters. Each has a deterministic kernel with
explicit per-image parameters and a random form `(key, images) -> images`. Random numbers are
always drawn as 32-bit values of shape [B], so the result depends on the key alone: not on the
number of devices, nor on `jax_enable_x64`.

The order, probabilities and strengths are those of OPeN (paper, appendix D.2; ReScience
reproduction by Lee & Lee 2023): flip, crop, Cutout (DeVries & Taylor 2017), then the colour part
of SimCLR (Chen et al. 2020). As Cutout comes before the colours are jittered, its hole is black
only until the contrast changes. The arithmetic is that of torchvision's float tensor kernels.

AutoAugment (Cubuk et al. 2019) is the other recipe of the paper; it replaces all of these.
"""

import functools
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from purenoise_jax import rng
from purenoise_jax.data.autoaugment import autoaugment
from purenoise_jax.data.color import (
    JitterParams,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    check_images,
    color_jitter,
    per_image,
    random_color_jitter,
    random_grayscale,
    sample_color_jitter,
    to_grayscale,
)
from purenoise_jax.errors import ConfigError, DataError

__all__ = [
    "AUGMENTATIONS",
    "DEFAULT_AUGMENTATIONS",
    "JitterParams",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "autoaugment",
    "color_jitter",
    "crop",
    "cutout",
    "flip",
    "gaussian_blur",
    "make_augment",
    "normalize",
    "random_blur",
    "random_color_jitter",
    "random_crop",
    "random_cutout",
    "random_flip",
    "random_grayscale",
    "sample_color_jitter",
    "simclr",
    "to_float",
    "to_grayscale",
]


def to_float(images: jax.Array, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Scales 8-bit images to [0, 1].

    Args:
        images: u8, any shape.
        dtype: of the result, f32 or wider.

    Returns:
        `dtype` of the same shape in [0, 1].

    Raises:
        DataError: `images` is not uint8; scaling floats again would go unnoticed.
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


def flip(images: jax.Array, do_flip: jax.Array) -> jax.Array:
    """Mirrors the chosen images left to right.

    Args:
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3.
        do_flip: bool[B].

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        DataError: `images` has another shape.
    """
    check_images(images)
    return jnp.where(per_image(do_flip), images[:, :, ::-1], images)


def crop(images: jax.Array, top: jax.Array, left: jax.Array, padding: int = 4) -> jax.Array:
    """Pads each image with black and cuts a window of the old size out of it.

    Args:
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3.
        top: i32[B] in [0, 2 * padding], first row of the window; `padding` is the identity.
        left: i32[B] in [0, 2 * padding], first column of the window.
        padding: Pixels added on each of the four sides.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        DataError: `images` has another shape.
    """
    check_images(images)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def window(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (y, x, jnp.zeros_like(y)), images.shape[1:])

    return jax.vmap(window)(padded, top, left)


def cutout(
    images: jax.Array, center_y: jax.Array, center_x: jax.Array, size: int = 16
) -> jax.Array:
    """Blackens a square in each image (DeVries & Taylor 2017).

    The square is [center - size // 2, center + size // 2) on both axes, clipped at the borders:
    near a border it is smaller, and an odd `size` acts as `size - 1`.

    Args:
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3.
        center_y: i32[B] in [0, H).
        center_x: i32[B] in [0, W).
        size: Side of the square in pixels.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        DataError: `images` has another shape.
    """
    check_images(images)

    def inside(length: int, center: jax.Array) -> jax.Array:
        offset = jnp.arange(length, dtype=jnp.int32)[None, :] - center[:, None]
        return (offset >= -(size // 2)) & (offset < size // 2)

    rows = inside(images.shape[1], center_y)[:, :, None, None]
    columns = inside(images.shape[2], center_x)[:, None, :, None]
    return jnp.where(rows & columns, 0, images)


def gaussian_blur(images: jax.Array, sigma: jax.Array, kernel_size: int = 3) -> jax.Array:
    """Blurs each image with a Gaussian truncated to `kernel_size` taps, borders reflected.

    Args:
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3, H and W above kernel_size // 2.
        sigma: f32[B], > 0, in pixels.
        kernel_size: Odd number of taps per axis.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        ConfigError: `kernel_size` is even or not positive.
        DataError: `images` has another shape.
    """
    check_images(images)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"kernel_size: {kernel_size} is not an odd positive number")
    half = kernel_size // 2
    distance = jnp.arange(-half, half + 1, dtype=images.dtype)[:, None]
    taps = jnp.exp(-0.5 * (distance / sigma.astype(images.dtype)[None, :]) ** 2)
    taps = taps / taps.sum(0, keepdims=True)
    # Shifted sums beat a grouped convolution (20 times on CPU) and have no reduced-precision mode.
    out = jnp.pad(images, ((0, 0), (half, half), (half, half), (0, 0)), mode="reflect")
    for axis in (1, 2):
        length = images.shape[axis]
        shifted = (jax.lax.slice_in_dim(out, k, k + length, axis=axis) for k in range(kernel_size))
        out = functools.reduce(
            jnp.add, (per_image(tap) * part for tap, part in zip(taps, shifted, strict=True))
        )
    return jnp.clip(out, 0, 1)


def random_flip(key: jax.Array, images: jax.Array, *, p: float = 0.5) -> jax.Array:
    """Mirrors each image left to right with probability `p`.

    Args:
        key: Typed PRNG key, a scalar.
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3.
        p: Probability that an image is mirrored.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        DataError: `images` has another shape.
    """
    return flip(images, rng.uniform(key, (images.shape[0],)) < p)


def random_crop(key: jax.Array, images: jax.Array, *, padding: int = 4) -> jax.Array:
    """Shifts each image by up to `padding` pixels on either axis, black coming in.

    Args:
        key: Typed PRNG key, a scalar.
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3.
        padding: Largest shift; all (2 * padding + 1) squared windows are equally likely.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        DataError: `images` has another shape.
    """
    top, left = rng.randint(key, (2, images.shape[0]), 0, 2 * padding + 1)
    return crop(images, top, left, padding)


def random_cutout(key: jax.Array, images: jax.Array, *, size: int = 16) -> jax.Array:
    """Blackens a square whose centre is uniform over all pixels of the image.

    Args:
        key: Typed PRNG key, a scalar.
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3.
        size: Side of the square in pixels, see `cutout`.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        DataError: `images` has another shape.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    key_y, key_x = rng.split(key)
    center_y = rng.randint(key_y, (batch,), 0, height)
    center_x = rng.randint(key_x, (batch,), 0, width)
    return cutout(images, center_y, center_x, size)


def random_blur(
    key: jax.Array,
    images: jax.Array,
    *,
    p: float = 0.5,
    kernel_size: int = 3,
    sigma: tuple[float, float] = (0.1, 2.0),
) -> jax.Array:
    """Blurs each image with probability `p`.

    Args:
        key: Typed PRNG key, a scalar.
        images: f32[B, H, W, C] in [0, 1], C = 1 or 3.
        p: Probability that an image is blurred.
        kernel_size: Odd number of taps per axis.
        sigma: Bounds of the uniform distribution of the Gaussian's width in pixels.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        ConfigError: `kernel_size` is even or not positive.
        DataError: `images` has another shape.
    """
    u = rng.uniform(key, (2, images.shape[0]))
    blurred = gaussian_blur(images, sigma[0] + u[1] * (sigma[1] - sigma[0]), kernel_size)
    return jnp.where(per_image(u[0] < p), blurred, images)


def simclr(key: jax.Array, images: jax.Array) -> jax.Array:
    """Colour part of SimCLR (Chen et al. 2020): jitter (p .8), grey (p .2), blur (p .5).

    There is no resized crop: in the OPeN recipe "SimCLR" names the colour and blur steps only.

    Args:
        key: Typed PRNG key, a scalar.
        images: f32[B, H, W, C] in [0, 1]; for C = 1 saturation, hue and grey do nothing.

    Returns:
        f32[B, H, W, C] in [0, 1].

    Raises:
        DataError: `images` has another shape.
    """
    key_jitter, key_gray, key_blur = rng.split(key, 3)
    images = random_color_jitter(key_jitter, images)
    images = random_grayscale(key_gray, images)
    return random_blur(key_blur, images)


AUGMENTATIONS: dict[str, Callable[..., jax.Array]] = {
    "flip": random_flip,
    "crop": random_crop,
    "cutout": random_cutout,
    "simclr": simclr,
    "autoaugment": autoaugment,
}

DEFAULT_AUGMENTATIONS = ("flip", "crop", "cutout", "simclr")


def check_sizes(
    names: Sequence[str], height: int, width: int, *, crop_padding: int, cutout_size: int
) -> None:
    """Refuses augmentations that would leave nothing of images of this size.

    Args:
        names: Keys of `AUGMENTATIONS`.
        height: Of the images, in pixels.
        width: Likewise.
        crop_padding: Padding of "crop" in pixels.
        cutout_size: Side of the square of "cutout" in pixels.

    Raises:
        ConfigError: A size does not go with the images.
    """
    side, images = min(height, width), f"images of {height} x {width}"
    if "crop" in names and crop_padding >= side:
        raise ConfigError(
            f"data.crop_padding={crop_padding} for {images}: some crops would hold nothing but "
            f"padding; legal: below {side}"
        )
    if "cutout" in names and cutout_size > side:
        raise ConfigError(
            f"data.cutout_size={cutout_size} for {images}: the hole would be larger than the "
            f"image; legal: at most {side}"
        )
    if "simclr" in names and side < 2:
        raise ConfigError(f"data.augment={tuple(names)} for {images}: simclr needs 2 x 2 to blur")


def make_augment(
    names: Sequence[str] = DEFAULT_AUGMENTATIONS, *, crop_padding: int = 4, cutout_size: int = 16
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Composes named augmentations, applied in the order given.

    The key of an augmentation is folded from its name, not its position: leaving one out does
    not change what the others draw, so that ablations are paired.

    The papers use "autoaugment" alone. In company it may stand anywhere: it rounds what it gets
    to 8 bits, which flip, crop and cutout of 8-bit images already are, and simclr's are not.

    Args:
        names: Keys of `AUGMENTATIONS`, each at most once; may be empty.
        crop_padding: Padding of "crop" in pixels.
        cutout_size: Side of the square of "cutout" in pixels.

    Returns:
        `augment(key, images)`, a pure function of a typed PRNG key and f32[B, H, W, C] in [0, 1]
        that returns f32[B, H, W, C] clipped to [0, 1].

    Raises:
        ConfigError: A name is unknown or repeated, or a size is negative.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise ConfigError(f"augmentation: {name!r} is not one of {', '.join(AUGMENTATIONS)}")
    if len(set(names)) != len(names):
        raise ConfigError(f"augmentation: {', '.join(names)} names one of them twice")
    if crop_padding < 0:
        raise ConfigError(f"crop_padding: {crop_padding} is negative")
    if cutout_size < 0:
        raise ConfigError(f"cutout_size: {cutout_size} is negative")
    settings: dict[str, dict[str, int]] = {
        "crop": {"padding": crop_padding},
        "cutout": {"size": cutout_size},
    }
    steps = [
        (
            zlib.crc32(name.encode()),
            functools.partial(AUGMENTATIONS[name], **settings.get(name, {})),
        )
        for name in names
    ]

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        for salt, step in steps:
            images = step(rng.at(key, salt), images)
        return jnp.clip(images, 0, 1)

    return augment
