"""Major feature weakening (MFW): mixes features of other rows into those of frequent classes.

Source: Ye et al. 2021 ("Procrustean training for imbalanced deep learning"), supplement. The method
is reconstructed from it, because the main text, with algorithm 1 and the weight function, was not
available.
"""

import dataclasses
from typing import Annotated

import jax

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.mixing import (
    Alpha,
    draw_partners,
    draw_row_shares,
    linear,
    mixed_forward,
)
from purenoise_jax.methods.mixing_weights import Beta, WeightFn, limits_of
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe
from purenoise_jax.models.places import PLACES
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import OneOf


def major_feature_weakening(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Alpha = 1.0,
    beta: Beta = 2.0,
    weight_fn: WeightFn = "sigmoid",
    place: Annotated[str, OneOf(PLACES), "place of the network"] = "stage2",
) -> Recipe:
    """Mixes the features of each row with another's, (1 - l) * z + l * z', and keeps its label.

    Every row draws its own l from Beta(alpha, alpha), times the weight of its class, which is at
    most 1/2 and larger for larger classes. The gradient reaches both rows of a mixture. The source
    mixes after the second group of convolutional layers and has alpha = 1 for CIFAR-10-LT, 0.2 for
    CIFAR-100-LT and 5 for steps.

    READING: the weight function is a reconstruction, see `mixing_weights`; "sigmoid" fits all that
    the supplement says of it.
    READING: partners are a random permutation; the source has other rows of the batch. Natural rows
    are mixed with natural rows, and pure noise with pure noise.
    READING: the training accuracy is that of mixed features; the source's is that of unmixed ones.
    """
    limits = limits_of(weight_fn, stats.class_counts, beta)

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        share_key, partner_key = rng.split(key)
        logits, outputs = mixed_forward(
            networks,
            batch,
            blend=linear(draw_row_shares(share_key, batch["label"], alpha, limits)),
            partner=draw_partners(partner_key, batch),
            places=(place,),
        )
        losses = recipe.loss(logits, batch["target"])
        weights = recipe.row_weights(batch["label"], losses.dtype)
        return Outcome(losses, logits, weights, outputs)

    return dataclasses.replace(recipe, objective=objective, places=(place,))
