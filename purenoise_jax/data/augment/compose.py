"""Composes named augmentations into one function of a key and a batch of images.

The contract of all augmentations in this folder: they take images f32[B, H, W, C] in [0, 1], with
C = 3, or 1 for grey images, and return images of the same shape and range. Another shape raises
`DataError`. Every image has its own parameters. An operation has a deterministic form with explicit
parameters, one per image, and a random form `(key, images) -> images`, whose key is a typed scalar
PRNG key. All are jittable. Random numbers are always drawn as 32-bit values of shape [B], so the
result depends only on the key, not on the number of devices or on `jax_enable_x64`.

The order, probabilities and strengths are those of OPeN (paper, appendix D.2; ReScience
reproduction by Lee and Lee 2023): flip, crop, Cutout (DeVries and Taylor 2017), then the colour
part of SimCLR (Chen et al. 2020). Cutout precedes the colour jitter, so its hole is black only
until the contrast changes. The arithmetic is that of torchvision's float tensor kernels.

AutoAugment (Cubuk et al. 2019) is the other recipe of the paper; it replaces all of these. For
large images the paper has random resized crops, the same colours, and rotations.
"""

import functools
import math
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.augmix import augmix
from purenoise_jax.data.augment.autoaugment import autoaugment, autoaugment_imagenet
from purenoise_jax.data.augment.blur import random_blur
from purenoise_jax.data.augment.color import random_color_jitter, random_grayscale
from purenoise_jax.data.augment.geometric import random_crop, random_cutout, random_flip
from purenoise_jax.data.augment.randaugment import randaugment
from purenoise_jax.data.augment.resized_crop import random_resized_crop
from purenoise_jax.data.augment.rotation import random_rotation
from purenoise_jax.data.augment.trivialaugment import trivialaugment
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError


def simclr(
    key: jax.Array, images: jax.Array, *, kernel_size: int = 3, strength: float = 0.5
) -> jax.Array:
    """Colour part of SimCLR (Chen et al. 2020): jitter (p .8), grey (p .2), blur (p .5).

    Of a jitter of strength s, the factors of brightness, contrast and saturation are uniform on
    [max(0, 1 - 0.8 s), 1 + 0.8 s], and the rotation of the hue on [-0.2 s, 0.2 s] turns.

    There is no resized crop: in the OPeN recipe "SimCLR" means only the colour and blur steps. For
    C = 1 saturation, hue and grey do nothing.

    Args:
        key: typed scalar PRNG key.
        images: the batch.
        kernel_size: odd number of taps of the blur per axis.
        strength: s, in 0 .. 2.5.
    """
    key_jitter, key_gray, key_blur = rng.split(key, 3)
    factor = 0.8 * strength
    images = random_color_jitter(
        key_jitter,
        images,
        brightness=factor,
        contrast=factor,
        saturation=factor,
        hue=0.2 * strength,
    )
    images = random_grayscale(key_gray, images)
    return random_blur(key_blur, images, kernel_size=kernel_size)


