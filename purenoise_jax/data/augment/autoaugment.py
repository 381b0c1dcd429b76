"""AutoAugment's policies for CIFAR-10 and ImageNet (Cubuk et al. 2019): batched, jittable.

The semantics are those of torchvision's `AutoAugment` on PIL images, see
`purenoise_jax.data.augment.operations`. Random numbers are drawn as 32-bit values of shape [B] or
[2, B] from a typed scalar PRNG key, so the result depends only on the key, not on the number of
devices or on `jax_enable_x64`.

Zada et al. 2022 use the policy alone: it replaces flip, crop, Cutout and the colours of SimCLR.
"""

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.color import check_images
from purenoise_jax.data.augment.magnitudes import AUTOAUGMENT, Op
from purenoise_jax.data.augment.operations import OpParams, transform_in_turn
from purenoise_jax.runtime import rng

# Two operations per row, each with its probability and its level; the level is 0 for an operation
# without a magnitude.
Step = tuple[Op, float, int]
Policy = tuple[tuple[Step, Step], ...]

CIFAR10_POLICY: Policy = (
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

# The last five rows repeat earlier ones, in the paper too.
IMAGENET_POLICY: Policy = (
    ((Op.POSTERIZE, 0.4, 8), (Op.ROTATE, 0.6, 9)),
    ((Op.SOLARIZE, 0.6, 5), (Op.AUTO_CONTRAST, 0.6, 0)),
    ((Op.EQUALIZE, 0.8, 0), (Op.EQUALIZE, 0.6, 0)),
    ((Op.POSTERIZE, 0.6, 7), (Op.POSTERIZE, 0.6, 6)),
    ((Op.EQUALIZE, 0.4, 0), (Op.SOLARIZE, 0.2, 4)),
    ((Op.EQUALIZE, 0.4, 0), (Op.ROTATE, 0.8, 8)),
    ((Op.SOLARIZE, 0.6, 3), (Op.EQUALIZE, 0.6, 0)),
    ((Op.POSTERIZE, 0.8, 5), (Op.EQUALIZE, 1.0, 0)),
    ((Op.ROTATE, 0.2, 3), (Op.SOLARIZE, 0.6, 8)),
    ((Op.EQUALIZE, 0.6, 0), (Op.POSTERIZE, 0.4, 6)),
    ((Op.ROTATE, 0.8, 8), (Op.COLOR, 0.4, 0)),
    ((Op.ROTATE, 0.4, 9), (Op.EQUALIZE, 0.6, 0)),
    ((Op.EQUALIZE, 0.0, 0), (Op.EQUALIZE, 0.8, 0)),
    ((Op.INVERT, 0.6, 0), (Op.EQUALIZE, 1.0, 0)),
    ((Op.COLOR, 0.6, 4), (Op.CONTRAST, 1.0, 8)),
    ((Op.ROTATE, 0.8, 8), (Op.COLOR, 1.0, 2)),
    ((Op.COLOR, 0.8, 8), (Op.SOLARIZE, 0.8, 7)),
    ((Op.SHARPNESS, 0.4, 7), (Op.INVERT, 0.6, 0)),
    ((Op.SHEAR_X, 0.6, 5), (Op.EQUALIZE, 1.0, 0)),
    ((Op.COLOR, 0.4, 0), (Op.EQUALIZE, 0.6, 0)),
    ((Op.EQUALIZE, 0.4, 0), (Op.SOLARIZE, 0.2, 4)),
    ((Op.SOLARIZE, 0.6, 5), (Op.AUTO_CONTRAST, 0.6, 0)),
    ((Op.INVERT, 0.6, 0), (Op.EQUALIZE, 1.0, 0)),
    ((Op.COLOR, 0.6, 4), (Op.CONTRAST, 1.0, 8)),
    ((Op.EQUALIZE, 0.8, 0), (Op.EQUALIZE, 0.6, 0)),
)


def sample_policy(key: jax.Array, batch: int, policy: Policy = CIFAR10_POLICY) -> OpParams:
    """Draws a sub-policy for each image, whether each operation applies, and its sign.

    Args:
        key: typed scalar PRNG key.
        batch: number of images B.
        policy: of 25 sub-policies of two operations.

    Returns:
        Parameters of shape [2, B] for `transform_in_turn`; `Op.IDENTITY` for an operation that does
        not apply. All sub-policies are equally likely, and so are the signs.
    """
    key_row, key_apply, key_sign = rng.split(key, 3)
    row = rng.randint(key_row, (batch,), 0, len(policy))
    u = rng.uniform(key_apply, (2, batch))
    negative = rng.randint(key_sign, (2, batch), 0, 2) == 0
    op, p, level = (
        jnp.asarray(np.array([[step[i] for step in pair] for pair in policy], dtype).T)[:, row]
        for i, dtype in enumerate((np.int32, np.float32, np.int32))
    )
    return OpParams(jnp.where(u < p, op, int(Op.IDENTITY)), level, negative)


def autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Applies a random sub-policy of AutoAugment's policy for CIFAR-10 to each image."""
    check_images(images)
    return transform_in_turn(images, sample_policy(key, images.shape[0]), AUTOAUGMENT)


def autoaugment_imagenet(key: jax.Array, images: jax.Array) -> jax.Array:
    """Applies a random sub-policy of AutoAugment's policy for ImageNet to each image."""
    check_images(images)
    params = sample_policy(key, images.shape[0], IMAGENET_POLICY)
    return transform_in_turn(images, params, AUTOAUGMENT)
