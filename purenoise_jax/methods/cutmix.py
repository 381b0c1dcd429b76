"""CutMix: pastes a box of another image into each image, and mixes their losses by area.

Source: Yun et al. 2019, equations 1 and 2, and their code for one ratio, box and permutation per
batch, the rounding of the box, alpha = 1, and a probability of 0.5 on CIFAR.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.mixing import Alpha, draw_partners, mixed_loss
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Real


def box(
    ratio: jax.Array, centre: jax.Array, shape: tuple[int, int], *, round_up: bool = False
) -> jax.Array:
    """Returns the pixels of the box, bool[H, W].

    Args:
        ratio: f32[] in [0, 1], the share of the image that stays if no part of the box is outside.
        centre: i32[2], row and column of its centre; what would be outside the image is cut off.
        shape: (H, W); the box has these sides times sqrt(1 - ratio), rounded down to even numbers.
        round_up: the sides are rounded up to integers before that.
    """

    def covered(at: jax.Array, size: int) -> jax.Array:
        side = size * jnp.sqrt(1 - ratio)
        half = jnp.floor((jnp.ceil(side) if round_up else side) / 2)
        pixels = jnp.arange(size)
        return (pixels >= at - half) & (pixels < at + half)

    return covered(centre[0], shape[0])[:, None] & covered(centre[1], shape[1])[None]


def cutmix(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Alpha = 1.0,
    probability: Annotated[float, Real(0, 1), "of a step to paste boxes"] = 0.5,
) -> Recipe:
    """Pastes a box of the partner's image into each image; all rows of a step have the same box.

    The ratio is drawn from Beta(alpha, alpha) and the centre of the box uniformly. The share of a
    label is that of its image in the area, after the box is cut off at the border. Boxes are pasted
    into normalised images, which is the same as pasting and then normalising.

    READING: natural rows are mixed with natural rows, and pure noise with pure noise.
    READING: Shwartz-Ziv et al. 2023 give no probability. The default is that of Yun et al. for
    CIFAR; for ImageNet theirs is 1.
    READING: the training accuracy counts the row's own label, which may have the smaller share.
    """
    shape = stats.image_shape[:2]

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        used_key, ratio_key, centre_key, partner_key = rng.split(key, 4)
        used = rng.bernoulli(used_key, probability, ())
        ratio = rng.beta(ratio_key, alpha, alpha, ()) if alpha else jnp.ones(())
        centre = rng.randint(centre_key, (2,), 0, jnp.array(shape, jnp.int32))
        pasted = box(ratio, centre, shape) & used

        def paste(x: jax.Array, other: jax.Array) -> jax.Array:
            return jnp.where(pasted[None, :, :, None], other, x)

        return mixed_loss(
            recipe,
            networks,
            batch,
            share=1 - pasted.mean(dtype=jnp.float32),
            partner=draw_partners(partner_key, batch),
            places=("input",),
            blend=paste,
        )

    return dataclasses.replace(recipe, objective=objective, places=("input",))
