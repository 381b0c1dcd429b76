"""RandAugment (Cubuk et al. 2020): several random operations, all at the same level.

The semantics are those of torchvision's `RandAugment` on PIL images, see
`purenoise_jax.data.augment.operations`.
"""

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.color import check_images
from purenoise_jax.data.augment.magnitudes import RANDAUGMENT
from purenoise_jax.data.augment.operations import OpParams, transform_in_turn
from purenoise_jax.data.augment.trivialaugment import OPS
from purenoise_jax.runtime import rng


def sample_randaugment(key: jax.Array, batch: int, *, ops: int = 2, magnitude: int = 9) -> OpParams:
    """Draws operations, with replacement, and signs for each image, independent and uniform.

    Args:
        key: typed scalar PRNG key.
        batch: number of images B.
        ops: N, operations per image.
        magnitude: M, the level of all operations, in 0 .. 30.

    Returns:
        Parameters of shape [N, B] for `transform_in_turn`.
    """
    key_op, key_sign = rng.split(key)
    # The draws of an image do not depend on the size of the batch, because its axis comes first.
    op = rng.randint(key_op, (batch, ops), 0, len(OPS))
    negative = rng.randint(key_sign, (batch, ops), 0, 2) == 0
    level = jnp.full((ops, batch), magnitude, jnp.int32)
    return OpParams(jnp.asarray(OPS, jnp.int32)[op].T, level, negative.T)


def randaugment(
    key: jax.Array, images: jax.Array, *, ops: int = 2, magnitude: int = 9
) -> jax.Array:
    """Applies `ops` of 14 operations to each image in turn, the identity among them.

    The defaults are those of torchvision. READING: Cubuk et al. tune both numbers to the network
    and the data, so both are arguments.

    Args:
        key: typed scalar PRNG key.
        images: the batch.
        ops: N, operations per image.
        magnitude: M, the level of all operations, in 0 .. 30.
    """
    check_images(images)
    params = sample_randaugment(key, images.shape[0], ops=ops, magnitude=magnitude)
    return transform_in_turn(images, params, RANDAUGMENT)
