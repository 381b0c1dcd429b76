"""Augmentations of images: batched, jittable, with explicit keys."""

from purenoise_jax.data.augment.blur import gaussian_blur, random_blur
from purenoise_jax.data.augment.color import (
    JitterParams,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    random_color_jitter,
    random_grayscale,
    sample_color_jitter,
    to_grayscale,
)
from purenoise_jax.data.augment.compose import (
    AUGMENTATIONS,
    DEFAULT_AUGMENTATIONS,
    make_augment,
    simclr,
    simclr_scaled,
)
from purenoise_jax.data.augment.geometric import (
    crop,
    cutout,
    flip,
    random_crop,
    random_cutout,
    random_flip,
)
from purenoise_jax.data.pixels import normalize, to_float

__all__ = [
    "AUGMENTATIONS",
    "DEFAULT_AUGMENTATIONS",
    "JitterParams",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
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
    "simclr_scaled",
    "to_float",
    "to_grayscale",
]