def simclr_scaled(key: jax.Array, images: jax.Array, *, strength: float = 0.5) -> jax.Array:
    """As `simclr`, with the blur that SimCLR has for images of any size.

    Its kernel is a tenth of the shorter side wide, rounded to an odd number as in SimCLR's code: 3
    taps at 32 pixels, as `simclr` has always, 23 at 224, and no blur below 20.

    READING: Zada et al. 2022 name no strength of the colours for large images. By default it is
    that for small ones, 0.5; SimCLR itself has 1 for ImageNet.
    """
    kernel_size = 2 * (min(images.shape[1:3]) // 20) + 1
    return simclr(key, images, kernel_size=kernel_size, strength=strength)


AUGMENTATIONS: dict[str, Callable[..., jax.Array]] = {
    "flip": random_flip,
    "crop": random_crop,
    "cutout": random_cutout,
    "simclr": simclr,
    "autoaugment": autoaugment,
    "autoaugment_imagenet": autoaugment_imagenet,
    "randaugment": randaugment,
    "trivialaugment": trivialaugment,
    "augmix": augmix,
    "resized_crop": random_resized_crop,
    "rotation": random_rotation,
    "simclr_scaled": simclr_scaled,
}

# More would rotate a hue by more than half a turn.
MAX_COLOR_STRENGTH = 2.5
DEFAULT_AUGMENTATIONS = ("flip", "crop", "cutout", "simclr")


def check_sizes(
    names: Sequence[str], height: int, width: int, *, crop_padding: int, cutout_size: int
) -> None:
    """Refuses augmentations that images of this size are too small for.

    Args:
        names: keys of `AUGMENTATIONS`.
        height: of the images, in pixels.
        width: of the images, in pixels.
        crop_padding: padding of "crop" in pixels.
        cutout_size: side of the square of "cutout" in pixels.

    Raises:
        ConfigError: a size is too large for the images.
    """
    side, images = min(height, width), f"images of {height} x {width}"
    if "crop" in names and crop_padding >= side:
        raise ConfigError(
            f"data.crop_padding={crop_padding} for {images}: some crops would hold only padding; "
            f"legal: below {side}"
        )
    if "cutout" in names and cutout_size > side:
        raise ConfigError(
            f"data.cutout_size={cutout_size} for {images}: the hole would be larger than the "
            f"image; legal: at most {side}"
        )
    if "simclr" in names and side < 2:
        raise ConfigError(
            f"data.augment={tuple(names)} for {images}: simclr needs at least 2 x 2 to blur"
        )


def make_augment(
    names: Sequence[str] = DEFAULT_AUGMENTATIONS,
    *,
    crop_padding: int = 4,
    cutout_size: int = 16,
    color_strength: float = 0.5,
    rotation_degrees: float = 15.0,
    randaugment_ops: int = 2,
    randaugment_magnitude: int = 9,
    augmix_severity: int = 3,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Composes named augmentations, applied in the order given.

    The key of an augmentation is folded from its name, not its position: leaving one out does
    not change the draws of the others, so ablations are paired.

    The papers use "autoaugment" alone. Combined with others it may have any position. It rounds its
    input to 8 bits, which changes the output of simclr and augmix, but not of the others; so do
    "autoaugment_imagenet", "randaugment", "trivialaugment", "augmix" and "resized_crop".

    Args:
        names: keys of `AUGMENTATIONS`, each at most once; may be empty.
        crop_padding: padding of "crop" in pixels.
        cutout_size: side of the square of "cutout" in pixels.
        color_strength: of the jitter of "simclr" and "simclr_scaled", in 0 .. 2.5.
        rotation_degrees: largest angle of "rotation", in 0 .. 180.
        randaugment_ops: operations of "randaugment" per image, at least 1.
        randaugment_magnitude: level of the operations of "randaugment", in 0 .. 30.
        augmix_severity: number of the smallest magnitudes that "augmix" draws from, in 1 .. 10.

    Returns:
        `augment(key, images)`, a pure function by the contract above, clipped to [0, 1].

    Raises:
        ConfigError: a name is unknown or repeated, or a number is out of range.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise ConfigError(f"augmentation: {name!r} is not one of {', '.join(AUGMENTATIONS)}")
    if len(set(names)) != len(names):
        raise ConfigError(f"augmentation: {', '.join(names)} names one of them twice")
    for name, value, low, high in (
        ("crop_padding", crop_padding, 0, math.inf),
        ("cutout_size", cutout_size, 0, math.inf),
        ("color_strength", color_strength, 0, MAX_COLOR_STRENGTH),
        ("rotation_degrees", rotation_degrees, 0, 180),
        ("randaugment_ops", randaugment_ops, 1, math.inf),
        ("randaugment_magnitude", randaugment_magnitude, 0, 30),
        ("augmix_severity", augmix_severity, 1, 10),
    ):
        if not low <= value <= high:
            legal = f"in {low} .. {high}" if high < math.inf else f"at least {low}"
            raise ConfigError(f"{name}: {value} is out of range; legal: {legal}")
    settings: dict[str, dict[str, float]] = {
        "crop": {"padding": crop_padding},
        "cutout": {"size": cutout_size},
        "simclr": {"strength": float(color_strength)},
        "simclr_scaled": {"strength": float(color_strength)},
        "rotation": {"degrees": float(rotation_degrees)},
        "randaugment": {"ops": randaugment_ops, "magnitude": randaugment_magnitude},
        "augmix": {"severity": augmix_severity},
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
