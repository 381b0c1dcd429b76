"""TrivialAugment, wide (Müller and Hutter 2021): one random operation at a random magnitude.

The semantics are those of torchvision's `TrivialAugmentWide` with its defaults on PIL images, see
`purenoise_jax.data.augment.operations`.
"""

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.color import check_images
from purenoise_jax.data.augment.magnitudes import TRIVIALAUGMENT, Op
from purenoise_jax.data.augment.operations import OpParams, transform
from purenoise_jax.runtime import rng

# Also those of RandAugment.
OPS = tuple(op for op in Op if op != Op.INVERT)


def sample_trivialaugment(key: jax.Array, batch: int) -> OpParams:
    """Draws an operation, a magnitude and a sign for each image, all independent and uniform.

    Args:
        key: typed scalar PRNG key.
        batch: number of images B.

    Returns:
        Parameters of shape [B] for `transform`.
    """
    key_op, key_level, key_sign = rng.split(key, 3)
    op = rng.randint(key_op, (batch,), 0, len(OPS))
    level = rng.randint(key_level, (batch,), 0, TRIVIALAUGMENT.levels)
    negative = rng.randint(key_sign, (batch,), 0, 2) == 0
    return OpParams(jnp.asarray(OPS, jnp.int32)[op], level, negative)


def trivialaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Applies one of 14 operations to each image, the identity among them, at one of 31 levels."""
    check_images(images)
    return transform(images, sample_trivialaugment(key, images.shape[0]), TRIVIALAUGMENT)
