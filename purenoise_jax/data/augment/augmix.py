"""AugMix (Hendrycks et al. 2020): a mixture of the image and three chains of random operations.

The operations, their magnitudes and all probabilities are those of torchvision's `AugMix` with its
defaults: three chains of one to three of 13 operations, Dirichlet and Beta distributions with
alpha = 1, bilinear interpolation. The loss that the paper adds is not part of it.

The paper's own operations are fewer: without brightness, colour, contrast and sharpness, which
resemble the corruptions that it tests on.

DEVIATION: torchvision computes the operations on 8-bit tensors; here they have PIL's arithmetic, as
in the paper's code and as all other policies. The mixture is not truncated to 8 bits, as it is in
torchvision; the paper mixes real numbers.
"""

import jax
import jax.numpy as jnp

from purenoise_jax.data.augment.levels import per_plane, to_images, to_levels
from purenoise_jax.data.augment.magnitudes import AUGMIX, Op
from purenoise_jax.data.augment.operations import OpParams, apply_in_turn
from purenoise_jax.runtime import rng

OPS = tuple(op for op in Op if op not in (Op.IDENTITY, Op.INVERT))
CHAINS = 3
MAX_DEPTH = 3


def sample_augmix(key: jax.Array, batch: int, *, severity: int = 3) -> tuple[OpParams, jax.Array]:
    """Draws the chains of each image, and the weights of the mixture.

    Args:
        key: typed scalar PRNG key.
        batch: number of images B.
        severity: number of magnitudes to draw from, the smallest ones, in 1 .. 10.

    Returns:
        Parameters of shape [CHAINS, MAX_DEPTH, B], with `Op.IDENTITY` after the end of a chain, and
        weights f32[1 + CHAINS, B] of the image and of its chains, which sum to one. The weight of
        the image is uniform, Beta(1, 1); the others have shares of the rest that are uniform on the
        simplex, Dirichlet(1, 1, 1). All depths, operations, magnitudes and signs are uniform.
    """
    key_depth, key_op, key_level, key_sign, key_image, key_share = rng.split(key, 6)
    # The draws of an image do not depend on the size of the batch, because its axis comes first.
    shape = (batch, CHAINS, MAX_DEPTH)
    depth = rng.randint(key_depth, (batch, CHAINS), 1, MAX_DEPTH + 1)
    op = jnp.asarray(OPS, jnp.int32)[rng.randint(key_op, shape, 0, len(OPS))]
    position = jnp.arange(MAX_DEPTH, dtype=jnp.int32)[None, None]
    op = jnp.where(position < depth[..., None], op, int(Op.IDENTITY))
    level = rng.randint(key_level, shape, 0, severity)
    negative = rng.randint(key_sign, shape, 0, 2) == 0
    of_image = rng.uniform(key_image, (batch, 1))
    # The parts between two cuts of a line are uniform on the simplex.
    cuts = jnp.sort(rng.uniform(key_share, (batch, CHAINS - 1)), axis=1)
    zeros = jnp.zeros_like(of_image)
    shares = jnp.diff(cuts, axis=1, prepend=zeros, append=zeros + 1)
    weights = jnp.concatenate([of_image, (1 - of_image) * shares], axis=1)
    op, level, negative = (jnp.moveaxis(values, 0, -1) for values in (op, level, negative))
    return OpParams(op, level, negative), weights.T


def mix(images: jax.Array, params: OpParams, weights: jax.Array) -> jax.Array:
    """Applies chains of operations to each image, and mixes it with the results.

    Args:
        images: f32[B, H, W, C] in [0, 1] with C = 1 or 3, rounded to multiples of 1/255.
        params: arrays [N, D, B] for N chains of D operations.
        weights: f32[1 + N, B], of the images and of the chains.

    Returns:
        f32[B, H, W, C] in [0, 1], not rounded.

    Raises:
        DataError: the images have another shape.
    """
    levels = to_levels(images)

    def weighted(weight: jax.Array, levels: jax.Array) -> jax.Array:
        return per_plane(weight)[None] * levels.astype(jnp.float32)

    def add_chain(mixed: jax.Array, chain: tuple[OpParams, jax.Array]) -> tuple[jax.Array, None]:
        params, weight = chain
        augmented = apply_in_turn(levels, params, AUGMIX, interpolate=True)
        return mixed + weighted(weight, augmented), None

    mixed, _ = jax.lax.scan(add_chain, weighted(weights[0], levels), (params, weights[1:]))
    return jnp.clip(to_images(mixed, images.dtype), 0, 1)


def augmix(key: jax.Array, images: jax.Array, *, severity: int = 3) -> jax.Array:
    """Mixes each image with three chains of random operations on it.

    Args:
        key: typed scalar PRNG key.
        images: the batch.
        severity: number of magnitudes to draw from, the smallest ones, in 1 .. 10.
    """
    params, weights = sample_augmix(key, images.shape[0], severity=severity)
    return mix(images, params, weights)
